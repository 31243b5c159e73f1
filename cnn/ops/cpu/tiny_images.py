"""Convolution of tiny images by 3×3 kernels: few products, each of all pixels at once.

For images of 2 or 4 pixels a side, padded by one, most of what a sliding kernel
meets is padding or met again. Here pixels, taps and results change places with points:
y = Aᵀ[(G k) ⊙ (B x)], where ⊙ is a matrix product [N, C] × [C, O] for each point.
Along an axis of 4 pixels 6 points do for 10 taps inside the image (Winograd's F(4, 3),
whose tile is the image), along one of 2 pixels 3 for 4: b·(x0 + x1), (c − b)·x1 and
(a − b)·x0 make both results of the taps a, b, c. So 4×4 pixels need 36 products
instead of 144, and 2×2 pixels 9 instead of 36 (16 without the padding). The gradients
are the same three linear maps the other way round, and share B x and G k.

Arrays: x [N, H, W, C], kernel [3, 3, C, O], gradient [N, H, W, O]. The changes of
place are products too, over pixels first, [H·W, N, C]. Convolution and gradients on one
core of an AMD EPYC, of a training step inside a loop, batch 32: 4×4 pixels, 32 to 64
channels 433 to 193 µs, 2×2 pixels, 64 to 64 channels 175 to 76 µs.

Sources: Winograd, Arithmetic Complexity of Computations (1980); `winograd`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn.ops.cpu import winograd

_SIDES = (2, 4)
_LEAST = 16  # channels seen and made; with fewer, what changes places costs more
_STATIC = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)


def fits(x: jax.Array, kernel_shape: tuple[int, ...], static: tuple) -> bool:
    """Say whether a convolution may be computed so, and exactly enough in x's type.

    Args:
        static: (stride, padding, dilation, groups) of the convolution.
    """
    is_tiny = x.shape[1] in _SIDES and x.shape[2] in _SIDES
    is_wide = kernel_shape[:2] == (3, 3) and min(kernel_shape[2:]) >= _LEAST
    return is_tiny and is_wide and static == _STATIC and x.dtype.itemsize >= 4


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute the convolution that keeps the size; [N, H, W, O]."""
    sides = x.shape[1:3]
    pixels, taps, results = _make_maps(*sides)
    products = jnp.matmul(
        _apply(pixels, _pixels_first(x)), _apply(taps, _flatten(kernel))
    )
    return _images_first(_apply(results, products), sides)


def compute_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute the gradients of x and of the kernel from that of the result."""
    sides = x.shape[1:3]
    pixels, taps, results = _make_maps(*sides)
    # As in `convolve`, so that the compiler computes these once.
    seen = _apply(pixels, _pixels_first(x))
    weights = _apply(taps, _flatten(kernel))
    spread = _apply(results.T, _pixels_first(gradient))
    to_seen = jnp.einsum("pno,pco->pnc", spread, weights)
    to_weights = jnp.einsum("pnc,pno->pco", seen, spread)
    to_x = _images_first(_apply(pixels.T, to_seen), sides)
    return to_x, _apply(taps.T, to_weights).reshape(kernel.shape)


@functools.cache
def _make_maps(height: int, width: int) -> tuple[np.ndarray, ...]:
    """Return B [points, H·W], G [points, 9] and Aᵀ [H·W, points]."""
    pairs = zip(_make_axis(height), _make_axis(width), strict=True)
    return tuple(np.kron(rows, columns) for rows, columns in pairs)


def _make_axis(pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return B [points, pixels], G [points, 3] and Aᵀ [pixels, points] of an axis."""
    if pixels == 4:
        results, taps, tile = winograd.make_matrices()
        return tile[:, 1:-1], taps, results.T  # the tile's first and last are padding
    return (
        np.array([[1, 1], [0, 1], [1, 0]]),
        np.array([[0, 1, 0], [0, -1, 1], [1, -1, 0]]),
        np.array([[1, 1, 0], [1, 0, 1]]),
    )


def _apply(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """Multiply a matrix with the first axis of x."""
    flat = x.reshape(x.shape[0], -1)
    product = jnp.matmul(matrix.astype(x.dtype), flat)
    return product.reshape(-1, *x.shape[1:])


def _flatten(kernel: jax.Array) -> jax.Array:
    return kernel.reshape(-1, *kernel.shape[2:])


# Without the barriers the loop that makes x, or reads the result, runs over the joined
# axis too, one number at a time: 32 µs instead of 4 for 32 images 4×4×32.
def _pixels_first(x: jax.Array) -> jax.Array:
    """Turn [N, H, W, C] into [H·W, N, C]."""
    images, _, _, channels = x.shape
    moved = lax.optimization_barrier(x.transpose(1, 2, 0, 3))
    return moved.reshape(-1, images, channels)


def _images_first(x: jax.Array, sides: tuple[int, int]) -> jax.Array:
    """Turn [H·W, N, C] into [N, H, W, C]."""
    moved = lax.optimization_barrier(x.reshape(*sides, *x.shape[1:]))
    return moved.transpose(2, 0, 1, 3)
