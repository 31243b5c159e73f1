"""In which order images are seen: pure functions of seed and epoch."""

import functools

import jax
import numpy as np

from cnn import keys


def make_epoch_order(
    seed: int, epoch: int, num_examples: int, batch_size: int
) -> np.ndarray:
    """Draw the order of one training epoch.

    Args:
        epoch: from 0; every epoch has its own order.
        num_examples: N, the size of the training set.
        batch_size: B; the N % B examples of the last partial batch are left out.

    Returns:
        int32 [N // B, B]: positions in the training set, each at most once.
    """
    steps = num_examples // batch_size
    order = np.asarray(_permute(keys.order_key(seed, epoch), num_examples))
    return order[: steps * batch_size].reshape(steps, batch_size)


def count_classes(labels: np.ndarray, num_classes: int = 0) -> np.ndarray:
    """Count the examples of each class.

    Args:
        labels: int32 [N], each of one class, or [N, K] of 0 and 1, each of any.
        num_classes: K at least; 0: as many as labels name.

    Returns:
        int64 [K].
    """
    if labels.ndim == 2:
        return np.sum(labels > 0, axis=0)
    return np.bincount(labels, minlength=num_classes)


def make_eval_order(
    num_examples: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the order of a set for evaluation, with the last batch padded.

    Returns:
        Positions int32 [S, B], and the mask bool [S, B], False for padding.
    """
    steps = -(-num_examples // batch_size)
    positions = np.arange(steps * batch_size, dtype=np.int32)
    mask = positions < num_examples
    positions = np.where(mask, positions, 0)
    shape = (steps, batch_size)
    return positions.reshape(shape), mask.reshape(shape)


@functools.partial(jax.jit, static_argnums=1)
def _permute(key: jax.Array, count: int) -> jax.Array:
    return jax.random.permutation(key, jax.numpy.arange(count, dtype=np.int32))
