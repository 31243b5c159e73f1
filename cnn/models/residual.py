"""Residual blocks, which families share: two 3x3 convolutions, or a bottleneck.

Source: He et al. 2016, https://arxiv.org/abs/1512.03385 and
    https://arxiv.org/abs/1603.05027 (with pre-activation)
"""

import flax.linen as nn
import jax

from cnn.models.layers import DropBlock, Layers, StochasticDepth
from cnn.models.squeeze_excite import SqueezeExcite
from cnn.ops import activation


class Block(nn.Module):
    """A residual block: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1).

    Attributes:
        width: channels of the 3x3 convolutions.
        features: channels of the result.
        stride: of a 3x3 convolution (or the first: `strides_first`) and the shortcut.
        groups: of a bottleneck's 3x3 convolution.
        is_bottleneck: whether there are three convolutions.
        preactivated: whether normalisation and ReLU precede the convolutions.
        zero_init: whether the last normalisation's scale starts at 0, unless
            preactivated.
        squeezed: of a bottleneck's squeeze and excitation, which follows the 3x3
            convolution; 0 for none.
        strides_first: whether a bottleneck's first convolution strides.
        share: of the stochastic depth rate.
        dropblock: (side of the squares in pixels, share of the rate) of DropBlock,
            which follows the normalisation of a 3x3 convolution that ReLU follows,
            as in timm; a side of 0 is none.
    """

    width: int
    features: int
    stride: int
    groups: int
    is_bottleneck: bool
    preactivated: bool
    zero_init: bool
    layers: Layers
    squeezed: int = 0
    strides_first: bool = False
    share: float = 0.0
    dropblock: tuple[int, float] = (0, 0.0)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool,
        stochastic_depth_rate: jax.Array | None = None,
        dropblock_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, features]."""
        residual, layers = x, self.layers
        if self.preactivated:
            x = nn.relu(layers.norm(name="norm1")(x, train))
        if residual.shape[-1] != self.features or self.stride > 1:
            # In the v2 form x is the activated input by now.
            residual = self._conv(self.features, 1, self.stride, "shortcut_conv")(x)
            if not self.preactivated:
                residual = layers.norm(name="shortcut_norm")(residual, train)
        shapes = self._list_convolutions()
        for number, (features, size, stride, groups) in enumerate(shapes, start=1):
            is_last = number == len(shapes)
            if self.preactivated and number > 1:
                x = nn.relu(layers.norm(name=f"norm{number}")(x, train))
            x = self._conv(features, size, stride, f"conv{number}", groups)(x)
            if not self.preactivated:
                zero_init = self.zero_init and is_last
                norm = layers.norm(zero_init=zero_init, name=f"norm{number}")
                x = norm(x, train)
                if size == 3 and not is_last:
                    drop = DropBlock(*self.dropblock, name="dropblock")
                    x = drop(x, dropblock_rate, train)
                x = x if is_last else nn.relu(x)
            if self.squeezed and number == 2:
                excite = SqueezeExcite(self.squeezed, layers, nn.relu, name="excite")
                x = excite(x)
        drop = StochasticDepth(self.share, name="stochastic_depth")
        x = drop(x, stochastic_depth_rate, train) + residual
        return x if self.preactivated else activation.relu(x)

    def _conv(
        self, features: int, size: int, stride: int, name: str, groups: int = 1
    ) -> nn.Module:
        return self.layers.conv(
            features,
            size,
            stride=stride,
            padding=size // 2,
            groups=groups,
            use_bias=False,
            name=name,
        )

    def _list_convolutions(self) -> list[tuple[int, int, int, int]]:
        if not self.is_bottleneck:
            return [(self.width, 3, self.stride, 1), (self.features, 3, 1, 1)]
        strides = (self.stride, 1) if self.strides_first else (1, self.stride)
        return [
            (self.width, 1, strides[0], 1),
            (self.width, 3, strides[1], self.groups),
            (self.features, 1, 1, 1),
        ]
