"""BiT (Big Transfer): ResNet v2 with group normalisation and standardised kernels.

`bit_rDxK` has D layers, K times as broad. Its `.npz` files are read as they are.

Source: Kolesnikov et al. 2019, https://arxiv.org/abs/1912.11370;
    https://github.com/google-research/big_transfer/blob/master/bit_pytorch/models.py
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.family import Family
from cnn.models.layers import Conv, Creator, Dense, GroupNorm, Layers
from cnn.models.options import ModelOptions
from cnn.models.resnet import DEPTHS, ResNet
from cnn.ops import pooling


@dataclasses.dataclass(frozen=True)
class BitLayers(Layers):
    """Layers of BiT: what is normalised there is so without a batch."""

    def conv(self, features: int, kernel_size: int, **kwargs: Any) -> Conv:
        """Make a convolution whose kernel is standardised."""
        return super().conv(features, kernel_size, standardized=True, **kwargs)

    def norm(self, **kwargs: Any) -> GroupNorm:
        """Make group normalisation."""
        return GroupNorm(dtype=self.dtype, **kwargs)

    def max_pool(self, x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
        """Take maxima over windows of images, with the zeros around them."""
        sides = (padding, padding)
        x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)))
        return pooling.max_pool2d(x, size, stride)

    def dense(self, features: int, **kwargs: Any) -> Dense:
        """Make the head, which starts at 0."""
        zeros = nn.initializers.zeros
        return super().dense(features, kernel_init=zeros, **kwargs)


def make_bit(depth: int, width: int) -> Creator:
    """Make the function that creates bit_rDxK: D layers, K times as broad."""

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        return ResNet(
            num_classes,
            "imagenet",
            DEPTHS[depth],
            is_bottleneck=True,
            groups=1,
            group_width=64,
            preactivated=True,
            zero_init=False,
            layers=BitLayers(dtype, formulation=options.convolution),
            stem_features=64 * width,
        )

    return create


FAMILY = Family(
    "BiT (ResNet v2 with group normalisation)",
    {
        "bit_r50x1": make_bit(50, 1),
        "bit_r101x1": make_bit(101, 1),
        "bit_r50x3": make_bit(50, 3),
        "bit_r152x2": make_bit(152, 2),
        "bit_r101x3": make_bit(101, 3),
        "bit_r152x4": make_bit(152, 4),
    },
)
