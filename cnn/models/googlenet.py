"""GoogLeNet, the first Inception, with batch normalisation.

The paper's 5x5 convolutions are 3x3 here, as in the published weights and in every
framework that took them over.

Source: Szegedy et al. 2014, https://arxiv.org/abs/1409.4842; normalised as in Ioffe
and Szegedy 2015, https://arxiv.org/abs/1502.03167
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import auxiliary
from cnn.models.family import Family
from cnn.models.layers import (
    Dropout,
    Layers,
    ceil_max_pool,
    check_size,
    small_normal,
)
from cnn.models.options import ModelOptions
from cnn.ops import pooling

# Of each block: channels of the 1x1 convolution; of the 3x3 branch and the one for
# 5x5, within and without; and behind the pooling.
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
# The blocks that are followed by an auxiliary classifier: 4a and 4d of the paper.
WITH_AUXILIARY = ("stage2_block1", "stage2_block4")
_AUXILIARY_DROPOUT = 0.7


class Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3, two of 3x3, and pooling before 1x1.

    Attributes:
        widths: as in `STAGES`.
    """

    widths: tuple[int, ...]
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [N, H, W, C] to [N, H, W, the sum of the branches' channels]."""
        first, reduce2, second, reduce3, third, fourth = self.widths
        pooled = pooling.max_pool2d(x, 3, 1, padding=1)
        y2 = _convolve(self.layers, x, train, reduce2, 1, "branch2_reduce")
        y3 = _convolve(self.layers, x, train, reduce3, 1, "branch3_reduce")
        branches = [
            _convolve(self.layers, x, train, first, 1, "branch1"),
            _convolve(self.layers, y2, train, second, 3, "branch2"),
            _convolve(self.layers, y3, train, third, 3, "branch3"),
            _convolve(self.layers, pooled, train, fourth, 1, "branch4"),
        ]
        return jnp.concatenate(branches, axis=-1)


class Auxiliary(nn.Module):
    """A classifier of its own on 4x4 averages."""

    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, dropout_rate: jax.Array | None
    ) -> jax.Array:
        """Map [N, H, W, C] to logits [N, K]; drops 0.7 where there is any dropout."""
        x = pooling.adaptive_avg_pool2d(x, 4)
        x = _convolve(self.layers, x, train, 128, 1, "reduce")
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(_make_dense(self.layers, 1024, "dense")(x))
        rate = None if dropout_rate is None else _AUXILIARY_DROPOUT
        x = Dropout(name="dropout")(x, rate, train)
        return _make_dense(self.layers, self.num_classes, "head")(x)


class GoogLeNet(nn.Module):
    """A stem of three convolutions, three stages of blocks, global average.

    Attributes:
        auxiliary_weight: of each auxiliary classifier's loss, as published.
    """

    num_classes: int
    layers: Layers
    auxiliary_weight: float = 0.3

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        check_size(x, 15, "the image")
        # Pairs, so that no other padding than PyTorch's is asked for.
        strided = {"stride": 2, "padding": ((3, 3), (3, 3))}
        x = _convolve(self.layers, x, train, 64, 7, "stem", **strided)
        x = ceil_max_pool(x, 3, 2)
        x = _convolve(self.layers, x, train, 64, 1, "stem_reduce")
        x = _convolve(self.layers, x, train, 192, 3, "stem_expand")
        self.sow("features", "stem_out", x)
        for stage, blocks in enumerate(STAGES, start=1):
            x = ceil_max_pool(x, 2 if stage == 3 else 3, 2)
            for number, widths in enumerate(blocks, start=1):
                name = f"stage{stage}_block{number}"
                x = Inception(widths, self.layers, name=name)(x, train)
                if name in WITH_AUXILIARY and auxiliary.is_computed(self, train):
                    name = f"{name}_aux"
                    head = Auxiliary(self.num_classes, self.layers, name=name)
                    auxiliary.sow(self, name, head(x, train, dropout_rate))
            self.sow("features", f"stage{stage}_out", x)
        x = pooling.global_avg_pool(x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        return _make_dense(self.layers, self.num_classes, "head")(x)


def _convolve(
    layers: Layers, x: jax.Array, train: bool, *args: Any, **kwargs: Any
) -> jax.Array:
    """Convolve, normalise and activate, as `Layers.conv_norm`."""
    return layers.conv_norm(
        x, train, *args, activate=nn.relu, kernel_init=small_normal, **kwargs
    )


def _make_dense(layers: Layers, features: int, name: str) -> nn.Module:
    return layers.dense(
        features, kernel_init=small_normal, uniform_bias=True, name=name
    )


def googlenet(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create GoogLeNet: 13,004,888 parameters with 1000 classes.

    6,624,904 of them are not the auxiliary classifiers'.
    """
    return GoogLeNet(num_classes, Layers.from_options(options, dtype, epsilon=1e-3))


FAMILY = Family(
    "GoogLeNet",
    {
        "googlenet": googlenet,
    },
)
