"""Where randomness comes from: pure functions of the seed, never a carried state.

Each purpose has its own stream, so that no two of them ever share draws. Nothing
about randomness is saved in a checkpoint: any draw can be made again from its name.

What the host draws, the order of the examples, is computed by numpy: the same bits as
`jax.random`'s of a key of the same name, and no program to compile.

Source: Salmon et al. 2011 (Threefry-2x32, 20 rounds),
    https://doi.org/10.1145/2063384.2063405
"""

import zlib

import jax
import numpy as np

_INITIALISATION, _ORDER, _DROPOUT, _AUGMENT = range(4)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def initialisation_key(seed: jax.Array | int) -> jax.Array:
    """Return the key from which parameters are drawn."""
    return _stream(seed, _INITIALISATION)


def order_key(seed: int, epoch: int) -> np.ndarray:
    """Return the key of the order in which one epoch sees the training set.

    Returns:
        uint32 [2], the host's, for `draw_bits` and `permute`.
    """
    key = np.array([0, seed & 0xFFFFFFFF], np.uint32)
    for number in (_ORDER, epoch):
        key = _hash(key, np.array([0], np.uint32), np.array([number], np.uint32))[:, 0]
    return key


def dropout_key(seed: jax.Array | int, step: jax.Array | int) -> jax.Array:
    """Return the key of one step's dropout; each layer folds its own path in."""
    return jax.random.fold_in(_stream(seed, _DROPOUT), step)


def example_keys(
    seed: jax.Array | int,
    epoch: jax.Array | int,
    ids: jax.Array,
    operation: str,
    copies: jax.Array | None = None,
) -> jax.Array:
    """Return one key for each example, for one operation of one epoch.

    Args:
        seed: the run's.
        epoch: from 0.
        ids: int32 [N], positions in the training set.
        operation: its name; another operation has other draws.
        copies: int32 [N], which of several copies of the example, from 0; None: 0.

    Returns:
        Typed keys [N]; an example's key does not depend on the others.
    """
    stream = max(_AUGMENT, zlib.crc32(operation.encode()))
    key = jax.random.fold_in(_stream(seed, stream), epoch)
    first = jax.vmap(jax.random.fold_in, (None, 0))(key, ids)
    if copies is None:
        return first
    later = jax.vmap(jax.random.fold_in)(first, copies)
    return jax.numpy.where(copies == 0, first, later)


def draw_bits(key: np.ndarray, count: int) -> np.ndarray:
    """Draw uint32 [count] on the host, as `jax.random.bits` does.

    Args:
        key: the host's, uint32 [2].
    """
    high, low = _hash(key, *_count(count))
    return high ^ low


def permute(key: np.ndarray, count: int) -> np.ndarray:
    """Permute 0 … count - 1 on the host, as `jax.random.permutation` does.

    Args:
        key: the host's, uint32 [2].

    Returns:
        int32 [count].
    """
    order = np.arange(count, dtype=np.int32)
    # So often that equal bits of two numbers leave no trace: as jax has it.
    times = int(np.ceil(3 * np.log(max(1, count)) / np.log(np.iinfo(np.uint32).max)))
    for _ in range(times):
        key, own = _hash(key, *_count(2)).T
        order = order[np.argsort(draw_bits(own, count), kind="stable")]
    return order


def _count(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the high and low halves, uint32 [count], of 0 … count - 1."""
    numbers = np.arange(count, dtype=np.uint64)
    return (numbers >> np.uint64(32)).astype(np.uint32), numbers.astype(np.uint32)


def _hash(key: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Hash pairs of uint32 [n] by Threefry-2x32; returns uint32 [2, n]."""
    words = (*key, key[0] ^ key[1] ^ _PARITY)
    high, low = high + words[0], low + words[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            high += low
            low = (low << np.uint32(rotation)) | (low >> np.uint32(32 - rotation))
            low ^= high
        high += words[(group + 1) % 3]
        low += words[(group + 2) % 3] + np.uint32(group + 1)
    return np.stack([high, low])


def _stream(seed: jax.Array | int, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), stream)
