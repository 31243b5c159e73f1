"""Locally connected layers: small windows, with weights of their own at each place."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.family import DIGITS, Family
from cnn.models.layers import ACTIVATIONS, Dropout, Layers, check_size
from cnn.models.options import ModelOptions
from cnn.ops import local

kernel_init = nn.initializers.variance_scaling(
    2.0, "fan_in", "normal", batch_axis=(0, 1)
)


class LocallyConnected(nn.Module):
    """Locally connected layers: convolutions whose weights are not shared.

    Attributes:
        widths: channels of each layer.
        kernel_size: side of the windows, in pixels; they overlap by all but two.
        activation: its name.
    """

    num_classes: int
    widths: tuple[int, ...]
    kernel_size: int
    activation: str
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
        size, dtype = self.kernel_size, self.layers.dtype
        for number, width in enumerate(self.widths, start=1):
            check_size(x, size, f"layer local{number}")
            places = [(side - size) // 2 + 1 for side in x.shape[1:3]]
            shape = (*places, size, size, x.shape[-1], width)
            name = f"local{number}_kernel"
            kernel = self.param(name, kernel_init, shape, jnp.float32)
            zeros = nn.initializers.zeros_init()
            shape = (1, *places, width)
            bias = self.param(f"local{number}_bias", zeros, shape, jnp.float32)
            x, kernel = x.astype(dtype), kernel.astype(dtype)
            x = local.locally_connected2d(x, kernel, stride=2)
            x = ACTIVATIONS[self.activation](x + bias.astype(dtype))
            self.sow("features", f"local{number}_out", x)
        x = x.reshape(x.shape[0], -1)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        return self.layers.dense(self.num_classes, name="head")(x)


def locally_connected(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create a net of `--local_widths` locally connected layers."""
    return LocallyConnected(
        num_classes,
        options.local_widths,
        options.kernel_size,
        options.activation,
        Layers.from_options(options, dtype),
    )


FAMILY = Family(
    "locally connected layers",
    {
        "locally_connected": locally_connected,
    },
    input=DIGITS,
)
