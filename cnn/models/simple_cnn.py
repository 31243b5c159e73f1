"""The lecture's multi-layer CNN, with each of its choices as an option.

Every stage is convolution, normalisation, activation, downsampling by two; then the
head: flattened or averaged over all places, dense layers, one logit a class. Under
`head=global_average` the same weights take images of any size.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import layers
from cnn.ops import pooling, rearrange
from cnn.options import option


@dataclasses.dataclass(frozen=True)
class SimpleCnnOptions:
    """The simple CNN's choices."""

    widths: tuple[int, ...] = option(
        (32, 64, 128), "channels of each stage of simple_cnn", within="[1, inf)"
    )
    kernel_size: int = option(
        3, "side of simple_cnn's kernels, in pixels", within="[1, inf)"
    )
    padding: str = option(
        "same",
        "same: each convolution of simple_cnn keeps the size; valid: it loses "
        "kernel_size - 1 pixels",
        choices=("same", "valid"),
    )
    downsampling: str = option(
        "max_pool",
        "how each stage of simple_cnn halves the size",
        choices=("stride", "max_pool", "avg_pool", "space_to_depth", "none"),
    )
    head: str = option(
        "global_average",
        "what simple_cnn does with its last feature maps; global_average makes it "
        "independent of the image's size",
        choices=("flatten", "global_average"),
    )
    batch_norm: bool = option(True, "batch normalisation in simple_cnn")
    dense_widths: tuple[int, ...] = option(
        (), "units of simple_cnn's dense layers before the last", within="[1, inf)"
    )


class SimpleCnn(nn.Module):
    """A stack of convolutional stages and a dense head; see `SimpleCnnOptions`."""

    num_classes: int
    options: SimpleCnnOptions
    activation: str = "relu"
    unbiased: bool = False
    dtype: Any = jnp.float32
    formulation: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        options, activate = self.options, layers.ACTIVATIONS[self.activation]
        for number, width in enumerate(options.widths, start=1):
            x = self._stage(x, number, width, train)
        if options.head == "flatten":
            x = x.reshape(x.shape[0], -1)
        else:
            x = pooling.global_avg_pool(x)
        for number, width in enumerate(options.dense_widths, start=1):
            x = layers.Dropout(name=f"dropout{number}")(x, dropout_rate, train)
            dense = nn.Dense(
                width,
                kernel_init=layers.kaiming_fan_in,
                dtype=self.dtype,
                name=f"dense{number}",
            )
            x = activate(dense(x))
        x = layers.Dropout(name="dropout")(x, dropout_rate, train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)

    def _stage(self, x: jax.Array, number: int, width: int, train: bool) -> jax.Array:
        options, stage = self.options, f"stage{number}"
        if options.padding == "valid":
            layers.check_size(x, options.kernel_size, f"the convolution of {stage}")
        conv = layers.Conv(
            width,
            options.kernel_size,
            stride=2 if options.downsampling == "stride" else 1,
            padding=options.padding,
            use_bias=not options.batch_norm,
            dtype=self.dtype,
            formulation=self.formulation,
            name=f"{stage}_conv",
        )
        x = conv(x)
        if options.batch_norm:
            norm = layers.BatchNorm(
                unbiased=self.unbiased, dtype=self.dtype, name=f"{stage}_norm"
            )
            x = norm(x, train)
        x = layers.ACTIVATIONS[self.activation](x)
        self.sow("features", f"{stage}_out", x)
        if options.downsampling in ("max_pool", "avg_pool", "space_to_depth"):
            layers.check_size(x, 2, f"the downsampling of {stage}")
        if options.downsampling == "max_pool":
            x = pooling.max_pool2d(x, 2)
        elif options.downsampling == "avg_pool":
            x = pooling.avg_pool2d(x, 2)
        elif options.downsampling == "space_to_depth":
            height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
            x = rearrange.space_to_depth(x[:, :height, :width], 2)
        return x


def simple_cnn(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create the lecture's CNN from `SimpleCnnOptions`."""
    names = [field.name for field in dataclasses.fields(SimpleCnnOptions)]
    chosen = SimpleCnnOptions(**{name: getattr(options, name) for name in names})
    unbiased = options.bn_variance == "unbiased"
    return SimpleCnn(
        num_classes, chosen, options.activation, unbiased, dtype, options.convolution
    )
