"""Squeeze and excitation, which families share.

Source: Hu et al. 2018, https://arxiv.org/abs/1709.01507
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.layers import Activation, Layers


class SqueezeExcite(nn.Module):
    """Scale each channel by a number that depends on all channels' averages.

    Attributes:
        squeezed: channels in between.
        activate: follows the first of the two layers.
        gate: follows the second, and makes the numbers.
    """

    squeezed: int
    layers: Layers
    activate: Activation = nn.silu
    gate: Activation = nn.sigmoid

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to the same shape."""
        scale = jnp.mean(x, axis=(1, 2), keepdims=True)
        scale = self.activate(self.layers.conv(self.squeezed, 1, name="squeeze")(scale))
        scale = self.layers.conv(x.shape[-1], 1, name="excite")(scale)
        return x * self.gate(scale)
