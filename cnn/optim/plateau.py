"""A rate that is lowered when a validation metric no longer gets better.

What it depends on is known between two epochs alone, so that it is no part of the
compiled step: the host lowers the peak rate that the step is given.
"""

import dataclasses
import math

from cnn.config import Config
from cnn.optim.options import ScheduleOptions


@dataclasses.dataclass(frozen=True)
class Plateau:
    """What a run with `--schedule=plateau` remembers of its evaluations.

    Attributes:
        factor: what the peak rate is multiplied by.
        best: the best metric; None before the first.
        bad: evaluations since without a better one.
        cooldown: evaluations that are left of those that do not count as bad.
    """

    factor: float = 1.0
    best: float | None = None
    bad: int = 0
    cooldown: int = 0


def note(
    options: ScheduleOptions, before: Plateau, value: float, *, is_loss: bool
) -> Plateau:
    """Take in the metric of an evaluation; it may lower the rate.

    Args:
        value: of the metric; of a loss the smaller one is better. One that is not
            finite is no better one.

    Source: as torch.optim.lr_scheduler.ReduceLROnPlateau with its relative threshold
        and an `eps` of 0
    """
    sign = -1 if is_loss else 1
    margin = 1 + sign * options.plateau_threshold
    has_best = before.best is not None and math.isfinite(before.best)
    is_better = math.isfinite(value) and (
        not has_best or sign * value > sign * before.best * margin
    )
    best = value if is_better else before.best
    bad = 0 if is_better or before.cooldown else before.bad + 1
    cooldown = max(before.cooldown - 1, 0)
    if bad <= options.plateau_patience:
        return Plateau(before.factor, best, bad, cooldown)
    factor = max(before.factor * options.plateau_factor, options.plateau_floor)
    return Plateau(factor, best, 0, options.plateau_cooldown)


def lower(config: Config, state: Plateau | None) -> Config:
    """Return the options of a run, its peak rates times the factor; None is 1.

    Decoupled, the decay is lowered as a schedule would lower it.
    """
    if state is None:
        return config
    options, factor = config.optimizer, state.factor
    decay = factor if options.decoupled_rates else 1
    lowered = dataclasses.replace(
        options,
        learning_rate=options.learning_rate * factor,
        muon_learning_rate=options.muon_learning_rate * factor,
        weight_decay=options.weight_decay * decay,
    )
    return dataclasses.replace(config, optimizer=lowered)
