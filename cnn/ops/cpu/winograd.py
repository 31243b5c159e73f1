"""Convolution with 3×3 kernels at a quarter of the multiplications, for CPU.

Winograd's minimal filtering F(4×4, 3×3): a tile of 4×4 results is Aᵀ[(G k Gᵀ) ⊙
(Bᵀ d B)]A of the 6×6 pixels d that it sees, 36 multiplications where there were 144;
summed over channels, 36 matrix products over all tiles. The kernel gradient is
Gᵀ[Σ (Bᵀ d B) ⊙ (A g Aᵀ)]G of tiles g of the gradient. Arrays: x [N, H, W, C], float32
or wider, kernel [3, 3, C, O], gradient [N, H', W', O]; the stride is 1.

The matrices come from evaluating polynomials at six points. At 0, ±5/8, ±3/2 and ∞ the
largest error is 2e-6 of the largest result, at the usual 0, ±1, ±2 and ∞ 7e-6 and for
ordinary products 3e-7 (float32, 64 images 16×16, 64 to 32 channels).

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2015),
    https://arxiv.org/abs/1509.09308; for the points, Barabasz et al., Error Analysis
    and Improving the Accuracy of Winograd Convolution (2018),
    https://arxiv.org/abs/1803.10986
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn.ops import geometry
from cnn.ops.cpu import chunks
from cnn.ops.geometry import Pairs

_TILE = 4
_EXTENT = _TILE + 2
_POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)  # and infinity
_LEAST_TILES = 128  # with fewer, transforming the kernels takes what is saved
_CHUNK_BYTES = 3_000_000  # of transformed pixels and results, or gradients


def make_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A [6, 4], G [6, 3] and Bᵀ [6, 6] of the points (Toom and Cook)."""
    points = np.array(_POINTS)
    others = [np.delete(points, i) for i in range(len(points))]
    scales = [[np.prod(p - o)] for p, o in zip(points, others, strict=True)]
    results, taps = (
        np.vstack([np.vander(points, n, increasing=True), np.eye(n)[-1]])
        for n in (_TILE, 3)
    )
    taps[:-1] /= scales
    pixels = [np.append(np.poly(o)[::-1], 0) for o in others]
    return results, taps, np.array([*pixels, np.poly(points)[::-1]])


_RESULTS, _TAPS, _PIXELS = make_matrices()
# What turns the sums and differences of opposite points' values back into these.
_HALVES = np.eye(_EXTENT)
_HALVES[1:3, 1:3] = _HALVES[3:5, 3:5] = [[0.5, 0.5], [0.5, -0.5]]


def pays(
    shape: tuple[int, ...], kernel_shape: tuple[int, ...], static: tuple, least: int
) -> bool:
    """Say whether a convolution is faster this way.

    Args:
        static: (stride, padding, dilation, groups) of the convolution.
        least: channels that must be seen and made; with few, to transform the tiles
            costs more than products.
    """
    if kernel_shape[:2] != (3, 3) or static[0] != (1, 1) or static[2:] != ((1, 1), 1):
        return False
    if min(kernel_shape[2:]) < least or not isinstance(shape[0], int):
        return False
    images, height, width, _ = geometry.convolution_shape(shape, kernel_shape, static)
    tiles = _count_tiles(height) * _count_tiles(width)
    # A tile that reaches over the border computes what is not needed.
    filled = height * width >= tiles * _TILE**2 / 2
    return filled and images * tiles >= _LEAST_TILES


@functools.partial(jax.jit, static_argnums=2)
def convolve(x: jax.Array, kernel: jax.Array, padding: Pairs) -> jax.Array:
    """Compute a convolution of stride 1.

    Returns:
        [N, H', W', O], H' = H + top + bottom − 2.
    """
    static = (1, 1), padding, (1, 1), 1
    _, height, width, features = shape = geometry.convolution_shape(
        x.shape, kernel.shape, static
    )
    rows = lax.optimization_barrier(_combine(_TAPS, list(kernel)))
    weights = _combine(_TAPS, [rows[:, column] for column in range(3)])
    weights = lax.optimization_barrier(weights.reshape(_EXTENT**2, -1, features))

    def convolve_chunk(x):
        seen = _transform_pixels(x, padding, shape)
        product = jnp.matmul(seen.reshape(_EXTENT**2, -1, x.shape[-1]), weights)
        product = product.reshape(_EXTENT, *seen.shape[1:-1], features)
        return _collect(product)[:, :height, :width]

    return chunks.map_chunks(convolve_chunk, x, _fit_images(x, shape))


