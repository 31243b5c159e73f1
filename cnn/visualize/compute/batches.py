"""Many images through a compiled function, some at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_BATCH_SIZE, _BATCH_PIXELS = 250, 250 * 32 * 32


def map_batches(function: Callable[..., Any], *arrays: np.ndarray, pixels: int) -> Any:
    """Apply a function to arrays batch by batch, with one shape for all batches.

    Args:
        function: of arrays [n, …], compiled; returns a tree of arrays [n, …].
        *arrays: [N, …], N at least 1.
        pixels: height times width of the images that it computes of, which bounds
            the batch.

    Returns:
        The tree of arrays [N, …], in numpy.
    """
    total = len(arrays[0])
    size = max(1, min(_BATCH_SIZE, _BATCH_PIXELS // pixels, total))
    results = []
    for start in range(0, total, size):
        batch = [np.asarray(array[start : start + size]) for array in arrays]
        missing = size - len(batch[0])
        padded = [
            np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) for x in batch
        ]
        result = function(*(jnp.asarray(x) for x in padded))
        results.append(jax.tree.map(np.asarray, result))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:total], *results)
