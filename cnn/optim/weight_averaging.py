"""Averaged weights, which are then the ones evaluated: pure functions of trees.

Weights are `params` and `batch_stats`; steps count from 0; numbers are traced.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cnn.config import Numbers
from cnn.errors import UserError
from cnn.optim import freezing
from cnn.optim.freezing import Phase
from cnn.optim.options import AveragingOptions
from cnn.optim.schedules import Clock


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


def create_average(numbers: Numbers, weights: Any) -> Any:
    """Create the average before the first step: a copy; None when nothing averages."""
    if numbers.ema_decay is None and numbers.lookahead_decay is None:
        return None
    return jax.tree.map(jnp.copy, weights)


def update(
    options: AveragingOptions,
    phase: Phase | None,
    clock: Clock,
    numbers: Numbers,
    average: Any,
    weights: Any,
) -> tuple[Any, Any]:
    """Average the weights after a step; leaves that `phase` freezes keep their bits.

    Args:
        average: before the step; None when nothing averages.
        weights: the same tree after the step.

    Returns:
        The weights that training continues from, and the average.
    """
    if average is None:
        return weights, None
    is_ema = numbers.ema_decay is not None
    if is_ema:
        moved = _mix(average, weights, compute_decay(options, clock, numbers))
    else:
        moved = _update_lookahead(average, weights, clock, numbers)
    # A weighted mean of x and x is not always x to the bit.
    average = freezing.keep_frozen(phase, average, moved)
    if is_ema:
        return weights, average
    return _pull_back(average, weights, clock, numbers), average


def _update_lookahead(
    average: Any, weights: Any, clock: Clock, numbers: Numbers
) -> Any:
    """Move Lookahead's slow weights towards the current ones, where it synchronises."""
    taken, first = clock.step + 1, _find_first(clock.steps_per_epoch, numbers)
    every = numbers.lookahead_every_steps
    passed = taken / (numbers.epochs * clock.steps_per_epoch)
    decay = numbers.lookahead_decay**every
    decay = decay * passed**numbers.lookahead_power
    decay = jnp.where(taken % every == 0, decay, 1.0)
    decay = jnp.where(taken <= first, 0.0, decay)
    return _mix(average, weights, decay)


def _pull_back(average: Any, weights: Any, clock: Clock, numbers: Numbers) -> Any:
    """Return the slow weights at synchronisations and ends of epochs, else the others.

    Source: Zhang et al. 2019, https://arxiv.org/abs/1907.08610; the rising decay and
        the ends of epochs from Jordan 2024, https://arxiv.org/abs/2404.00498
    """
    taken, first = clock.step + 1, _find_first(clock.steps_per_epoch, numbers)
    is_due = taken % numbers.lookahead_every_steps == 0
    is_due = (taken > first) & (is_due | (taken % clock.steps_per_epoch == 0))
    return jax.tree.map(lambda a, w: jnp.where(is_due, a, w), average, weights)


def compute_decay(
    options: AveragingOptions, clock: Clock, numbers: Numbers
) -> jax.Array:
    """Compute the share of the average that a step's weights leave it.

    Returns:
        float32 []: 1 where the average is not updated, 0 where it is a copy.

    Source: torchvision's references/classification/train.py (ema_every_steps, and
        ema_start_epochs at the epochs of warm-up, both with ema_warmup=none);
        timm.utils.ModelEmaV3 (none or power)
    """
    step, decay = clock.step.astype(jnp.float32), numbers.ema_decay
    first = numbers.ema_start_epochs
    if first is not None:
        step = step - jnp.round(first * clock.steps_per_epoch)
    passed = step if first is None else jnp.maximum(step, 0)
    if options.ema_warmup == "ramp":
        decay = jnp.minimum(decay, (1 + passed) / (10 + passed))
    elif options.ema_warmup == "power":
        slowed = 1 + passed / numbers.ema_warmup_steps
        decay = jnp.minimum(decay, 1 - slowed**-numbers.ema_warmup_power)
    if first is not None or options.ema_warmup != "ramp":
        decay = jnp.where(step <= 0, 0.0, decay)
    if numbers.ema_every_steps is not None:
        number = clock.step % clock.steps_per_epoch
        decay = jnp.where(number % numbers.ema_every_steps == 0, decay, 1.0)
    return decay


def _mix(average: Any, weights: Any, decay: jax.Array) -> Any:
    return jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, average, weights)


def _find_first(steps_per_epoch: int, numbers: Numbers) -> jax.Array:
    """Return the first synchronisation, which only takes the weights: steps, from 1."""
    every = numbers.lookahead_every_steps
    start = jnp.round(numbers.lookahead_start_epochs * steps_per_epoch)
    return (start.astype(jnp.int32) // every + 1) * every
