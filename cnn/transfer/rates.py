"""Learning rates by layer: factors of each leaf's update, traced.

Source: Clark et al. 2020 (decay by layer), https://arxiv.org/abs/2003.10555
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cnn.transfer import paths

# For each parameter's path: layers between it and the last one, and the number of the
# factor of --learning_rate_for that holds for it, -1 for none.
Rates = tuple[tuple[str, int, int], ...]


def make_rates(
    patterns: Sequence[str], layers: Sequence[str], params: Sequence[str]
) -> Rates:
    """Find each parameter's place among the layers and its factor.

    Args:
        patterns: those of `--learning_rate_for`; of several, the first holds.
        layers: the model's, in the order in which they run.
        params: paths of the parameters.

    Raises:
        UserError: a pattern means nothing.
    """
    depths = paths.count_depths(layers)
    named = [paths.select([x], params, "learning_rate_for") for x in patterns]
    return tuple(
        (
            path,
            depths[path.split("/")[0]],
            next((i for i, chosen in enumerate(named) if path in chosen), -1),
        )
        for path in params
    )


def scale_updates(
    rates: Rates, updates: Any, hyperparameters: Mapping[str, jax.Array | None]
) -> Any:
    """Multiply each leaf's update by its factors.

    Args:
        rates: of `make_rates`.
        updates: of the parameters that train.
        hyperparameters: `layer_decay` and `learning_rate_for`; None where absent.
    """
    decay = hyperparameters["layer_decay"]
    factors = hyperparameters["learning_rate_for"]
    if decay is None and factors is None:
        return updates
    places = {path: place for path, *place in rates}

    def scale(path: Any, update: jax.Array) -> jax.Array:
        depth, number = places[jax.tree_util.keystr(path, simple=True, separator="/")]
        if decay is not None:
            update = update * decay**depth
        if factors is not None and number >= 0:
            update = update * factors[number]
        return update

    return jax.tree_util.tree_map_with_path(scale, updates)
