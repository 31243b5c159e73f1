"""Learning-rate schedules: the factor of every rate, a function of step and numbers.

Nothing here branches on a number: every strength is an array, or None where the
option is 0 and its code is absent. Steps count from 0.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cnn.config import Config, Numbers
from cnn.errors import UserError
from cnn.optim.options import ScheduleOptions

# Steps of stable_then_decay's decay at least: the first still has the peak rate.
SHORTEST_DECAY = 2


class Clock(NamedTuple):
    """When a step takes place.

    Attributes:
        step: int32 [], from 0; float32 from the end of a warm-up on.
        steps_per_epoch: the length of an epoch.
    """

    step: jax.Array
    steps_per_epoch: int

    @property
    def epoch(self) -> jax.Array:
        """Return the epoch that the step belongs to; int32 [], from 0."""
        return self.step // self.steps_per_epoch


Schedule = Callable[[Clock, Numbers], jax.Array]


def compute_schedule(
    options: ScheduleOptions, clock: Clock, numbers: Numbers
) -> jax.Array:
    """Compute the factor of all learning rates at one step.

    Args:
        numbers: `epochs` and those of `ScheduleOptions`.

    Returns:
        float32 []. Steps and epochs are counted from 0; with `rate_every=epoch` an
        epoch is a step. docs/training.md has the formulas.

    Source: Goyal et al. 2017 (warm-up), https://arxiv.org/abs/1706.02677;
        Loshchilov and Hutter 2017 (cosine, restarts), https://arxiv.org/abs/1608.03983;
        Smith and Topin 2018 (one_cycle), https://arxiv.org/abs/1708.07120;
        Hu et al. 2024 (stable_then_decay), https://arxiv.org/abs/2404.06395, its root
        of Hägele et al. 2024, https://arxiv.org/abs/2405.18392
    """
    clock, schedule = _choose_clock(options, clock), SCHEDULES[options.schedule]
    if numbers.warmup_epochs is None or options.schedule == "one_cycle":
        factor = schedule(clock, numbers)
    elif options.warmup_kind == "product":
        factor = schedule(clock, numbers)
        warmup_steps = numbers.warmup_epochs * clock.steps_per_epoch
        taken = clock.step.astype(jnp.float32) + 1
        rise = jnp.minimum(1.0, taken / warmup_steps)
        factor = factor * _start_at(numbers.warmup_start_factor, rise)
    else:
        factor = _begin_with_warmup(options.warmup_kind, schedule, clock, numbers)
    # Otherwise XLA's CPU backend computes it again in the update of every parameter.
    return lax.optimization_barrier(factor)


def check(config: Config) -> None:
    """Refuse options of the schedule that do not go together.

    Raises:
        UserError: naming the flags.
    """
    options = config.schedule
    is_cycle = options.schedule == "one_cycle"
    is_constant = options.warmup_epochs and options.warmup_kind == "constant"
    if is_constant and not options.warmup_start_factor and not is_cycle:
        raise UserError(
            "--warmup_kind=constant would keep the rate at 0; give "
            "--warmup_start_factor=0.1, or another kind"
        )
    names = ("momentum", "adam_beta1") if is_cycle else ()
    unread, flat = config.find_unread(names, "train"), config.to_flat()
    for name in names:
        if name not in unread and 0 < flat[name] < options.one_cycle_momentum:
            raise UserError(
                f"--one_cycle_momentum={options.one_cycle_momentum:g} is above "
                f"--{name}={flat[name]:g}, which it is lowered from; give a smaller "
                "one, or 0 for none"
            )


def cycle_momentum(options: ScheduleOptions, clock: Clock, numbers: Numbers) -> Numbers:
    """Return the numbers with the momentum of one step, which one_cycle alone changes.

    `momentum` and `adam_beta1` are the largest; the smallest, at the peak of the rate,
    is `one_cycle_momentum`.

    Source: as torch.optim.lr_scheduler.OneCycleLR
    """
    least = numbers.one_cycle_momentum
    if options.schedule != "one_cycle" or least is None:
        return numbers
    height, _ = _find_height(_choose_clock(options, clock), numbers)
    most = {"momentum": numbers.momentum, "adam_beta1": numbers.adam_beta1}
    cycled = {
        name: lax.optimization_barrier(x - (x - least) * height)
        for name, x in most.items()
        if x is not None
    }
    return dataclasses.replace(numbers, **cycled)


def _choose_clock(options: ScheduleOptions, clock: Clock) -> Clock:
    return Clock(clock.epoch, 1) if options.rate_every == "epoch" else clock


def _begin_with_warmup(
    kind: str, schedule: Schedule, clock: Clock, numbers: Numbers
) -> jax.Array:
    """Compute the factor of a schedule that warm-up precedes, or begins in place of.

    Source: torch.optim.lr_scheduler.SequentialLR of LinearLR or ConstantLR (before,
        constant); timm.scheduler without `warmup_prefix` (instead)
    """
    step = clock.step.astype(jnp.float32)
    warmup_steps = numbers.warmup_epochs * clock.steps_per_epoch
    rise = jnp.zeros(()) if kind == "constant" else step / warmup_steps
    rise = _start_at(numbers.warmup_start_factor, rise)
    if kind != "instead":
        clock = clock._replace(step=jnp.maximum(step - warmup_steps, 0))
        left = numbers.epochs - numbers.warmup_epochs
        numbers = dataclasses.replace(numbers, epochs=left)
    return jnp.where(step < warmup_steps, rise, schedule(clock, numbers))


def _start_at(least: jax.Array | None, share: jax.Array) -> jax.Array:
    """Raise what lies in [0, 1] to [least, 1]; None is 0."""
    return share if least is None else least + (1 - least) * share


def _count(clock: Clock, numbers: Numbers) -> tuple[jax.Array, jax.Array]:
    """Return the steps taken and those of the whole run."""
    return clock.step.astype(jnp.float32), numbers.epochs * clock.steps_per_epoch


def _constant(clock: Clock, numbers: Numbers) -> jax.Array:
    return jnp.ones((), jnp.float32)


def _cosine(clock: Clock, numbers: Numbers) -> jax.Array:
    step, steps = _count(clock, numbers)
    if numbers.final_rate_factor is None:
        return 0.5 * (1 + jnp.cos(jnp.pi * (step / steps)))
    return _start_at(numbers.final_rate_factor, _ease((steps - step) / steps))


def _ease(share: jax.Array) -> jax.Array:
    """Compute (1 - cos(pi · share)) / 2, to all digits where that is small."""
    return jnp.sin(jnp.pi / 2 * share) ** 2


def _linear(clock: Clock, numbers: Numbers) -> jax.Array:
    step, steps = _count(clock, numbers)
    return _start_at(numbers.final_rate_factor, 1 - step / steps)


def _polynomial(clock: Clock, numbers: Numbers) -> jax.Array:
    step, steps = _count(clock, numbers)
    left = ((steps - step) / steps) ** numbers.polynomial_power
    return _start_at(numbers.final_rate_factor, left)


def _exponential(clock: Clock, numbers: Numbers) -> jax.Array:
    step, _ = _count(clock, numbers)
    return numbers.exponential_factor ** (step / clock.steps_per_epoch)


def _cosine_restarts(clock: Clock, numbers: Numbers) -> jax.Array:
    step, _ = _count(clock, numbers)
    first = jnp.round(numbers.restart_epochs * clock.steps_per_epoch)
    first = jnp.maximum(first, 1)
    # From a factor of 2 on, 32 periods are more than any run has.
    factors = jnp.where(jnp.arange(32) > 0, numbers.restart_factor, 1)
    lengths = first * jnp.cumprod(factors.astype(jnp.float32))
    starts = jnp.concatenate([jnp.zeros(1), jnp.cumsum(lengths)[:-1]])
    number = jnp.sum(step >= starts) - 1
    is_even = numbers.restart_factor == 1
    start = jnp.where(is_even, jnp.floor(step / first) * first, starts[number])
    length = jnp.where(is_even, first, lengths[number])
    left = (length - (step - start)) / length
    return _start_at(numbers.final_rate_factor, _ease(left))


def _one_cycle(clock: Clock, numbers: Numbers) -> jax.Array:
    height, is_rising = _find_height(clock, numbers)
    least = jnp.where(is_rising, numbers.one_cycle_start, numbers.one_cycle_end)
    return _start_at(least, height)


def _find_height(clock: Clock, numbers: Numbers) -> tuple[jax.Array, jax.Array]:
    """Return how high one_cycle stands, 0 to 1, and whether it rises.

    It is highest one step before `one_cycle_peak` of the run, and ends with its last
    step, both as PyTorch has it.
    """
    step, steps = _count(clock, numbers)
    peak = jnp.maximum(numbers.one_cycle_peak * steps - 1, 1e-6)
    is_rising = step <= peak
    left = (steps - 1 - step) / (steps - 1 - peak)
    return _ease(jnp.where(is_rising, step / peak, left)), is_rising


def _step(clock: Clock, numbers: Numbers) -> jax.Array:
    if numbers.step_every_epochs is not None:
        every = jnp.round(numbers.step_every_epochs * clock.steps_per_epoch)
        times = jnp.floor(clock.step.astype(jnp.float32) / jnp.maximum(every, 1))
        return numbers.milestone_factor**times
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


def _stable_then_decay(clock: Clock, numbers: Numbers) -> jax.Array:
    step, steps = _count(clock, numbers)
    decay = jnp.maximum(jnp.round(numbers.decay_share * steps), SHORTEST_DECAY)
    passed = jnp.maximum(step - (steps - decay), 0)
    falling = 1 - (passed / decay) ** numbers.decay_power
    # Before it the very number 1, whatever the length of the run.
    return jnp.where(
        passed > 0, _start_at(numbers.final_rate_factor, falling), jnp.ones(())
    )


# By the name of --schedule: each maps a clock and the numbers to a factor.
SCHEDULES = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
    "step": _step,
    "polynomial": _polynomial,
    "exponential": _exponential,
    "cosine_restarts": _cosine_restarts,
    "one_cycle": _one_cycle,
    "triangle": _triangle,
    "plateau": _constant,  # times the factor of cnn/optim/plateau.py
    "stable_then_decay": _stable_then_decay,
}