@functools.partial(jax.jit, static_argnums=2)
def kernel_gradient(x: jax.Array, gradient: jax.Array, padding: Pairs) -> jax.Array:
    """Compute the kernel gradient of such a convolution.

    Returns:
        [3, 3, C, O].
    """

    def multiply(x, gradient):
        seen = _transform_pixels(x, padding, gradient.shape)
        after = [(0, -size % _TILE) for size in gradient.shape[1:3]]
        gradient = jnp.pad(gradient, ((0, 0), *after, (0, 0)))
        spread = _transform(gradient, _RESULTS)
        seen, spread = (a.reshape(_EXTENT**2, -1, a.shape[-1]) for a in (seen, spread))
        return jnp.einsum("tpc,tpo->tco", seen, spread)

    size = _fit_images(x, gradient.shape)
    total = chunks.sum_chunks(multiply, x, gradient, size)
    total = total.reshape(_EXTENT, _EXTENT, *total.shape[1:])
    rows = _combine(_TAPS.T, [total[:, row] for row in range(_EXTENT)])
    rows = lax.optimization_barrier(rows)
    columns = [rows[:, column] for column in range(_EXTENT)]
    return _combine(_TAPS.T, columns, axis=1)


def _count_tiles(length: int) -> int:
    return -(-length // _TILE)


def _fit_images(x: jax.Array, shape: tuple[int, ...]) -> int:
    """Return how many images, of x with results of a shape, make a chunk."""
    tiles = _count_tiles(shape[1]) * _count_tiles(shape[2])
    numbers = tiles * _EXTENT**2 * (x.shape[-1] + shape[-1])
    size = chunks.fit_images(numbers * x.dtype.itemsize, _CHUNK_BYTES)
    while size * tiles < _LEAST_TILES:
        size *= 2
    return size


def _transform_pixels(
    x: jax.Array, padding: Pairs, shape: tuple[int, ...]
) -> jax.Array:
    """Transform the 6×6 pixels that each tile of results [N, H', W', O] sees.

    Returns:
        [6, 6, N, tiles down, tiles across, C].
    """
    around = [
        (low, _count_tiles(results) * _TILE + 2 - pixels - low)
        for pixels, results, (low, _) in zip(
            x.shape[1:3], shape[1:3], padding, strict=True
        )
    ]
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), *((*a, 0) for a in around), (0, 0, 0)])
    return _transform(lax.optimization_barrier(x), _PIXELS)


def _transform(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Multiply the tiles of x from both sides, first along rows, then along columns.

    Args:
        x: [N, H, W, C]; a tile begins at every fourth row and column.
        matrix: [6, T] for tiles of T×T pixels.

    Returns:
        [6, 6, N, tiles down, tiles across, C], columns first.
    """
    for axis in (1, 3):
        x = _combine(matrix, _list_pixels(x, axis, matrix.shape[1]))
        x = lax.optimization_barrier(x)
    return x


def _list_pixels(x: jax.Array, axis: int, extent: int) -> list[jax.Array]:
    """List along an axis the first pixels of all tiles, the second ones, and so on."""
    last = x.shape[axis] - extent
    return [
        lax.slice_in_dim(x, pixel, pixel + last + 1, _TILE, axis)
        for pixel in range(extent)
    ]


def _collect(product: jax.Array) -> jax.Array:
    """Turn transformed results [6, 6, N, tiles down, tiles across, O] into images."""
    _, _, images, down, across, features = product.shape
    rows = [product[:, row] for row in range(_EXTENT)]
    rows = lax.optimization_barrier(_combine(_RESULTS.T, rows, axis=3))
    found = _combine(_RESULTS.T, list(rows), axis=4)
    return found.reshape(images, down * _TILE, across * _TILE, features)


def _combine(matrix: np.ndarray, parts: list[jax.Array], axis: int = 0) -> jax.Array:
    """Stack the sums of `parts` that the rows of a matrix weigh.

    A point and its opposite share what even and what odd powers give: one has the sum
    of these, the other the difference.

    Args:
        matrix: [6, T], a row for each point, or [T, 6], a column.
        parts: T or 6 arrays of one shape.
        axis: on which the sums are stacked.
    """
    if len(matrix) == _EXTENT:
        sums = _sum_pairs(_weigh(_HALVES @ matrix, parts))
    else:
        sums = _weigh(matrix @ _HALVES, _sum_pairs(parts))
    return jnp.stack(sums, axis)


def _weigh(matrix: np.ndarray, parts: list[jax.Array]) -> list[jax.Array]:
    """Sum parts with the weights of each row of a matrix."""
    weighed = [
        [
            part if w == 1 else part * float(w)
            for w, part in zip(row, parts, strict=True)
            if w
        ]
        for row in matrix
    ]
    return [functools.reduce(operator.add, terms) for terms in weighed]


def _sum_pairs(parts: list[jax.Array]) -> list[jax.Array]:
    """Return the sum and the difference of parts 1 and 2, and of parts 3 and 4."""
    first, a, b, c, d, last = parts
    return [first, a + b, a - b, c + d, c - d, last]
