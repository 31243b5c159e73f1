"""SqueezeNet 1.0 and 1.1: fire modules, and a convolution for a head.

Source: Iandola et al. 2016, https://arxiv.org/abs/1602.07360
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.family import Family
from cnn.models.layers import (
    Conv,
    Dropout,
    Layers,
    ceil_max_pool,
    check_size,
    small_normal,
)
from cnn.models.options import ModelOptions
from cnn.ops import pooling

# (squeeze, expand) channels of each fire module, stage by stage. Of version 1.1 each
# module is as in 1.0, but pooling comes earlier.
FIRES_1_0 = (
    ((16, 64), (16, 64), (32, 128)),
    ((32, 128), (48, 192), (48, 192), (64, 256)),
    ((64, 256),),
)
FIRES_1_1 = (
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)

fan_in_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 expansions side by side.

    Attributes:
        squeeze: channels in between.
        expand: channels of each expansion.
    """

    squeeze: int
    expand: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to [N, H, W, 2 · expand]."""
        layers = self.layers
        x = nn.relu(_make_conv(layers, self.squeeze, 1, "squeeze")(x))
        small = nn.relu(_make_conv(layers, self.expand, 1, "expand1x1")(x))
        large = nn.relu(_make_conv(layers, self.expand, 3, "expand3x3")(x))
        return jnp.concatenate([small, large], axis=-1)


class SqueezeNet(nn.Module):
    """A stem, three stages of fire modules, a 1x1 convolution, global average.

    Attributes:
        width: channels of the stem.
        size: of the stem's kernel.
        fires: (squeeze, expand) channels of each module of each stage.
    """

    num_classes: int
    width: int
    size: int
    fires: tuple[tuple[tuple[int, int], ...], ...]
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
        check_size(x, self.size + 14, "the image")
        stem = _make_conv(
            self.layers, self.width, self.size, "stem", stride=2, padding=0
        )
        x = nn.relu(stem(x))
        self.sow("features", "stem_out", x)
        for stage, modules in enumerate(self.fires, start=1):
            x = ceil_max_pool(x, 3, 2)
            for number, (squeeze, expand) in enumerate(modules, start=1):
                name = f"stage{stage}_fire{number}"
                x = Fire(squeeze, expand, self.layers, name=name)(x)
            self.sow("features", f"stage{stage}_out", x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        head = self.layers.conv(
            self.num_classes, 1, kernel_init=small_normal, name="head"
        )
        return pooling.global_avg_pool(nn.relu(head(x)))


def _make_conv(
    layers: Layers, features: int, size: int, name: str, **kwargs: Any
) -> Conv:
    return layers.conv(features, size, kernel_init=fan_in_uniform, name=name, **kwargs)


def squeezenet1_0(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create SqueezeNet 1.0: 1,248,424 parameters with 1000 classes."""
    layers = Layers.from_options(options, dtype)
    return SqueezeNet(num_classes, 96, 7, FIRES_1_0, layers)


def squeezenet1_1(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create SqueezeNet 1.1: 1,235,496 parameters with 1000 classes."""
    layers = Layers.from_options(options, dtype)
    return SqueezeNet(num_classes, 64, 3, FIRES_1_1, layers)


FAMILY = Family(
    "SqueezeNet",
    {
        "squeezenet1_1": squeezenet1_1,
        "squeezenet1_0": squeezenet1_0,
    },
)
