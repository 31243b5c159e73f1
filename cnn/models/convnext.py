"""ConvNeXt: residual blocks of a 7x7 depthwise convolution and two dense layers.

Source: Liu et al. 2022, https://arxiv.org/abs/2201.03545
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.family import Family
from cnn.models.layers import (
    Creator,
    Dropout,
    Layers,
    StochasticDepth,
    check_size,
    share_depth,
)
from cnn.models.options import ModelOptions
from cnn.ops import pooling

kernel_init = nn.initializers.truncated_normal(0.02)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer normalisation, expansion by four, projection.

    Attributes:
        share: of the stochastic depth rate.
    """

    share: float
    layers: Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, stochastic_depth_rate: jax.Array | None
    ) -> jax.Array:
        """Map [N, H, W, C] to the same shape."""
        residual, width, layers = x, x.shape[-1], self.layers
        depthwise = layers.conv(
            width,
            7,
            padding=3,
            groups=width,
            kernel_init=kernel_init,
            name="depthwise_conv",
        )
        x = _make_norm(layers, "norm")(depthwise(x))
        x = layers.dense(4 * width, kernel_init=kernel_init, name="expand")(x)
        x = nn.gelu(x, approximate=False)
        x = layers.dense(width, kernel_init=kernel_init, name="project")(x)
        init = nn.initializers.constant(1e-6)
        scale = self.param("scale", init, (1, 1, 1, width), jnp.float32)
        x = x * scale.astype(x.dtype)
        drop = StochasticDepth(self.share, name="stochastic_depth")
        return residual + drop(x, stochastic_depth_rate, train)


class ConvNeXt(nn.Module):
    """A 4x4 stem, four stages with downsampling between, global average, dense.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
    """

    num_classes: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
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
        check_size(x, 32, "the image")
        x = self._patch(x, self.widths[0], 4, "stem")
        x = _make_norm(self.layers, "stem_norm")(x)
        self.sow("features", "stem_out", x)
        total, done = sum(self.depths), 0
        for stage, (width, depth) in enumerate(
            zip(self.widths, self.depths, strict=True), start=1
        ):
            if stage > 1:
                x = _make_norm(self.layers, f"downsample{stage - 1}_norm")(x)
                x = self._patch(x, width, 2, f"downsample{stage - 1}_conv")
            for number in range(1, depth + 1):
                done += 1
                share = share_depth(done, total, "from_zero")
                name = f"stage{stage}_block{number}"
                block = ConvNeXtBlock(share, self.layers, name=name)
                x = block(x, train, stochastic_depth_rate)
            self.sow("features", f"stage{stage}_out", x)
        x = _make_norm(self.layers, "norm")(pooling.global_avg_pool(x))
        x = Dropout(name="dropout")(x, dropout_rate, train)
        head = self.layers.dense(self.num_classes, kernel_init=kernel_init, name="head")
        return head(x)

    def _patch(self, x: jax.Array, width: int, size: int, name: str) -> jax.Array:
        """Map each patch of size x size pixels to one place of `width` channels."""
        conv = self.layers.conv(
            width, size, stride=size, padding=0, kernel_init=kernel_init, name=name
        )
        return conv(x)


def _make_norm(layers: Layers, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, dtype=layers.dtype, name=name)


def make_convnext(widths: tuple[int, ...], depths: tuple[int, ...]) -> Creator:
    """Make the function that creates one member of the family; see `ConvNeXt`."""

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        layers = Layers.from_options(options, dtype)
        return ConvNeXt(num_classes, widths, depths, layers)

    return create


FAMILY = Family(
    "ConvNeXt",
    {
        "convnext_tiny": make_convnext((96, 192, 384, 768), (3, 3, 9, 3)),
        "convnext_small": make_convnext((96, 192, 384, 768), (3, 3, 27, 3)),
        "convnext_base": make_convnext((128, 256, 512, 1024), (3, 3, 27, 3)),
        "convnext_large": make_convnext((192, 384, 768, 1536), (3, 3, 27, 3)),
    },
)
