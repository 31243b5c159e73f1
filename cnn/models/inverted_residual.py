"""Inverted residuals, which families share: expand, filter each channel, project.

Source: Sandler et al. 2018, https://arxiv.org/abs/1801.04381
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import flax.linen as nn
import jax

from cnn.errors import UserError
from cnn.models.layers import (
    Activation,
    Dropout,
    Layers,
    StochasticDepth,
    share_depth,
)
from cnn.models.squeeze_excite import SqueezeExcite
from cnn.ops import pooling

# A line of a paper's table: expansion, kernel size, stride of the first block,
# channels, blocks of a stage.
Row = tuple[int, int, int, int, int]


class Block(NamedTuple):
    """What one inverted residual is made of.

    Attributes:
        size: of the kernel that filters, in pixels.
        stride: of the convolution with it.
        width: channels in between; as many as come in where nothing is expanded.
        features: channels of the result.
        activate: follows each normalisation but the projection's.
        squeezed: channels inside the squeeze-and-excitation; 0 where there is none.
        is_fused: whether the filter is no depthwise convolution but a full one, which
            expands too; where nothing is expanded, it projects as well.
        has_shortcut: whether the input is added to a result of its shape.
    """

    size: int
    stride: int
    width: int
    features: int
    activate: Activation
    squeezed: int = 0
    is_fused: bool = False
    has_shortcut: bool = True


Stages = tuple[tuple[Block, ...], ...]


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise convolution, a 1x1 projection; or a fused one.

    Attributes:
        share: of the stochastic depth rate.
        gates: `activate` and `gate` of the squeeze-and-excitation.
    """

    block: Block
    share: float
    gates: tuple[Activation, Activation]
    layers: Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, stochastic_depth_rate: jax.Array | None
    ) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, features]."""
        residual, block, conv_norm = x, self.block, self.layers.conv_norm
        width, activate, kwargs = block.width, block.activate, {"stride": block.stride}
        expands = width != x.shape[-1]
        if block.is_fused:
            features = width if expands else block.features
            x = conv_norm(x, train, features, block.size, "fused", activate, **kwargs)
        else:
            if expands:
                x = conv_norm(x, train, width, 1, "expand", activate)
            kwargs["groups"] = width
            x = conv_norm(x, train, width, block.size, "depthwise", activate, **kwargs)
        if block.squeezed:
            excite = SqueezeExcite(
                block.squeezed, self.layers, *self.gates, name="excite"
            )
            x = excite(x)
        if expands or not block.is_fused:
            x = conv_norm(x, train, block.features, 1, "project")
        if not block.has_shortcut or residual.shape != x.shape:
            return x
        drop = StochasticDepth(self.share, name="stochastic_depth")
        return residual + drop(x, stochastic_depth_rate, train)


class InvertedResidualNet(nn.Module):
    """A 3x3 stem, stages of inverted residuals, a 1x1 convolution, dense.

    The stem strides by 2, or for small images (`cifar`) by 1. What is published for
    those often lets a stage stride less too (MobileNet v2 of
    github.com/kuangliu/pytorch-cifar the second, which keeps 4x4 pixels of 32x32 at
    the end instead of 2x2). Here the stem alone changes, as `--stem` says of all
    models, so that stages are the same and take the same weights.

    Attributes:
        stem: `imagenet`, or `cifar`.
        stem_width: channels of the stem.
        stages: the blocks of each.
        last_width: channels of the 1x1 convolution.
        dense_width: units of a dense layer before the head; 0 where there is none.
        activate: follows the layers outside the blocks.
        gates: of the blocks.
        head_init: draws the dense kernels.
    """

    num_classes: int
    stem: str
    stem_width: int
    stages: Stages
    last_width: int
    activate: Activation
    head_init: Callable[..., jax.Array]
    layers: Layers
    gates: tuple[Activation, Activation] = (nn.silu, nn.sigmoid)
    dense_width: int = 0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        layers, activate = self.layers, self.activate
        stride = 1 if self.stem == "cifar" else 2
        x = layers.conv_norm(
            x, train, self.stem_width, 3, "stem", activate, stride=stride
        )
        self.sow("features", "stem_out", x)
        total, done = sum(map(len, self.stages)), 0
        for stage, blocks in enumerate(self.stages, start=1):
            for number, block in enumerate(blocks, start=1):
                done += 1
                share = share_depth(done, total, "below")
                name = f"stage{stage}_block{number}"
                residual = InvertedResidual(block, share, self.gates, layers, name=name)
                x = residual(x, train, stochastic_depth_rate)
            self.sow("features", f"stage{stage}_out", x)
        x = layers.conv_norm(x, train, self.last_width, 1, "last", activate)
        x = pooling.global_avg_pool(x)
        if self.dense_width:
            dense = layers.dense(
                self.dense_width, kernel_init=self.head_init, name="dense1"
            )
            x = activate(dense(x))
        x = Dropout(name="dropout")(x, dropout_rate, train)
        head = layers.dense(self.num_classes, kernel_init=self.head_init, name="head")
        return head(x)


def list_stages(
    channels: int, rows: Iterable[Row], activate: Activation, kind: str = "plain"
) -> Stages:
    """List the blocks of stages.

    Args:
        channels: that the first stage receives.
        kind: `plain`, `excite` (a quarter of a block's input is what it squeezes to),
            or `fused`.
    """
    stages = []
    for expansion, size, stride, features, depth in rows:
        blocks = []
        for number in range(depth):
            block = Block(
                size,
                stride if number == 0 else 1,
                channels * expansion,
                features,
                activate,
                squeezed=channels // 4 if kind == "excite" else 0,
                is_fused=kind == "fused",
            )
            blocks.append(block)
            channels = features
        stages.append(tuple(blocks))
    return tuple(stages)


def scale_rows(rows: Iterable[Row], width: float, depth: float = 1.0) -> list[Row]:
    """Multiply the channels, and the blocks (rounded up), of each stage."""
    return [
        (expansion, size, stride, round_channels(width * n), math.ceil(depth * blocks))
        for expansion, size, stride, n, blocks in rows
    ]


def round_channels(channels: float) -> int:
    """Round to a multiple of 8; up where down would lose more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def read_width(name: str) -> float:
    """Read the width that a name ends with: 0.5 of `mobilenet_v2_0_5`, else 1.

    Raises:
        UserError: it is 0.
    """
    match = re.search(r"(\d+)_(\d+)$", name)
    width = float(f"{match[1]}.{match[2]}") if match else 1.0
    if not width:
        raise UserError(
            f"--model={name}: its width is 0; give what channels are multiplied by, "
            "0_5 for 0.5"
        )
    return width
