"""Go through a batch in chunks of images that fit the cache.

Chunk i holds images i, i + chunks, …: a batch sharded over devices stays so.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def fit_images(image_bytes: int, chunk_bytes: int) -> int:
    """Return how many images, a power of two and at least one, fit in a chunk."""
    return 1 << (max(1, chunk_bytes // image_bytes).bit_length() - 1)


def sum_chunks(
    function: Callable[..., jax.Array], x: jax.Array, gradient: jax.Array, size: int
) -> jax.Array:
    """Add up the results of chunks of `size` images, the last perhaps smaller.

    Args:
        function: of x and gradient of some images; a sum over these.
    """
    chunks, rest = divmod(x.shape[0], size)
    first = x.shape[0] - rest
    total = function(x[first:], gradient[first:]) if rest else 0.0
    if chunks <= 1:
        return total + function(x[:size], gradient[:size]) if chunks else total
    x, gradient = (_split(a[:first], chunks) for a in (x, gradient))
    kind = jax.eval_shape(function, x[:, 0], gradient[:, 0])
    return lax.fori_loop(
        0,
        chunks,
        lambda i, total: total + function(x[:, i], gradient[:, i]),
        jnp.zeros(kind.shape, kind.dtype) + total,
    )


def map_chunks(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, size: int
) -> jax.Array:
    """Compute the results of chunks of `size` images, the last perhaps smaller.

    Args:
        function: of x [n, …] of some images, to [n, …].
    """
    chunks, rest = divmod(x.shape[0], size)
    if chunks + bool(rest) <= 1:
        return function(x)
    first = x.shape[0] - rest
    parts = _split(x[:first], chunks)
    kind = jax.eval_shape(function, parts[:, 0])
    found = lax.fori_loop(
        0,
        chunks,
        lambda i, found: found.at[:, i].set(function(parts[:, i])),
        jnp.zeros((size, chunks, *kind.shape[1:]), kind.dtype),
    ).reshape(first, *kind.shape[1:])
    return jnp.concatenate([found, function(x[first:])]) if rest else found


def _split(x: jax.Array, chunks: int) -> jax.Array:
    return x.reshape(-1, chunks, *x.shape[1:])
