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
    step, steps_per_epoch = clock.step.astype(jnp.float32), clock.steps_per_epoch
    steps = numbers.epochs * steps_per_epoch
    progress = step / steps
    factor = jnp.ones((), jnp.float32)
    if options.schedule == "cosine":
        factor = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif options.schedule == "linear":
        factor = 1 - progress
    elif options.schedule == "step":
        passed = step >= jnp.round(numbers.milestones * steps_per_epoch)
        factor = numbers.milestone_factor ** jnp.sum(passed)
    elif options.schedule == "triangle":
        start, end = numbers.triangle_start, numbers.triangle_end
        peak = jnp.maximum(jnp.floor(numbers.triangle_peak * steps), 1)
        rising = start + (1 - start) * step / peak
        falling = 1 - (1 - end) * (step - peak) / (steps - peak)
        factor = jnp.where(step < peak, rising, falling)
    if numbers.warmup_epochs is not None:
        warmup_steps = numbers.warmup_epochs * steps_per_epoch
        factor = factor * jnp.minimum(1.0, (step + 1) / warmup_steps)
    # Otherwise XLA's CPU backend computes it again in the update of every parameter.
    return lax.optimization_barrier(factor)
