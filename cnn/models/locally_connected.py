"""Locally connected layers: small windows, with weights of their own at each place."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import layers
from cnn.ops import local
from cnn.options import option


@dataclasses.dataclass(frozen=True)
class LocallyConnectedOptions:
    """The locally connected net's choices."""

    local_widths: tuple[int, ...] = option(
        (16, 32), "channels of each layer of locally_connected", within="[1, inf)"
    )


class LocallyConnected(nn.Module):
    """Locally connected layers: convolutions whose weights are not shared.

    Attributes:
        num_classes: K.
        widths: channels of each layer.
        kernel_size: side of the windows, in pixels; they overlap by all but two.
        activation: its name.
        dense: makes dense layers.
        dtype: what is computed in.
    """

    num_classes: int
    widths: tuple[int, ...]
    kernel_size: int
    activation: str
    dense: Callable[..., nn.Module]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        size = self.kernel_size
        for number, width in enumerate(self.widths, start=1):
            layers.check_size(x, size, f"layer local{number}")
            places = [(side - size) // 2 + 1 for side in x.shape[1:3]]
            init = nn.initializers.variance_scaling(
                2.0, "fan_in", "normal", batch_axis=(0, 1)
            )
            shape = (*places, size, size, x.shape[-1], width)
            kernel = self.param(f"local{number}_kernel", init, shape, jnp.float32)
            zeros = nn.initializers.zeros_init()
            shape = (1, *places, width)
            bias = self.param(f"local{number}_bias", zeros, shape, jnp.float32)
            x = local.locally_connected2d(
                x.astype(self.dtype), kernel.astype(self.dtype), stride=2
            )
            x = layers.ACTIVATIONS[self.activation](x + bias.astype(self.dtype))
            self.sow("features", f"local{number}_out", x)
        x = x.reshape(x.shape[0], -1)
        x = layers.Dropout(name="dropout")(x, dropout_rate, train)
        return self.dense(self.num_classes, name="head")(x)


def locally_connected(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create a net of `--local_widths` locally connected layers."""
    _, _, dense = layers.make_layers(options, dtype)
    return LocallyConnected(
        num_classes,
        options.local_widths,
        options.kernel_size,
        options.activation,
        dense,
        dtype,
    )
