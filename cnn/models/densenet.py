"""DenseNet-BC: each layer sees the concatenation of all before it in its block.

`densenet_bc_L_k` are those for CIFAR, as their authors coded them: three blocks behind
a 3x3 convolution that neither normalisation nor ReLU follows.

Source: Huang et al. 2017, https://arxiv.org/abs/1608.06993;
    https://github.com/liuzhuang13/DenseNet/blob/master/models/densenet.lua
"""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.errors import UserError
from cnn.models.family import CIFAR, Family, Pattern
from cnn.models.layers import (
    Conv,
    Creator,
    Dropout,
    Layers,
    check_size,
    kaiming_fan_in,
)
from cnn.models.options import ModelOptions
from cnn.ops import pooling

_BC = r"densenet_bc_(\d+)_(\d+)"


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution.

    Attributes:
        growth: channels that are added.
    """

    growth: int
    layers: Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, dropout_rate: jax.Array | None
    ) -> jax.Array:
        """Map [N, H, W, C] to [N, H, W, growth]."""
        layers = self.layers
        x = nn.relu(layers.norm(name="norm1")(x, train))
        x = _make_conv(layers, 4 * self.growth, 1, "conv1")(x)
        x = nn.relu(layers.norm(name="norm2")(x, train))
        x = _make_conv(layers, self.growth, 3, "conv2")(x)
        return Dropout(name="dropout")(x, dropout_rate, train)


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between, global average, dense.

    Attributes:
        stem: `imagenet` (7x7 by 2, normalisation, pooling by 2), `cifar` (3x3,
            normalisation), or `bare` (3x3 alone).
        depths: layers of each block.
        growth: channels that each layer adds.
        stem_features: channels of the stem.
    """

    num_classes: int
    stem: str
    depths: tuple[int, ...]
    growth: int
    stem_features: int
    layers: Layers

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        layers = self.layers
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = _make_conv(layers, self.stem_features, size, "stem", stride)(x)
        if self.stem != "bare":
            x = nn.relu(layers.norm(name="stem_norm")(x, train))
        self.sow("features", "stem_out", x)
        if self.stem == "imagenet":
            x = layers.max_pool(x, 3, 2, padding=1)
        for stage, depth in enumerate(self.depths, start=1):
            for number in range(1, depth + 1):
                name = f"stage{stage}_layer{number}"
                layer = DenseLayer(self.growth, layers, name=name)
                x = jnp.concatenate([x, layer(x, train, dropout_rate)], axis=-1)
            self.sow("features", f"stage{stage}_out", x)
            if stage < len(self.depths):
                name = f"transition{stage}"
                x = nn.relu(layers.norm(name=f"{name}_norm")(x, train))
                x = _make_conv(layers, x.shape[-1] // 2, 1, f"{name}_conv")(x)
                check_size(x, 2, name)
                x = pooling.avg_pool2d(x, 2)
        x = nn.relu(layers.norm(name="norm")(x, train))
        x = pooling.global_avg_pool(x)
        return layers.dense(self.num_classes, name="head")(x)


def _make_conv(
    layers: Layers, features: int, size: int, name: str, stride: int = 1
) -> Conv:
    return layers.conv(
        features,
        size,
        stride=stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=kaiming_fan_in,
        name=name,
    )


def make_densenet(depths: tuple[int, ...], growth: int, stem_features: int) -> Creator:
    """Make the function that creates one member of the family; see `DenseNet`."""

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        layers = Layers.from_options(options, dtype)
        stem = options.stem
        return DenseNet(num_classes, stem, depths, growth, stem_features, layers)

    return create


def densenet_bc(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create densenet_bc_L_k: depth L = 6n + 4 of three blocks of n layers, growth k.

    Raises:
        UserError: L is not 6n + 4, or k is 0.
    """
    depth, growth = map(int, re.fullmatch(_BC, options.model).groups())
    if depth < 10 or (depth - 4) % 6 or growth < 1:
        nearest = max(10, (depth - 1) // 6 * 6 + 4)
        raise UserError(
            f"--model={options.model}: the depth of densenet_bc_L_k is 6n + 4 (40, "
            "100, 190, 250, …) and its growth at least 1; did you mean "
            f"densenet_bc_{nearest}_{max(growth, 1)}?"
        )
    depths = ((depth - 4) // 6,) * 3
    layers = Layers.from_options(options, dtype)
    return DenseNet(num_classes, "bare", depths, growth, 2 * growth, layers)


FAMILY = Family(
    "DenseNet",
    {
        "densenet121": make_densenet((6, 12, 24, 16), 32, 64),
        "densenet169": make_densenet((6, 12, 32, 32), 32, 64),
        "densenet201": make_densenet((6, 12, 48, 32), 32, 64),
        "densenet161": make_densenet((6, 12, 36, 24), 48, 96),
    },
    (
        Pattern(
            "densenet_bc_L_k",
            _BC,
            ("densenet_bc_10_4", "densenet_bc_40_12", "densenet_bc_100_12"),
            densenet_bc,
            CIFAR,
        ),
    ),
)
