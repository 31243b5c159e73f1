"""The lecture's first step from regression to convolution: slide the weights.

One image-sized kernel a class is laid over the padded image at every alignment; a
class's score is that of its best one, so that a shifted image scores the same.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.family import DIGITS, Family
from cnn.models.layers import Layers
from cnn.models.options import ModelOptions
from cnn.ops import convolution


class SlidingRegression(nn.Module):
    """One kernel a class, as large as the image; the best alignment is the score."""

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
        """Map images [N, H, W, C] to logits [N, K].

        `logit[n, k] = bias[k] + max over alignments of (image n · kernel k)`, the
        image padded by half its size on each side.
        """
        (height, width, channels), dtype = x.shape[1:], self.layers.dtype
        init = nn.initializers.lecun_normal()
        shape = (height, width, channels, self.num_classes)
        kernel = self.param("kernel", init, shape, jnp.float32)
        zeros = nn.initializers.zeros_init()
        bias = self.param("bias", zeros, (1, self.num_classes), jnp.float32)
        scores = convolution.conv2d(
            x.astype(dtype),
            kernel.astype(dtype),
            padding="same",
            formulation=self.layers.formulation,
        )
        self.sow("features", "alignments_out", scores)
        return jnp.max(scores, axis=(1, 2)) + bias.astype(dtype)


def sliding_regression(
    options: ModelOptions, num_classes: int, dtype: Any
) -> nn.Module:
    """Create the sliding regression."""
    return SlidingRegression(num_classes, Layers.from_options(options, dtype))


FAMILY = Family(
    "the lecture's sliding regression",
    {
        "sliding_regression": sliding_regression,
    },
    input=DIGITS,
)
