"""Inverted residuals, which families share: expand, filter each channel, project.

Source: Sandler et al. 2018, https://arxiv.org/abs/1801.04381
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.layers import Dropout, Layers, StochasticDepth
from cnn.ops import pooling


class SqueezeExcite(nn.Module):
    """Scale each channel by a number that depends on all channels' averages.

    Attributes:
        squeezed: channels in between.
        activate: what is applied to them.

    Source: Hu et al. 2018, https://arxiv.org/abs/1709.01507
    """

    squeezed: int
    layers: Layers
    activate: Callable[[jax.Array], jax.Array] = nn.silu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to the same shape."""
        scale = jnp.mean(x, axis=(1, 2), keepdims=True)
        scale = self.layers.conv(self.squeezed, 1, name="squeeze")(scale)
        scale = self.layers.conv(x.shape[-1], 1, name="excite")(self.activate(scale))
        return x * nn.sigmoid(scale)


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise convolution, a 1x1 projection.

    Attributes:
        expansion: what the channels are multiplied by in between.
        size: of the depthwise kernel.
        stride: of the depthwise convolution.
        features: channels of the result.
        share: of the stochastic depth rate.
        excites: whether channels are rescaled before the projection.
    """

    expansion: int
    size: int
    stride: int
    features: int
    share: float
    excites: bool
    activate: Callable[[jax.Array], jax.Array]
    layers: Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, stochastic_depth_rate: jax.Array | None
    ) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, features]."""
        residual, width, layers = x, x.shape[-1] * self.expansion, self.layers
        if self.expansion > 1:
            x = layers.conv(width, 1, use_bias=False, name="expand_conv")(x)
            x = self.activate(layers.norm(name="expand_norm")(x, train))
        x = layers.conv(
            width,
            self.size,
            stride=self.stride,
            padding=self.size // 2,
            groups=width,
            use_bias=False,
            name="depthwise_conv",
        )(x)
        x = self.activate(layers.norm(name="depthwise_norm")(x, train))
        if self.excites:
            squeezed = max(1, residual.shape[-1] // 4)
            x = SqueezeExcite(squeezed, layers, name="excite")(x)
        x = layers.conv(self.features, 1, use_bias=False, name="project_conv")(x)
        x = layers.norm(name="project_norm")(x, train)
        if self.stride > 1 or residual.shape[-1] != self.features:
            return x
        drop = StochasticDepth(self.share, name="stochastic_depth")
        return residual + drop(x, stochastic_depth_rate, train)


class InvertedResidualNet(nn.Module):
    """A 3x3 stem, stages of inverted residuals, a 1x1 convolution, dense.

    Attributes:
        stages: (expansion, kernel size, stride of the first block, channels, blocks)
            of each.
        excites: whether blocks rescale channels.
        head_init: draws the last kernel.
    """

    num_classes: int
    stages: tuple[tuple[int, ...], ...]
    excites: bool
    activate: Callable[[jax.Array], jax.Array]
    head_init: Callable[..., jax.Array]
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
        x = layers.conv(32, 3, stride=2, padding=1, use_bias=False, name="stem")(x)
        x = self.activate(layers.norm(name="stem_norm")(x, train))
        self.sow("features", "stem_out", x)
        total = sum(stage[-1] for stage in self.stages)
        done = 0
        for stage, (expansion, size, stride, features, depth) in enumerate(
            self.stages, start=1
        ):
            for number in range(1, depth + 1):
                block = InvertedResidual(
                    expansion,
                    size,
                    stride if number == 1 else 1,
                    features,
                    done / total,
                    self.excites,
                    self.activate,
                    layers,
                    name=f"stage{stage}_block{number}",
                )
                x = block(x, train, stochastic_depth_rate)
                done += 1
            self.sow("features", f"stage{stage}_out", x)
        x = layers.conv(1280, 1, use_bias=False, name="last_conv")(x)
        x = self.activate(layers.norm(name="last_norm")(x, train))
        x = pooling.global_avg_pool(x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        head = layers.dense(self.num_classes, kernel_init=self.head_init, name="head")
        return head(x)
