"""ShuffleNet v2: half of the channels pass by, the others are filtered, both are mixed.

Source: Ma et al. 2018, https://arxiv.org/abs/1807.11164
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.family import Family
from cnn.models.layers import Creator, Dropout, Layers, torch_default
from cnn.models.options import ModelOptions
from cnn.ops import pooling, rearrange

DEPTHS = (4, 8, 4)
# Channels of the stages and of the last convolution, by the width's factor.
WIDTHS = {
    "x0_5": (48, 96, 192, 1024),
    "x1_0": (116, 232, 464, 1024),
    "x1_5": (176, 352, 704, 1024),
    "x2_0": (244, 488, 976, 2048),
}


class ShuffleBlock(nn.Module):
    """Two branches of half of the channels each, whose results are shuffled.

    With stride 1 the first branch is half of what comes in, unchanged, and the second
    filters the other half; with stride 2 both filter all of it.

    Attributes:
        features: channels of the result.
        stride: of the depthwise convolutions.
    """

    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, features]."""
        if self.stride == 1:
            residual, x = jnp.split(x, 2, axis=-1)
        else:
            residual = self._filter(x, train, "shortcut_depthwise")
            residual = self._mix(residual, train, "shortcut_project")
        x = self._mix(x, train, "expand")
        x = self._filter(x, train, "depthwise")
        x = self._mix(x, train, "project")
        return rearrange.channel_shuffle(jnp.concatenate([residual, x], axis=-1), 2)

    def _filter(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        """Filter each channel 3x3."""
        width = x.shape[-1]
        about = {"stride": self.stride, "groups": width, "kernel_init": torch_default}
        return self.layers.conv_norm(x, train, width, 3, name, **about)

    def _mix(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        """Convolve 1x1 to half of the channels, and rectify."""
        width, about = self.features // 2, {"kernel_init": torch_default}
        return self.layers.conv_norm(x, train, width, 1, name, nn.relu, **about)


class ShuffleNetV2(nn.Module):
    """A 3x3 stem, max-pooling, three stages of blocks, a 1x1 convolution, dense.

    Attributes:
        widths: channels of the stages and of the last convolution.
    """

    num_classes: int
    widths: tuple[int, ...]
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
        layers, about = self.layers, {"kernel_init": torch_default}
        x = layers.conv_norm(x, train, 24, 3, "stem", nn.relu, stride=2, **about)
        self.sow("features", "stem_out", x)
        x = layers.max_pool(x, 3, 2, 1)
        for stage, (width, depth) in enumerate(
            zip(self.widths, DEPTHS, strict=False), start=1
        ):
            for number in range(1, depth + 1):
                stride, name = 2 if number == 1 else 1, f"stage{stage}_block{number}"
                x = ShuffleBlock(width, stride, layers, name=name)(x, train)
            self.sow("features", f"stage{stage}_out", x)
        x = layers.conv_norm(x, train, self.widths[-1], 1, "last", nn.relu, **about)
        x = pooling.global_avg_pool(x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        return layers.dense(self.num_classes, name="head")(x)


def make_shufflenet_v2(factor: str) -> Creator:
    """Make the function that creates a ShuffleNet v2 of a width."""

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        layers = Layers.from_options(options, dtype)
        return ShuffleNetV2(num_classes, WIDTHS[factor], layers)

    return create


FAMILY = Family(
    "ShuffleNet v2",
    {f"shufflenet_v2_{factor}": make_shufflenet_v2(factor) for factor in WIDTHS},
)
