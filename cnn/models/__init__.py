"""Every model by name, and the contract of a model.

A new model is one file that keeps the contract and one line in `MODELS`; one more in
`PUBLISHED_INPUTS` unless it was published for 224x224x3 pixels and 1000 classes.
Tests, flags, sweeps and pictures find it there.

`create(options: ModelOptions, num_classes: int, dtype) -> nn.Module` makes a model:

- Equal options make equal models (`==`, `hash`), so that runs share compiled programs:
  attributes are numbers, strings, tuples, `Layers` and functions that a module names,
  never closures, partials or arrays.
- Layers are made by `layers.Layers`, the attribute `layers`: it carries
  `--precision`, `--convolution` and `--bn_variance`, and only its batch normalisation
  is held by `--freeze_statistics` and freezing.

`model(x, train=False, dropout_rate=None, stochastic_depth_rate=None)` computes:

- `x` is float32 [N, H, W, C], the result logits [N, K] in `dtype`. Parameters
  (`params`) and running statistics (`batch_stats`) are float32.
- `train=True` takes the batch's statistics and needs `mutable=["batch_stats"]`.
- The rates are float32 [] or None for absent; they act in training alone and need
  `rngs={"dropout": key}`. A model that has no place for one ignores it.
- An image that is too small is refused by `layers.check_size`.

Names are API. Every parameter belongs to a layer, the first part of its path, and
layers are ordered as they run. (Parameters right in the model, as `sliding_regression`
and `locally_connected` have them, count as the last layers, wherever they act.)

- `stem` stands before the stages. The first layer, this or stage 1's, is adapted to
  grey or colour images (`--init_from`) and can be a whitening (`--whitening_images`)
  if it is a convolution.
- `stageN` or `stageN_…` (`stage2_block1`, `stage1_conv2`) are the layers of stage N:
  what `--freeze_through`, `--freeze`, `--unfreeze` and `--learning_rate_for` name.
  `…_convM` and `…_normM` are one layer to `--layer_decay`.
- `head` is the last layer, and the only one that depends on `num_classes`: it is
  drawn again for other classes, and `--train_only=head` trains it alone, on cached
  features where the logits are what it returns. `sliding_regression` has none.
- A block is a layer that has layers of its own. It takes `x` first and returns one
  array; `--remat=blocks` computes it again in the backward pass.
- A weight that is multiplied with the input is called `kernel` or `…_kernel`, and no
  other leaf is: `--mode=describe` counts its multiply-accumulates, pictures show it,
  exports know its layout, Muon orthogonalises it, and `--decay_norms=false` decays it
  alone. Its last axes are [I, O] or [S, S, I, O]; what stands before are places.

`self.sow("features", "stageN_out", x)` at the end of each stage, in order, is what
pictures show (features, patches, saliency, receptive fields, maximisation), under the
name without `_out`; of a stage that ends in `nn.relu` also what it holds back. It costs
nothing unless `mutable=["features"]` asks for it.
"""

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
    linear,
    locally_connected,
    resnet,
    simple_cnn,
    sliding_regression,
    squeezenet,
    vgg,
    wide_resnet,
)
from cnn.models.layers import Creator
from cnn.models.options import ModelOptions

MODELS: dict[str, Creator] = {
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

# What a model was published for, (image size, channels, classes), where not ImageNet;
# DIGITS is what the lecture's own models are shown on.
DIGITS, _CIFAR, _IMAGENET = (8, 1, 10), (32, 3, 10), (224, 3, 1000)
PUBLISHED_INPUTS = {
    "logistic_regression": DIGITS,
    "mlp": DIGITS,
    "simple_cnn": DIGITS,
    "sliding_regression": DIGITS,
    "locally_connected": DIGITS,
    "alexnet_2012": (227, 3, 1000),
    "resnet20": _CIFAR,
    "resnet32": _CIFAR,
    "resnet44": _CIFAR,
    "resnet56": _CIFAR,
    "resnet110": _CIFAR,
    "wrn_D_K": _CIFAR,
    "airbench94": _CIFAR,
}


def create_model(
    options: ModelOptions, num_classes: int, dtype: Any = jnp.float32
) -> nn.Module:
    """Create a model.

    Args:
        options: `model` names it, the rest are its choices.
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
