"""Batch normalisation in training, with a gradient that reads its input few times.

Arrays are [..., C]; statistics [C] are taken over all other axes, in float32.

XLA's CPU backend sums an array over its pixels fast, but writes out first whatever is
computed on the way, such as squared differences. So sums over pixels are taken in
two parts: `_PARTS` slices are added in the same loop that computes them, and only
their total, so much smaller, is written and summed. Elsewhere memory is what takes the
time, and mean and variance come from one reading of the input.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_PARTS = 8


@functools.partial(jax.jit, static_argnums=3)
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise each channel by the mean and variance of the batch.

    Returns:
        `scale · (x - mean) / sqrt(var + epsilon) + bias` float32 [..., C], and the
        mean and the (biased) variance, float32 [C].

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167
    """
    return _batch_norm(x, scale, bias, epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _batch_norm(x, scale, bias, epsilon):
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    mean, var = lax.platform_dependent(x, cpu=_moments, default=_moments_at_once)
    factor = lax.rsqrt(var + epsilon)
    # Once a channel, as in the gradient: else each pixel's loop computes it again.
    mean, a = lax.optimization_barrier((mean, scale * factor))
    y = (x.astype(jnp.float32) - _spread(mean, x)) * _spread(a, x) + _spread(bias, x)
    return (y, mean, var), (x, mean, factor, scale)


def _backward(epsilon, kept, gradients):
    x, mean, factor, scale = kept
    gradient, of_mean, of_var = gradients
    count = x.size // x.shape[-1]
    bias_gradient = _sum_pixels(lambda g: g, gradient)
    products = _sum_pixels(lambda x, g: (x - _spread(mean, x)) * g, x, gradient)
    scale_gradient = products * factor
    # dx = a · gradient + b · (x - mean) + c, each constant within a channel.
    a = scale * factor
    b = -a * factor * scale_gradient / count + 2 * of_var / count
    c = -a * bias_gradient / count + of_mean / count
    a, b, c = lax.optimization_barrier((a, b, c))
    centred = x.astype(jnp.float32) - _spread(mean, x)
    out = _spread(a, x) * gradient + _spread(b, x) * centred + _spread(c, x)
    return out.astype(x.dtype), scale_gradient, bias_gradient


_batch_norm.defvjp(_forward, _backward)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute mean and variance of each channel, one after the other."""
    count = x.size // x.shape[-1]
    mean = _sum_pixels(lambda x: x, x) / count
    return mean, _sum_pixels(lambda x: jnp.square(x - _spread(mean, x)), x) / count


def _moments_at_once(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute both from sums of differences to a pixel, and of their squares.

    The pixel, from the middle of the first example, is few deviations from the mean,
    so that little cancels; without it, a mean of 1000 deviations would leave one digit.
    """
    count = x.size // x.shape[-1]
    pixel = x[(0, *(size // 2 for size in x.shape[1:-1]))].astype(jnp.float32)
    differences = x.astype(jnp.float32) - _spread(pixel, x)
    axes = tuple(range(x.ndim - 1))
    mean = jnp.sum(differences, axes) / count
    square = jnp.sum(jnp.square(differences), axes) / count
    return pixel + mean, jnp.maximum(square - jnp.square(mean), 0)


def _spread(values: jax.Array, x: jax.Array) -> jax.Array:
    """Give a value for each channel the axes of x."""
    return jnp.expand_dims(values, tuple(range(x.ndim - 1)))


def _sum_pixels(term, *arrays) -> jax.Array:
    """Sum a term of arrays [..., C] over all axes but the last, in float32."""
    flat = [a.reshape(a.shape[0], -1, a.shape[-1]) for a in arrays]
    pixels = flat[0].shape[1]

    def in_parts(*flat):
        parts = next(n for n in range(_PARTS, 0, -1) if pixels % n == 0)
        terms = term(*[a.astype(jnp.float32) for a in flat])
        total = functools.reduce(jnp.add, jnp.split(terms, parts, axis=1))
        return jnp.sum(lax.optimization_barrier(total), axis=(0, 1))

    def at_once(*flat):
        return jnp.sum(term(*[a.astype(jnp.float32) for a in flat]), axis=(0, 1))

    return lax.platform_dependent(*flat, cpu=in_parts, default=at_once)
