"""Averaged weights, which are then the ones evaluated: pure functions of trees.

Weights are `params` and `batch_stats`; steps count from 0; numbers are traced.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cnn.errors import UserError
from cnn.options import option

Hyperparameters = Mapping[str, jax.Array | None]


@dataclasses.dataclass(frozen=True)
class AveragingOptions:
    """How weights are averaged over steps."""

    ema_decay: float = option(
        0.0,
        "decay per step of the averaged weights, which are then the ones evaluated; "
        "early on min(decay, (1 + step) / (10 + step))",
        kind="traced_unless_zero",
        within="[0, 1)",
    )
    lookahead_decay: float = option(
        0.0,
        "decay per step of Lookahead's slow weights, which are then the ones "
        "evaluated, at the end of the run; training goes on from them at each "
        "synchronisation and each end of an epoch",
        kind="traced_unless_zero",
        within="[0, 1)",
    )
    lookahead_power: float = option(
        3.0,
        "Lookahead's decay is multiplied by the share of the run that has passed to "
        "this power",
        kind="traced",
        within="[0, inf)",
    )
    lookahead_every_steps: int = option(
        5,
        "steps between Lookahead's synchronisations",
        kind="traced",
        within="[1, inf)",
    )
    lookahead_start_epochs: float = option(
        0.0, "epochs without Lookahead at first", kind="traced", within="[0, inf)"
    )


def check(options: AveragingOptions) -> None:
    """Refuse two averages at once.

    Raises:
        UserError: naming the flags.
    """
    if options.ema_decay and options.lookahead_decay:
        raise UserError(
            f"--ema_decay={options.ema_decay:g}, --lookahead_decay="
            f"{options.lookahead_decay:g}: both average weights; give one of them"
        )


def is_on(flat: Mapping[str, Any]) -> bool:
    """Return whether a run with these options, by flag name, averages its weights."""
    return bool(flat["ema_decay"] or flat.get("lookahead_decay"))


def update_average(
    average: Any,
    weights: Any,
    step: jax.Array,
    steps_per_epoch: int,
    hyperparameters: Hyperparameters,
) -> Any:
    """Move averaged weights towards the current ones.

    Args:
        average: pytree of float arrays.
        weights: the same tree after this step.
        step: int32 [], of this step.
        steps_per_epoch: the length of an epoch.
        hyperparameters: `ema_decay` or `lookahead_decay` is there.

    Returns:
        The average after this step.
    """
    if hyperparameters["ema_decay"] is not None:
        return update_ema(average, weights, hyperparameters["ema_decay"], step)
    taken, first = step + 1, _find_first(steps_per_epoch, hyperparameters)
    every = hyperparameters["lookahead_every_steps"]
    passed = taken / (hyperparameters["epochs"] * steps_per_epoch)
    decay = hyperparameters["lookahead_decay"] ** every
    decay = decay * passed ** hyperparameters["lookahead_power"]
    decay = jnp.where(taken % every == 0, decay, 1.0)
    decay = jnp.where(taken <= first, 0.0, decay)
    return _mix(average, weights, decay)


def pull_back(
    average: Any,
    weights: Any,
    step: jax.Array,
    steps_per_epoch: int,
    hyperparameters: Hyperparameters,
) -> Any:
    """Return the weights that training goes on from; arguments of `update_average`.

    Args:
        average: after this step.
        weights: after this step.
        step: int32 [].
        steps_per_epoch: the length of an epoch.
        hyperparameters: every number.

    Returns:
        The average at Lookahead's synchronisations and where an epoch ends, else the
        weights.

    Source: Zhang et al. 2019, https://arxiv.org/abs/1907.08610; the rising decay and
        the ends of epochs from Jordan 2024, https://arxiv.org/abs/2404.00498
    """
    if hyperparameters["ema_decay"] is not None:
        return weights
    taken, first = step + 1, _find_first(steps_per_epoch, hyperparameters)
    is_due = taken % hyperparameters["lookahead_every_steps"] == 0
    is_due = (taken > first) & (is_due | (taken % steps_per_epoch == 0))
    return jax.tree.map(lambda a, w: jnp.where(is_due, a, w), average, weights)


def update_ema(ema: Any, current: Any, decay: jax.Array, step: jax.Array) -> Any:
    """Move exponentially averaged weights towards the current ones.

    Args:
        ema: pytree of float arrays.
        current: the same tree after this step.
        decay: float32 [] in [0, 1).
        step: int32 [], from 0; an early step averages over fewer.

    Returns:
        `d · ema + (1 - d) · current`, d = min(decay, (1 + step) / (10 + step)).
    """
    step = step.astype(jnp.float32)
    return _mix(ema, current, jnp.minimum(decay, (1 + step) / (10 + step)))


def _mix(average: Any, weights: Any, decay: jax.Array) -> Any:
    return jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, average, weights)


def _find_first(steps_per_epoch: int, hyperparameters: Hyperparameters) -> jax.Array:
    """Return the first synchronisation, which only takes the weights: steps, from 1."""
    every = hyperparameters["lookahead_every_steps"]
    start = jnp.round(hyperparameters["lookahead_start_epochs"] * steps_per_epoch)
    return (start.astype(jnp.int32) // every + 1) * every
