"""Standardisation that needs no batch: of an image's channels, and of kernels.

Both are computed in float32 and are the same in training and in evaluation.
"""

import jax
import jax.numpy as jnp
from jax import lax

EPSILON = 1e-10  # of kernels, as in the code of Big Transfer


def group_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> jax.Array:
    """Normalise each image's groups of channels by their own mean and variance.

    Args:
        x: [N, ..., C]; group k is the k-th part of C / groups channels, at all pixels.
        scale: float32 [C].
        bias: float32 [C].
        groups: how many parts the channels are cut into.
        epsilon: added to the (biased) variance.

    Returns:
        `scale · (x - mean) / sqrt(var + epsilon) + bias` float32 [N, ..., C].

    Raises:
        ValueError: C is no multiple of `groups`.

    Source: Wu and He 2018, https://arxiv.org/abs/1803.08494
    """
    channels = x.shape[-1]
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be cut into {groups} groups")
    pixels = tuple(range(1, x.ndim - 1))
    x = x.astype(jnp.float32)

    def average(x: jax.Array) -> jax.Array:
        """Average within groups: [N, ..., C] → [N, 1 …, C]."""
        means = jnp.mean(x, pixels).reshape(-1, groups, channels // groups)
        means = jnp.broadcast_to(jnp.mean(means, 2, keepdims=True), means.shape)
        return jnp.expand_dims(means.reshape(-1, channels), pixels)

    centred = x - average(x)
    factor = lax.rsqrt(average(jnp.square(centred)) + epsilon)
    leading = tuple(range(x.ndim - 1))
    scale, bias = (jnp.expand_dims(v, leading) for v in (scale, bias))
    return centred * (factor * scale) + bias


@jax.jit
def standardize_kernel(kernel: jax.Array) -> jax.Array:
    """Give each output's kernel [..., O] mean 0 and variance 1 over all its inputs.

    `EPSILON` is added to the (biased) variance.

    Returns:
        float32 [..., O].

    Source: Qiao et al. 2019, https://arxiv.org/abs/1903.10520
    """
    axes = tuple(range(kernel.ndim - 1))
    kernel = kernel.astype(jnp.float32)
    centred = kernel - jnp.mean(kernel, axes, keepdims=True)
    var = jnp.mean(jnp.square(centred), axes, keepdims=True)
    return centred * lax.rsqrt(var + EPSILON)
