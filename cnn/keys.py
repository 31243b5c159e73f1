"""Where randomness comes from: pure functions of the seed, never a carried state.

Each purpose has its own stream, so that no two of them ever share draws. Nothing
about randomness is saved in a checkpoint: any draw can be made again from its name.
"""

import zlib

import jax

_INITIALISATION, _ORDER, _DROPOUT, _AUGMENT = range(4)


def initialisation_key(seed: jax.Array | int) -> jax.Array:
    """Return the key from which parameters are drawn."""
    return _stream(seed, _INITIALISATION)


def order_key(seed: jax.Array | int, epoch: jax.Array | int) -> jax.Array:
    """Return the key of the order in which one epoch sees the training set."""
    return jax.random.fold_in(_stream(seed, _ORDER), epoch)


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


def _stream(seed: jax.Array | int, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), stream)
