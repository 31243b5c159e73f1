"""The lecture's multi-layer CNN, with each of its choices as an option.

Every stage is convolution, normalisation, activation, downsampling by two; then the
head: flattened or averaged over all places, dense layers, one logit a class. Under
`head=global_average` the same weights take images of any size.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from cnn.models.family import DIGITS, Family
from cnn.models.layers import (
    ACTIVATIONS,
    Dropout,
    Layers,
    check_size,
    kaiming_fan_in,
    lecun_normal,
)
from cnn.models.options import ModelOptions
from cnn.models.width import widen
from cnn.ops import pooling, rearrange


class SimpleCnn(nn.Module):
    """A stack of convolutional stages and a dense head; see `ModelOptions`."""

    num_classes: int
    options: ModelOptions
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
        options, activate = self.options, ACTIVATIONS[self.options.activation]
        for number, width in enumerate(options.widths, start=1):
            x = self._stage(x, number, width, train)
        if options.head == "flatten":
            x = x.reshape(x.shape[0], -1)
        else:
            x = pooling.global_avg_pool(x)
        for number, width in enumerate(options.dense_widths, start=1):
            x = Dropout(name=f"dropout{number}")(x, dropout_rate, train)
            name = f"dense{number}"
            dense = self.layers.dense(width, kernel_init=kaiming_fan_in, name=name)
            x = activate(dense(x))
        x = Dropout(name="dropout")(x, dropout_rate, train)
        head = self.layers.dense(
            self.num_classes, kernel_init=lecun_normal, name="head"
        )
        return head(x)

    def _stage(self, x: jax.Array, number: int, width: int, train: bool) -> jax.Array:
        options, stage = self.options, f"stage{number}"
        if options.padding == "valid":
            check_size(x, options.kernel_size, f"the convolution of {stage}")
        conv = self.layers.conv(
            width,
            options.kernel_size,
            stride=2 if options.downsampling == "stride" else 1,
            padding=options.padding,
            use_bias=not options.batch_norm,
            name=f"{stage}_conv",
        )
        x = conv(x)
        if options.batch_norm:
            x = self.layers.norm(name=f"{stage}_norm")(x, train)
        x = ACTIVATIONS[options.activation](x)
        self.sow("features", f"{stage}_out", x)
        if options.downsampling in ("max_pool", "avg_pool", "space_to_depth"):
            check_size(x, 2, f"the downsampling of {stage}")
        if options.downsampling == "max_pool":
            x = pooling.max_pool2d(x, 2)
        elif options.downsampling == "avg_pool":
            x = pooling.avg_pool2d(x, 2)
        elif options.downsampling == "space_to_depth":
            height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
            x = rearrange.space_to_depth(x[:, :height, :width], 2)
        return x


def simple_cnn(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create the lecture's CNN from `ModelOptions`."""
    widths, dense_widths = (
        widen(options, *each) for each in (options.widths, options.dense_widths)
    )
    options = dataclasses.replace(
        options, widths=widths, dense_widths=dense_widths, width_multiplier=1.0
    )
    return SimpleCnn(num_classes, options, Layers.from_options(options, dtype))


FAMILY = Family(
    "the lecture's CNN",
    {
        "simple_cnn": simple_cnn,
    },
    input=DIGITS,
)
