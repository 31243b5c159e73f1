"""Wide ResNet: depth and width by name, wrn_D_K, the block's convolutions as a flag.

As its authors coded it: normalisation and ReLU before each convolution; no biases; a
1x1 shortcut only where channels change, on the activated input, without
normalisation; dropout between a block's convolutions; a last normalisation and ReLU.

The block types of the paper's Figure 1 are basic (`wrn_block=3,3`, K = 1), bottleneck
(`1,3,1`), basic-wide (`3,3`, K > 1) and wide-dropout (the same with `dropout_rate`).

Source: Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146
"""

import re
from typing import Any

import flax.linen as nn
import jax

from cnn.errors import UserError
from cnn.models.family import CIFAR, Family, Pattern
from cnn.models.layers import Dropout, Layers, StochasticDepth, share_depth
from cnn.models.options import ModelOptions
from cnn.models.width import widen
from cnn.ops import pooling

_NAME = r"wrn_(\d+)_(\d+)"


class WideBlock(nn.Module):
    """A residual block of pre-activated convolutions.

    Attributes:
        features: channels of the result.
        stride: of the first convolution and of the shortcut.
        sizes: of the convolutions, in pixels.
        share: of the stochastic depth rate.
    """

    features: int
    stride: int
    sizes: tuple[int, ...]
    share: float
    layers: Layers

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool,
        dropout_rate: jax.Array | None,
        stochastic_depth_rate: jax.Array | None,
    ) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, features]."""
        residual = x
        for number, size in enumerate(self.sizes, start=1):
            stride = self.stride if number == 1 else 1
            x = nn.relu(self.layers.norm(name=f"norm{number}")(x, train))
            if number == 1 and residual.shape[-1] != self.features:
                residual = self._conv(1, stride, "shortcut_conv")(x)
            if number == len(self.sizes):
                x = Dropout(name="dropout")(x, dropout_rate, train)
            x = self._conv(size, stride, f"conv{number}")(x)
        drop = StochasticDepth(self.share, name="stochastic_depth")
        return drop(x, stochastic_depth_rate, train) + residual

    def _conv(self, size: int, stride: int, name: str) -> nn.Module:
        return self.layers.conv(
            self.features,
            size,
            stride=stride,
            padding=size // 2,
            use_bias=False,
            name=name,
        )


class WideResNet(nn.Module):
    """A 3x3 stem and three stages of n blocks, each of twice the channels.

    Attributes:
        blocks: n, the blocks of a stage; the name's depth is 6 n + 4.
        features: channels of the first stage, 16 K with the name's K.
        sizes: of a block's convolutions.
    """

    num_classes: int
    blocks: int
    features: int
    sizes: tuple[int, ...]
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
        x = self.layers.conv(16, 3, padding=1, use_bias=False, name="stem")(x)
        self.sow("features", "stem_out", x)
        for stage in (1, 2, 3):
            for number in range(1, self.blocks + 1):
                done = self.blocks * (stage - 1) + number
                block = WideBlock(
                    self.features * 2 ** (stage - 1),
                    stride=2 if number == 1 and stage > 1 else 1,
                    sizes=self.sizes,
                    share=share_depth(done, 3 * self.blocks),
                    layers=self.layers,
                    name=f"stage{stage}_block{number}",
                )
                x = block(x, train, dropout_rate, stochastic_depth_rate)
            self.sow("features", f"stage{stage}_out", x)
        x = nn.relu(self.layers.norm(name="norm")(x, train))
        x = pooling.global_avg_pool(x)
        return self.layers.dense(self.num_classes, name="head")(x)


def wide_resnet(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create wrn_D_K: depth D = 6n + 4 with n blocks a stage, channels times K.

    Raises:
        UserError: D is not 6n + 4, K is 0, or the block is none of the paper's.
    """
    match = re.fullmatch(_NAME, options.model)
    depth, width = (int(group) for group in match.groups())
    if depth < 10 or (depth - 4) % 6 or width < 1:
        low = max(10, (depth - 4) // 6 * 6 + 4)
        raise UserError(
            f"--model={options.model}: the depth of wrn_D_K is 6n + 4 (10, 16, 22, 28, "
            f"…) and its width at least 1; did you mean wrn_{low}_{max(width, 1)}?"
        )
    if set(options.wrn_block) - {1, 3}:
        raise UserError(
            f"--wrn_block={','.join(map(str, options.wrn_block))}: sizes are 1 or 3, "
            "as in 3,3 or 1,3,1"
        )
    layers = Layers.from_options(options, dtype)
    blocks, (features,) = (depth - 4) // 6, widen(options, 16 * width)
    return WideResNet(num_classes, blocks, features, options.wrn_block, layers)


FAMILY = Family(
    "Wide ResNet for CIFAR",
    {},
    (Pattern("wrn_D_K", _NAME, ("wrn_10_1", "wrn_16_4", "wrn_28_10"), wide_resnet),),
    input=CIFAR,
)
