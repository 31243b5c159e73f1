"""ModelOptions: which model, and the choices of its family."""

import dataclasses
from typing import ClassVar

from cnn.option import code_option, option, strength

# Where there is a batch normalisation.
NORMALISED = (
    "batch_norm or model!=simple_cnn|logistic_regression|mlp|sliding_regression|"
    "locally_connected|alexnet*|vgg??|squeezenet*|convnext*|lenet5|nin|all_cnn_c|bit_*"
)
# Where a window of padded images strides.
STRIDED = (
    "model=alexnet|resnet*|resnext*|wide_resnet*|preact_resnet??|wrn_*|mobilenet*|"
    "efficientnet*|mnasnet*|regnet*|shufflenet*|all_cnn_c or model=densenet??? and "
    "stem=imagenet"
)
# What has a stem for small images too.
STEMMED = (
    "model=resnet18|resnet34|resnet50|resnet101|resnet152|resnet*v2|preact_resnet??|"
    "resnext50*|resnext1*|wide_resnet*|densenet???|mobilenet*|efficientnet*|mnasnet*|"
    "regnet*"
)
# What has channels that `--width_multiplier` multiplies.
WIDENED = "model=simple_cnn|wrn_*|resnet*|resnext*|wide_resnet*|preact_resnet*"
# Where blocks add what they compute to their input.
RESIDUAL = (
    "model=resnet*|resnext*|wide_resnet*|preact_resnet*|wrn_*|bit_*|regnet*|"
    "mobilenet*|mnasnet*|efficientnet*|convnext*|*.py:*"
)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which model, and its choices."""

    modes: ClassVar[str] = "train sweep describe convert"

    model: str = code_option(
        "simple_cnn",
        "architecture; --help lists them under Models. FILE.py:NAME: a module of Flax "
        "of your own, of which the run keeps a copy (docs/models.md); it is code: run "
        "what you trust",
    )
    activation: str = option(
        "relu",
        "activation function of simple_cnn, mlp and locally_connected",
        choices=("relu", "gelu", "silu", "elu", "leaky_relu", "tanh", "sigmoid"),
        only_for="model=simple_cnn|mlp|locally_connected",
    )
    dropout_rate: float = strength(
        "share of activations dropped in training, where the model's paper has it: "
        "before dense layers, or between convolutions (wrn_D_K, nin, all_cnn_c)",
        "[0, 1)",
        only_for="model!=logistic_regression|sliding_regression|lenet5",
        modes="train sweep describe",
    )
    stochastic_depth_rate: float = strength(
        "share of images that skip the last residual block in training, earlier "
        "blocks proportionally less; for models of residual blocks",
        "[0, 1)",
        only_for=RESIDUAL,
        modes="train sweep describe",
    )
    dropblock_rate: float = strength(
        "share of each feature map that DropBlock drops in training, in squares; of "
        "stage 4, and a quarter of it of stage 3",
        "[0, 1)",
        only_for="model=resnet18|resnet34|resnet50|resnet101|resnet152|resnext50*|"
        "resnext1*|wide_resnet*",
        modes="train sweep describe",
    )
    dropblock_size: tuple[int, ...] = option(
        (7,),
        "side of DropBlock's squares, in pixels of the feature map: one number, or "
        "those of stages 3 and 4 (timm has 5,3)",
        within="[1, 255]",
        only_for="dropblock_rate",
        modes="train sweep describe",
    )
    convolution: str = option(
        "auto",
        "how convolutions and their gradients are computed: auto (what is fast on the "
        "platform) or plain (as XLA and JAX have them); equal up to rounding",
        choices=("auto", "plain"),
        only_for="model!=logistic_regression|mlp|locally_connected",
    )
    bn_variance: str = option(
        "biased",
        "running variance of batch normalisation: of n, or of n - 1 as in PyTorch",
        choices=("biased", "unbiased"),
        only_for=NORMALISED,
        modes="train sweep describe",
    )
    remat: str = option(
        "none",
        "what the backward pass computes again to save memory: none, or blocks "
        "(everything inside residual, dense and fire blocks, at the cost of a second "
        "forward pass through them)",
        choices=("none", "blocks"),
        modes="train sweep describe",
    )
    width_multiplier: float = option(
        1.0,
        "what multiplies the channels of all hidden layers: widths and "
        "dense_widths of simple_cnn, the K of wrn_D_K, all of a ResNet",
        within="(0, 1024]",
        only_for=WIDENED,
    )
    widths: tuple[int, ...] = option(
        (32, 64, 128),
        "channels of each stage of simple_cnn",
        within="[1, 65536]",
        only_for="model=simple_cnn",
    )
    kernel_size: int = option(
        3,
        "side of simple_cnn's kernels, in pixels",
        within="[1, 255]",
        only_for="model=simple_cnn|locally_connected",
    )
    padding: str = option(
        "same",
        "same: each convolution of simple_cnn keeps the size; valid: it loses "
        "kernel_size - 1 pixels",
        choices=("same", "valid"),
        only_for="model=simple_cnn",
    )
    downsampling: str = option(
        "max_pool",
        "how each stage of simple_cnn halves the size",
        choices=("stride", "max_pool", "avg_pool", "space_to_depth", "none"),
        only_for="model=simple_cnn",
    )
    head: str = option(
        "global_average",
        "what simple_cnn does with its last feature maps; global_average makes it "
        "independent of the image's size",
        choices=("flatten", "global_average"),
        only_for="model=simple_cnn",
    )
    batch_norm: bool = option(
        True, "batch normalisation in simple_cnn", only_for="model=simple_cnn"
    )
    dense_widths: tuple[int, ...] = option(
        (),
        "units of simple_cnn's dense layers before the last",
        within="[1, 65536]",
        only_for="model=simple_cnn",
    )
    mlp_widths: tuple[int, ...] = option(
        (128, 128),
        "units of each hidden layer of mlp",
        within="[1, 65536]",
        only_for="model=mlp",
    )
    local_widths: tuple[int, ...] = option(
        (16, 32),
        "channels of each layer of locally_connected",
        within="[1, 65536]",
        only_for="model=locally_connected",
    )
    zero_init_residual: bool = option(
        False,
        "start the last normalisation scale of each residual block at 0 "
        "(https://arxiv.org/abs/1706.02677)",
        only_for="model=resnet??|resnet1??|resnext*|wide_resnet*",
        modes="train sweep describe",
    )
    resnet_shortcut: str = option(
        "pad",
        "shortcut of resnet20 … resnet110 where the size changes: pad (option A: every "
        "second pixel, channels padded with zeros) or project (option B: 1x1 "
        "convolution)",
        choices=("pad", "project"),
        only_for="model=resnet20|resnet32|resnet44|resnet56|resnet110",
    )
    wrn_block: tuple[int, ...] = option(
        (3, 3),
        "sizes of the convolutions in a block of wrn_D_K, in pixels: 3,3 · 3,1 · 1,3 · "
        "3,1,1 · 1,3,1 · 3,1,3",
        within="[1, 3]",
        only_for="model=wrn_*",
    )
    airbench_width: int = option(
        64,
        "channels of airbench94's first group; the other two have four times as many",
        within="[1, 65536]",
        only_for="model=airbench94",
    )
    strided_padding: str = option(
        "symmetric",
        "zeros around convolutions and pooling that stride: symmetric (PyTorch's), or "
        "same (SAME of TensorFlow and Flax: the odd one on the right and bottom; the "
        "7x7 stem of ResNets keeps 3 on all sides), which is what weights from there "
        "need",
        choices=("symmetric", "same"),
        only_for=STRIDED,
    )
    bn_epsilon: float = option(
        0.0,
        "what batch normalisation adds to the variance; 0: the model's own, 1e-5 in "
        "most (weights of families that TensorFlow trained need 1e-3)",
        within="[0, 1]",
        only_for=NORMALISED,
    )
    stem: str = option(
        "imagenet",
        "what comes before the stages: imagenet, as published for large images, or "
        "cifar, for small ones: a 3x3 convolution of stride 1, and no pooling",
        choices=("imagenet", "cifar"),
        only_for=STEMMED,
    )
    auxiliary_weight: float = strength(
        "weight of each auxiliary classifier's loss, which training adds to the "
        "main one; 0: they do not train; -1: as published, 0.3 (googlenet) or 0.4 "
        "(inception_v3). A classifier that is frozen adds none",
        "[-1, inf)",
        default=-1.0,
        only_for="model=googlenet|inception_v3",
        modes="train sweep describe",
    )
