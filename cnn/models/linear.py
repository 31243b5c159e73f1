"""Models that look at pixels without regard to their places: flatten, then dense.

Source: the lecture's starting point; both need images of one fixed size.
"""

from typing import Any

import flax.linen as nn
import jax

from cnn.models.family import DIGITS, Family
from cnn.models.layers import ACTIVATIONS, Dropout, Layers, kaiming_fan_in, lecun_normal
from cnn.models.options import ModelOptions


class LogisticRegression(nn.Module):
    """One weight for each pixel and class."""

    num_classes: int
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
        x = x.reshape(x.shape[0], -1)
        head = self.layers.dense(
            self.num_classes, kernel_init=lecun_normal, name="head"
        )
        return head(x)


class Mlp(nn.Module):
    """Dense layers over all pixels, each followed by an activation and dropout."""

    num_classes: int
    widths: tuple[int, ...]
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
        x = x.reshape(x.shape[0], -1)
        for number, width in enumerate(self.widths, start=1):
            name = f"dense{number}"
            dense = self.layers.dense(width, kernel_init=kaiming_fan_in, name=name)
            x = ACTIVATIONS[self.activation](dense(x))
            self.sow("features", f"{name}_out", x)
            x = Dropout(name=f"dropout{number}")(x, dropout_rate, train)
        head = self.layers.dense(
            self.num_classes, kernel_init=lecun_normal, name="head"
        )
        return head(x)


def logistic_regression(
    options: ModelOptions, num_classes: int, dtype: Any
) -> nn.Module:
    """Create multinomial logistic regression."""
    return LogisticRegression(num_classes, Layers.from_options(options, dtype))


def mlp(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create a multi-layer perceptron of `--mlp_widths`."""
    layers = Layers.from_options(options, dtype)
    return Mlp(num_classes, options.mlp_widths, options.activation, layers)


FAMILY = Family(
    "the lecture's linear models",
    {
        "logistic_regression": logistic_regression,
        "mlp": mlp,
    },
    input=DIGITS,
)
