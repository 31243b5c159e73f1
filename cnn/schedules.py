"""Learning-rate schedules: the factor of every rate, a function of step and numbers.

Nothing here branches on a number: every strength is an array, or None where the
option is 0 and its code is absent. Steps count from 0.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from cnn.options import option

Hyperparameters = Mapping[str, jax.Array | None]


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
    """How the learning rate changes over the run."""

    schedule: str = option(
        "cosine",
        "learning rate over the run: constant, cosine or linear (both to 0), "
        "step (times milestone_factor at each milestone), triangle (up and down)",
        choices=("constant", "cosine", "linear", "step", "triangle"),
    )
    triangle_start: float = option(
        0.2, "factor that triangle starts at", kind="traced", within="[0, 1]"
    )
    triangle_peak: float = option(
        0.23, "share of the run after which it is 1", kind="traced", within="(0, 1)"
    )
    triangle_end: float = option(
        0.07, "factor that it ends at", kind="traced", within="[0, 1]"
    )
    warmup_epochs: float = option(
        0.0,
        "epochs over which the rate rises linearly, times the schedule",
        kind="traced_unless_zero",
        within="[0, inf)",
    )
    milestones: tuple[float, ...] = option(
        (60.0, 120.0, 160.0),
        "epochs at which schedule=step lowers the rate",
        kind="traced",
        within="[0, inf)",
    )
    milestone_factor: float = option(
        0.1,
        "what schedule=step multiplies the rate by at each milestone",
        kind="traced",
        within="(0, 1]",
    )


def compute_schedule(
    options: ScheduleOptions,
    step: jax.Array,
    steps_per_epoch: int,
    hyperparameters: Hyperparameters,
) -> jax.Array:
    """Compute the factor of all learning rates at one step.

    Args:
        options: chooses the schedule.
        step: int32 [], from 0.
        steps_per_epoch: the length of an epoch.
        hyperparameters: `epochs`, `warmup_epochs`, `milestones`, `milestone_factor`,
            `triangle_start`, `triangle_peak`, `triangle_end`.

    Returns:
        float32 []. Warm-up is `min(1, (step + 1) / warm-up steps)`; cosine is
        `(1 + cos(pi · step / all steps)) / 2`; triangle is 1 at the whole step
        before the peak.

    Source: Goyal et al. 2017 (warm-up), https://arxiv.org/abs/1706.02677;
        Loshchilov and Hutter 2017 (cosine), https://arxiv.org/abs/1608.03983
    """
    step = step.astype(jnp.float32)
    steps = hyperparameters["epochs"] * steps_per_epoch
    progress = step / steps
    factor = jnp.ones((), jnp.float32)
    if options.schedule == "cosine":
        factor = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif options.schedule == "linear":
        factor = 1 - progress
    elif options.schedule == "step":
        passed = step >= jnp.round(hyperparameters["milestones"] * steps_per_epoch)
        factor = hyperparameters["milestone_factor"] ** jnp.sum(passed)
    elif options.schedule == "triangle":
        start = hyperparameters["triangle_start"]
        end = hyperparameters["triangle_end"]
        peak = jnp.maximum(jnp.floor(hyperparameters["triangle_peak"] * steps), 1)
        rising = start + (1 - start) * step / peak
        falling = 1 - (1 - end) * (step - peak) / (steps - peak)
        factor = jnp.where(step < peak, rising, falling)
    if hyperparameters["warmup_epochs"] is not None:
        warmup_steps = hyperparameters["warmup_epochs"] * steps_per_epoch
        factor = factor * jnp.minimum(1.0, (step + 1) / warmup_steps)
    # Otherwise XLA's CPU backend computes it anew in the update of every parameter.
    return lax.optimization_barrier(factor)
