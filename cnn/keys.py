"""Where randomness comes from: pure functions of the seed, never a carried state.

Each purpose has its own stream, so that no two of them ever share draws. Nothing
about randomness is saved in a checkpoint: any draw can be made again from its name.
"""

import jax

_INITIALISATION, _ORDER, _DROPOUT = range(3)


def initialisation_key(seed: jax.Array | int) -> jax.Array:
    """Return the key from which parameters are drawn."""
    return _stream(seed, _INITIALISATION)


def order_key(seed: jax.Array | int, epoch: jax.Array | int) -> jax.Array:
    """Return the key of one epoch's permutation of the training set."""
    return jax.random.fold_in(_stream(seed, _ORDER), epoch)


def dropout_key(seed: jax.Array | int, step: jax.Array | int) -> jax.Array:
    """Return the key of one step's dropout; each layer folds its own path in."""
    return jax.random.fold_in(_stream(seed, _DROPOUT), step)


def _stream(seed: jax.Array | int, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), stream)
