"""ConvNeXt: residual blocks of a 7x7 depthwise convolution and two dense layers.

Source: Liu et al. 2022, https://arxiv.org/abs/2201.03545
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import layers
from cnn.ops import pooling


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer normalisation, expansion by four, projection.

    Attributes:
        share: of the stochastic depth rate.
        conv: makes convolutions.
        norm: makes layer normalisation.
        dense: makes dense layers.
    """

    share: float
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    dense: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, stochastic_depth_rate: jax.Array | None
    ) -> jax.Array:
        """Map [N, H, W, C] to the same shape."""
        residual, width = x, x.shape[-1]
        x = self.conv(width, 7, padding=3, groups=width, name="depthwise_conv")(x)
        x = self.norm(name="norm")(x)
        x = self.dense(4 * width, name="expand")(x)
        x = self.dense(width, name="project")(nn.gelu(x, approximate=False))
        init = nn.initializers.constant(1e-6)
        scale = self.param("scale", init, (1, 1, 1, width), jnp.float32)
        x = x * scale.astype(x.dtype)
        drop = layers.StochasticDepth(self.share, name="stochastic_depth")
        return residual + drop(x, stochastic_depth_rate, train)


class ConvNeXt(nn.Module):
    """A 4x4 stem, four stages with downsampling between, global average, dense.

    Attributes:
        num_classes: K.
        widths: channels of each stage.
        depths: blocks of each stage.
        conv: makes convolutions.
        norm: makes layer normalisation.
        dense: makes dense layers.
    """

    num_classes: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    dense: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        layers.check_size(x, 32, "the image")
        x = self.conv(self.widths[0], 4, stride=4, padding=0, name="stem")(x)
        x = self.norm(name="stem_norm")(x)
        self.sow("features", "stem_out", x)
        total, done = sum(self.depths), 0
        for stage, (width, depth) in enumerate(
            zip(self.widths, self.depths, strict=True), start=1
        ):
            if stage > 1:
                x = self.norm(name=f"downsample{stage - 1}_norm")(x)
                name = f"downsample{stage - 1}_conv"
                x = self.conv(width, 2, stride=2, padding=0, name=name)(x)
            for number in range(1, depth + 1):
                block = ConvNeXtBlock(
                    done / (total - 1),
                    self.conv,
                    self.norm,
                    self.dense,
                    name=f"stage{stage}_block{number}",
                )
                x = block(x, train, stochastic_depth_rate)
                done += 1
            self.sow("features", f"stage{stage}_out", x)
        x = self.norm(name="norm")(pooling.global_avg_pool(x))
        x = layers.Dropout(name="dropout")(x, dropout_rate, train)
        return self.dense(self.num_classes, name="head")(x)


def convnext_tiny(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create ConvNeXt tiny: 28,589,128 parameters with 1000 classes."""
    conv, _, dense = layers.make_layers(options, dtype)
    init = nn.initializers.truncated_normal(0.02)
    norm = functools.partial(nn.LayerNorm, epsilon=1e-6, dtype=dtype)
    return ConvNeXt(
        num_classes,
        (96, 192, 384, 768),
        (3, 3, 9, 3),
        functools.partial(conv, kernel_init=init),
        norm,
        functools.partial(dense, kernel_init=init),
    )
