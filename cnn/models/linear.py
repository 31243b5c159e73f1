"""Models that look at pixels without regard to their places: flatten, then dense.

Source: the lecture's starting point; both need images of one fixed size.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import layers
from cnn.options import option


@dataclasses.dataclass(frozen=True)
class MlpOptions:
    """The multi-layer perceptron's choices."""

    mlp_widths: tuple[int, ...] = option(
        (128, 128), "units of each hidden layer of mlp", within="[1, inf)"
    )


class LogisticRegression(nn.Module):
    """One weight for each pixel and class."""

    num_classes: int
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
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)


class Mlp(nn.Module):
    """Dense layers over all pixels, each followed by an activation and dropout."""

    num_classes: int
    widths: tuple[int, ...]
    activation: str = "relu"
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
        x = x.reshape(x.shape[0], -1)
        for number, width in enumerate(self.widths, start=1):
            name = f"dense{number}"
            dense = nn.Dense(
                width,
                kernel_init=layers.kaiming_fan_in,
                dtype=self.dtype,
                name=name,
            )
            x = layers.ACTIVATIONS[self.activation](dense(x))
            self.sow("features", f"{name}_out", x)
            x = layers.Dropout(name=f"dropout{number}")(x, dropout_rate, train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)


def logistic_regression(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create multinomial logistic regression."""
    del options
    return LogisticRegression(num_classes, dtype)


def mlp(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create a multi-layer perceptron of `--mlp_widths`."""
    return Mlp(num_classes, options.mlp_widths, options.activation, dtype)
