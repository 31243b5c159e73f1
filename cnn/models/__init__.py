"""Every model by name: images float32 [N, H, W, C] in, logits [N, K] out.

All are called alike, `model.apply(variables, images, train=…, dropout_rate=…)`; in
training they need the collections `mutable=["batch_stats"]` and, with dropout, the
key `rngs={"dropout": key}`. On request (`mutable=["features"]`) each returns its
features by stage.
"""

import dataclasses
import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cnn.errors import UserError, suggest
from cnn.models import (
    airbench,
    alexnet,
    cifar_resnet,
    convnext,
    densenet,
    inverted_residual,
    layers,
    linear,
    locally_connected,
    remat,
    resnet,
    simple_cnn,
    sliding_regression,
    squeezenet,
    vgg,
    wide_resnet,
)
from cnn.ops import convolution
from cnn.options import option

MODELS = {
    "logistic_regression": linear.logistic_regression,
    "mlp": linear.mlp,
    "simple_cnn": simple_cnn.simple_cnn,
    "sliding_regression": sliding_regression.sliding_regression,
    "locally_connected": locally_connected.locally_connected,
    "alexnet": alexnet.alexnet,
    "alexnet_2012": alexnet.alexnet_2012,
    "vgg11": vgg.vgg11,
    "vgg13": vgg.vgg13,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "vgg11_bn": vgg.vgg11_bn,
    "vgg13_bn": vgg.vgg13_bn,
    "vgg16_bn": vgg.vgg16_bn,
    "vgg19_bn": vgg.vgg19_bn,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnext50_32x4d": resnet.resnext50_32x4d,
    "resnext101_32x8d": resnet.resnext101_32x8d,
    "resnext101_64x4d": resnet.resnext101_64x4d,
    "wide_resnet50_2": resnet.wide_resnet50_2,
    "wide_resnet101_2": resnet.wide_resnet101_2,
    "resnet50v2": resnet.resnet50v2,
    "resnet101v2": resnet.resnet101v2,
    "resnet152v2": resnet.resnet152v2,
    "resnet20": cifar_resnet.resnet20,
    "resnet32": cifar_resnet.resnet32,
    "resnet44": cifar_resnet.resnet44,
    "resnet56": cifar_resnet.resnet56,
    "resnet110": cifar_resnet.resnet110,
    "wrn_D_K": wide_resnet.wide_resnet,
    "densenet121": densenet.densenet121,
    "densenet161": densenet.densenet161,
    "densenet169": densenet.densenet169,
    "densenet201": densenet.densenet201,
    "squeezenet1_1": squeezenet.squeezenet1_1,
    "mobilenet_v2": inverted_residual.mobilenet_v2,
    "efficientnet_b0": inverted_residual.efficientnet_b0,
    "convnext_tiny": convnext.convnext_tiny,
    "airbench94": airbench.airbench94,
}

# What a model was published for, (image size, channels, classes), where not ImageNet.
_DIGITS, _CIFAR, _IMAGENET = (8, 1, 10), (32, 3, 10), (224, 3, 1000)
PUBLISHED_INPUTS = {
    "logistic_regression": _DIGITS,
    "mlp": _DIGITS,
    "simple_cnn": _DIGITS,
    "sliding_regression": _DIGITS,
    "locally_connected": _DIGITS,
    "alexnet_2012": (227, 3, 1000),
    "resnet20": _CIFAR,
    "resnet32": _CIFAR,
    "resnet44": _CIFAR,
    "resnet56": _CIFAR,
    "resnet110": _CIFAR,
    "wrn_D_K": _CIFAR,
    "airbench94": _CIFAR,
}


@dataclasses.dataclass(frozen=True)
class ModelOptions(
    airbench.AirbenchOptions,
    wide_resnet.WideResNetOptions,
    cifar_resnet.CifarResNetOptions,
    resnet.ResNetOptions,
    locally_connected.LocallyConnectedOptions,
    simple_cnn.SimpleCnnOptions,
    linear.MlpOptions,
    remat.RematOptions,
):
    """Which model, and its choices."""

    model: str = option("simple_cnn", f"architecture: {', '.join(MODELS)}")
    activation: str = option(
        "relu",
        "activation function of simple_cnn, mlp and locally_connected",
        choices=tuple(layers.ACTIVATIONS),
    )
    dropout_rate: float = option(
        0.0,
        "share of activations dropped in training, where the model's paper has it: "
        "before dense layers, or between the convolutions of wrn_D_K",
        kind="traced_unless_zero",
        within="[0, 1)",
    )
    stochastic_depth_rate: float = option(
        0.0,
        "share of images that skip the last residual block in training, earlier "
        "blocks proportionally less (efficientnet_b0, convnext_tiny)",
        kind="traced_unless_zero",
        within="[0, 1)",
    )
    convolution: str = option(
        "auto",
        "how convolutions and their gradients are computed: auto (what is quick on the "
        "platform) or plain (as XLA and JAX have them); equal up to rounding",
        choices=convolution.FORMULATIONS,
    )
    bn_variance: str = option(
        "biased",
        "running variance of batch normalisation: of n, or of n - 1 as in PyTorch",
        choices=("biased", "unbiased"),
    )


def create_model(
    options: ModelOptions, num_classes: int, dtype: Any = jnp.float32
) -> nn.Module:
    """Create a model.

    Args:
        options: `model` names it, the rest are its choices.
        num_classes: K.
        dtype: what it computes in; parameters stay float32.

    Raises:
        UserError: no model has that name.
    """
    return MODELS[_find_entry(options.model)](options, num_classes, dtype)


def get_published_input(name: str) -> tuple[int, int, int]:
    """Return what a model was published for: (image size, channels, classes).

    Raises:
        UserError: no model has that name.
    """
    return PUBLISHED_INPUTS.get(_find_entry(name), _IMAGENET)


def _find_entry(name: str) -> str:
    """Find the entry of `MODELS` that a name belongs to."""
    entry = "wrn_D_K" if re.fullmatch(r"wrn_\d+_\d+", name) else name
    if entry not in MODELS or name == "wrn_D_K":
        known = [*MODELS, "wrn_16_4", "wrn_28_10", "wrn_40_2"]
        raise UserError(f"--model={name} is unknown{suggest(name, known)}")
    return entry
