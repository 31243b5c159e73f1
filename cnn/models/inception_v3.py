"""Inception v3: large windows factored into small ones, and into rows and columns.

Source: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import auxiliary
from cnn.models.family import Family
from cnn.models.layers import Dropout, Layers, check_size
from cnn.models.options import ModelOptions
from cnn.ops import pooling

# Stages by resolution. Of each block its kind (`BRANCHES`) and how many channels make
# it differ from others of the kind: behind its pooling, or within its 7x7 branches.
STAGES = (
    (("a", 32), ("a", 64), ("a", 64)),
    (("b", 0), ("c", 128), ("c", 160), ("c", 160), ("c", 192)),
    (("d", 0), ("e", 0), ("e", 0)),
)
_WITH_AUXILIARY = "stage2_block5"
_AUXILIARY_SIZE = 17  # of the map that the auxiliary classifier was published for
_HALVING = {"stride": 2, "padding": 0}

normal = nn.initializers.normal(0.1)
smallest_normal = nn.initializers.normal(0.001)


class Block(nn.Module):
    """Branches side by side.

    Attributes:
        kind: of `BRANCHES`.
        width: as in `STAGES`.
    """

    kind: str
    width: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [N, H, W, C] to [N, H', W', the sum of the branches' channels]."""

        def conv(x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
            return _convolve(self.layers, x, train, *args, **kwargs)

        return jnp.concatenate(BRANCHES[self.kind](x, conv, self.width), axis=-1)


def _branch_a(x: jax.Array, conv: Callable, width: int) -> list[jax.Array]:
    """Branch 1x1, 5x5, twice 3x3 and an average."""
    y5 = conv(x, 48, 1, "branch5x5_1")
    y3 = conv(x, 64, 1, "branch3x3dbl_1")
    y3 = conv(y3, 96, 3, "branch3x3dbl_2")
    return [
        conv(x, 64, 1, "branch1x1"),
        conv(y5, 64, 5, "branch5x5_2"),
        conv(y3, 96, 3, "branch3x3dbl_3"),
        conv(_average(x), width, 1, "branch_pool"),
    ]


def _branch_b(x: jax.Array, conv: Callable, width: int) -> list[jax.Array]:
    """Halve the size by 3x3, twice 3x3 and a maximum."""
    y3 = conv(x, 64, 1, "branch3x3dbl_1")
    y3 = conv(y3, 96, 3, "branch3x3dbl_2")
    return [
        conv(x, 384, 3, "branch3x3", **_HALVING),
        conv(y3, 96, 3, "branch3x3dbl_3", **_HALVING),
        pooling.max_pool2d(x, 3, 2),
    ]


def _branch_c(x: jax.Array, conv: Callable, width: int) -> list[jax.Array]:
    """Branch 1x1, 7x7 as a row and a column, twice that, and an average."""
    y7 = conv(x, width, 1, "branch7x7_1")
    y7 = conv(y7, width, (1, 7), "branch7x7_2")
    twice = conv(x, width, 1, "branch7x7dbl_1")
    twice = conv(twice, width, (7, 1), "branch7x7dbl_2")
    twice = conv(twice, width, (1, 7), "branch7x7dbl_3")
    twice = conv(twice, width, (7, 1), "branch7x7dbl_4")
    return [
        conv(x, 192, 1, "branch1x1"),
        conv(y7, 192, (7, 1), "branch7x7_3"),
        conv(twice, 192, (1, 7), "branch7x7dbl_5"),
        conv(_average(x), 192, 1, "branch_pool"),
    ]


def _branch_d(x: jax.Array, conv: Callable, width: int) -> list[jax.Array]:
    """Halve the size by 3x3, 7x7 before 3x3, and a maximum."""
    y3 = conv(x, 192, 1, "branch3x3_1")
    y7 = conv(x, 192, 1, "branch7x7x3_1")
    y7 = conv(y7, 192, (1, 7), "branch7x7x3_2")
    y7 = conv(y7, 192, (7, 1), "branch7x7x3_3")
    return [
        conv(y3, 320, 3, "branch3x3_2", **_HALVING),
        conv(y7, 192, 3, "branch7x7x3_4", **_HALVING),
        pooling.max_pool2d(x, 3, 2),
    ]


def _branch_e(x: jax.Array, conv: Callable, width: int) -> list[jax.Array]:
    """Branch 1x1, rows beside columns of 3, those behind 3x3, and an average."""
    y3 = conv(x, 384, 1, "branch3x3_1")
    twice = conv(x, 448, 1, "branch3x3dbl_1")
    twice = conv(twice, 384, 3, "branch3x3dbl_2")
    return [
        conv(x, 320, 1, "branch1x1"),
        conv(y3, 384, (1, 3), "branch3x3_2a"),
        conv(y3, 384, (3, 1), "branch3x3_2b"),
        conv(twice, 384, (1, 3), "branch3x3dbl_3a"),
        conv(twice, 384, (3, 1), "branch3x3dbl_3b"),
        conv(_average(x), 192, 1, "branch_pool"),
    ]


BRANCHES = {
    "a": _branch_a,
    "b": _branch_b,
    "c": _branch_c,
    "d": _branch_d,
    "e": _branch_e,
}


class Auxiliary(nn.Module):
    """A classifier of its own on 5x5 averages."""

    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [N, H, W, C] to logits [N, K].

        Of maps below the published 17x17 the averages are those of 5x5 parts, so that
        smaller images train too.
        """
        if min(x.shape[1:3]) < _AUXILIARY_SIZE:
            x = pooling.adaptive_avg_pool2d(x, 5)
        else:
            x = pooling.avg_pool2d(x, 5, 3)
        x = _convolve(self.layers, x, train, 128, 1, "reduce")
        x = _convolve(self.layers, x, train, 768, 5, "whole", padding=0)
        x = pooling.global_avg_pool(x)
        head = self.layers.dense(
            self.num_classes,
            kernel_init=smallest_normal,
            uniform_bias=True,
            name="head",
        )
        return head(x)


class InceptionV3(nn.Module):
    """A stem of five convolutions, three stages of blocks, global average.

    Attributes:
        auxiliary_weight: of the auxiliary classifier's loss, as published.
    """

    num_classes: int
    layers: Layers
    auxiliary_weight: float = 0.4

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        check_size(x, 75, "the image")
        x = _convolve(self.layers, x, train, 32, 3, "stem", **_HALVING)
        x = _convolve(self.layers, x, train, 32, 3, "stem_2a", padding=0)
        x = _convolve(self.layers, x, train, 64, 3, "stem_2b")
        x = pooling.max_pool2d(x, 3, 2)
        x = _convolve(self.layers, x, train, 80, 1, "stem_3b")
        x = _convolve(self.layers, x, train, 192, 3, "stem_4a", padding=0)
        self.sow("features", "stem_out", x)
        x = pooling.max_pool2d(x, 3, 2)
        for stage, blocks in enumerate(STAGES, start=1):
            for number, (kind, width) in enumerate(blocks, start=1):
                name = f"stage{stage}_block{number}"
                x = Block(kind, width, self.layers, name=name)(x, train)
                if name == _WITH_AUXILIARY and auxiliary.is_computed(self, train):
                    name = f"{name}_aux"
                    head = Auxiliary(self.num_classes, self.layers, name=name)
                    auxiliary.sow(self, name, head(x, train))
            self.sow("features", f"stage{stage}_out", x)
        x = pooling.global_avg_pool(x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        head = self.layers.dense(
            self.num_classes, kernel_init=normal, uniform_bias=True, name="head"
        )
        return head(x)


def _convolve(
    layers: Layers, x: jax.Array, train: bool, *args: Any, **kwargs: Any
) -> jax.Array:
    """Convolve, normalise and activate, as `Layers.conv_norm`."""
    return layers.conv_norm(
        x, train, *args, activate=nn.relu, kernel_init=normal, **kwargs
    )


def _average(x: jax.Array) -> jax.Array:
    """Average 3x3 pixels, with the zeros outside the image, as the weights want it."""
    return pooling.avg_pool2d(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 1)


def inception_v3(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create Inception v3: 27,161,264 parameters with 1000 classes.

    23,834,568 of them are not the auxiliary classifier's.
    """
    return InceptionV3(num_classes, Layers.from_options(options, dtype, epsilon=1e-3))


FAMILY = Family(
    "Inception v3",
    {
        "inception_v3": inception_v3,
    },
    input=(299, 3, 1000),
)
