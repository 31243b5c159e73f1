"""Learning rates by layer: factors of each leaf's update, and when it stops; traced.

Source: Clark et al. 2020 (decay by layer), https://arxiv.org/abs/2003.10555
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnn.config import Numbers
from cnn.optim import paths

# For each parameter's path: layers between it and the last one, and the numbers of the
# factor of --learning_rate_for and of --train_until that hold for it, -1 for none.
Rates = tuple[tuple[str, int, int, int], ...]


def make_rates(
    patterns: Sequence[str],
    layers: Sequence[str],
    params: Sequence[str],
    until: Sequence[str] = (),
) -> Rates:
    """Find each parameter's place among the layers, its factor and its end.

    Args:
        patterns: those of `--learning_rate_for`; of several, the first holds.
        layers: the model's, in the order in which they run.
        params: paths of the parameters.
        until: patterns of `--train_until`; of several, the first holds.

    Raises:
        UserError: a pattern means nothing.
    """
    depths = paths.count_depths(layers)

    def find(patterns: Sequence[str], flag: str) -> Callable[[str], int]:
        named = [paths.select([x], params, flag) for x in patterns]
        return lambda path: next((i for i, x in enumerate(named) if path in x), -1)

    factor, end = find(patterns, "learning_rate_for"), find(until, "train_until")
    return tuple(
        (path, depths[path.split("/")[0]], factor(path), end(path)) for path in params
    )


def scale(rates: Rates, numbers: Numbers, updates: Any) -> Any:
    """Multiply each leaf's update by its factors.

    Args:
        numbers: `layer_decay` and `learning_rate_for`; None where absent.
        updates: of the parameters that train, or their gradients.
    """
    decay, factors = numbers.layer_decay, numbers.learning_rate_for
    if decay is None and factors is None:
        return updates
    places = {path: place for path, *place in rates}

    def scale_one(path: Any, update: jax.Array) -> jax.Array:
        depth, number, _ = places[paths.write_path(path)]
        if decay is not None:
            update = update * decay**depth
        if factors is not None and number >= 0:
            update = update * factors[number]
        return update

    return jax.tree_util.tree_map_with_path(scale_one, updates)


def stop(rates: Rates, numbers: Numbers, epoch: jax.Array, updates: Any) -> Any:
    """Set the updates to 0 of what has trained for as many epochs as it may."""
    ends = numbers.train_until
    if ends is None:
        return updates
    ends_of = {path: number for path, _, _, number in rates}

    def stop_one(path: Any, update: jax.Array) -> jax.Array:
        number = ends_of[paths.write_path(path)]
        return update if number < 0 else jnp.where(epoch < ends[number], update, 0)

    return jax.tree_util.tree_map_with_path(stop_one, updates)
