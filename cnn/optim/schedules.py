"""Learning-rate schedules: the factor of every rate, a function of step and numbers.

Nothing here branches on a number: every strength is an array, or None where the
option is 0 and its code is absent. Steps count from 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cnn.config import Numbers
from cnn.optim.options import ScheduleOptions


class Clock(NamedTuple):
    """When a step takes place.

    Attributes:
        step: int32 [], from 0.
        steps_per_epoch: the length of an epoch.
    """

    step: jax.Array
    steps_per_epoch: int

    @property
    def epoch(self) -> jax.Array:
        """Return the epoch that the step belongs to; int32 [], from 0."""
        return self.step // self.steps_per_epoch


def compute_schedule(
    options: ScheduleOptions, clock: Clock, numbers: Numbers
) -> jax.Array:
    """Compute the factor of all learning rates at one step.

    Args:
        numbers: `epochs`, `warmup_epochs`, `milestones`, `milestone_factor`,
            `triangle_start`, `triangle_peak`, `triangle_end`.

    Returns:
        float32 []. Warm-up is `min(1, (step + 1) / warm-up steps)`; cosine is
        `(1 + cos(pi · step / all steps)) / 2`; triangle is 1 at the whole step
        before the peak.

    Source: Goyal et al. 2017 (warm-up), https://arxiv.org/abs/1706.02677;
        Loshchilov and Hutter 2017 (cosine), https://arxiv.org/abs/1608.03983
    """
    factor = SCHEDULES[options.schedule](clock, numbers)
    if numbers.warmup_epochs is not None:
        warmup_steps = numbers.warmup_epochs * clock.steps_per_epoch
        taken = clock.step.astype(jnp.float32) + 1
        factor = factor * jnp.minimum(1.0, taken / warmup_steps)
    # Otherwise XLA's CPU backend computes it again in the update of every parameter.
    return lax.optimization_barrier(factor)


def _count(clock: Clock, numbers: Numbers) -> tuple[jax.Array, jax.Array]:
    """Return the steps taken and those of the whole run."""
    return clock.step.astype(jnp.float32), numbers.epochs * clock.steps_per_epoch


def _constant(clock: Clock, numbers: Numbers) -> jax.Array:
    return jnp.ones((), jnp.float32)


def _cosine(clock: Clock, numbers: Numbers) -> jax.Array:
    step, steps = _count(clock, numbers)
    return 0.5 * (1 + jnp.cos(jnp.pi * (step / steps)))


def _linear(clock: Clock, numbers: Numbers) -> jax.Array:
    step, steps = _count(clock, numbers)
    return 1 - step / steps


def _step(clock: Clock, numbers: Numbers) -> jax.Array:
    ends = jnp.round(numbers.milestones * clock.steps_per_epoch)
    passed = clock.step.astype(jnp.float32) >= ends
    return numbers.milestone_factor ** jnp.sum(passed)


def _triangle(clock: Clock, numbers: Numbers) -> jax.Array:
    step, steps = _count(clock, numbers)
    start, end = numbers.triangle_start, numbers.triangle_end
    peak = jnp.maximum(jnp.floor(numbers.triangle_peak * steps), 1)
    rising = start + (1 - start) * step / peak
    falling = 1 - (1 - end) * (step - peak) / (steps - peak)
    return jnp.where(step < peak, rising, falling)


# By the name of --schedule: each maps a clock and the numbers to a factor.
SCHEDULES = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
    "step": _step,
    "triangle": _triangle,
}
