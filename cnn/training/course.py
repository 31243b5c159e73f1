"""What of a run's options comes after its end: refused, or said before it begins.

`config` alone decides, so that each trial of a sweep is checked like a run.
"""

import math
from collections.abc import Sequence

from cnn.config import Config
from cnn.errors import UserError
from cnn.optim import freezing
from cnn.optim.options import ScheduleOptions
from cnn.option import format_value, split_numbers
from cnn.training.options import TrainOptions


def check(config: Config) -> None:
    """Refuse what would never happen: the run ends before it.

    Raises:
        UserError: naming the option and `--epochs`.
    """
    epochs, schedule = config.train.epochs, config.schedule
    late = []
    if config.augment.mixup_alpha or config.augment.cutmix_alpha:
        last, what = config.augment.mixing_until_epoch, "mixing never ends"
        late.append(("mixing_until_epoch", last, f"{what}, as without the flag"))
    if config.averaging.lookahead_decay:
        start = config.averaging.lookahead_start_epochs
        late.append(("lookahead_start_epochs", start, "Lookahead never begins"))
    if config.averaging.ema_decay:
        start = config.averaging.ema_start_epochs
        late.append(("ema_start_epochs", start, "the weights are never averaged"))
    for name, value, what in late:
        if value >= epochs:
            raise _make_error(name, f"{value:g}", what, epochs)
    _check_schedule(schedule, config.train)
    texts = config.freezing.train_until
    ends = split_numbers("train_until", texts)[1]
    if texts and (_are_late(ends, epochs) or max(ends) > epochs):
        what = "what trains until then trains to the end"
        raise _make_error("train_until", format_value(texts), what, epochs)
    for epoch, size in config.data.sizes:
        if epoch >= epochs:
            what = f"no image is shown with {size} pixels"
            raise _make_error("image_size_schedule", f"{epoch}:{size}", what, epochs)
    for text in config.freezing.unfreeze:
        freezing.read_unfreeze(text, epochs)


def _check_schedule(options: ScheduleOptions, train: TrainOptions) -> None:
    """Refuse a warm-up or a schedule whose turns come after the run's end."""
    epochs, warmup = train.epochs, _get_warmup(options)
    if warmup > epochs:
        what = "the rate never reaches its peak"
        raise _make_error("warmup_epochs", f"{warmup:g}", what, epochs)
    if warmup == epochs and options.warmup_kind != "product":
        what = f"--schedule={options.schedule} never begins"
        raise _make_error("warmup_epochs", f"{warmup:g}", what, epochs)
    left = epochs - find_start(options)
    milestones = options.milestones
    if options.schedule == "step" and options.step_every_epochs:
        _check_turn("step_every_epochs", options, "never lowers the rate", left)
    elif options.schedule == "step" and _are_late(milestones, left):
        raise UserError(
            f"--milestones={_format(milestones)} with --epochs={epochs}: "
            f"--schedule=step never lowers the rate; give some below {left:g}, or more "
            "--epochs, or another --schedule"
        )
    if options.schedule == "cosine_restarts":
        _check_turn("restart_epochs", options, "never restarts", left)
    evaluations = math.ceil(epochs / train.eval_every_epochs)
    # The one after the last epoch comes too late.
    if options.schedule == "plateau" and options.plateau_patience + 2 >= evaluations:
        raise UserError(
            f"--plateau_patience={options.plateau_patience} with {evaluations} "
            "evaluations: --schedule=plateau never lowers the rate; give less, or more "
            "--epochs, or fewer --eval_every_epochs"
        )


def _check_turn(name: str, options: ScheduleOptions, what: str, left: float) -> None:
    value = getattr(options, name)
    if value >= left:
        raise UserError(
            f"--{name}={value:g}: --schedule={options.schedule} {what} in its {left:g} "
            "epochs; give less, or more --epochs"
        )


def _get_warmup(options: ScheduleOptions) -> float:
    """Return the epochs of warm-up; one_cycle has none."""
    return 0.0 if options.schedule == "one_cycle" else options.warmup_epochs


def find_start(options: ScheduleOptions) -> float:
    """Return the epoch from which a schedule counts its own."""
    precedes = options.warmup_kind in ("before", "constant")
    return _get_warmup(options) if precedes else 0.0


def check_steps(config: Config, steps_per_epoch: int) -> None:
    """Refuse what `check` cannot see without the length of an epoch.

    Raises:
        UserError: Lookahead never synchronises.
    """
    options, steps = config.averaging, config.train.epochs * steps_per_epoch
    every = options.lookahead_every_steps
    start = round(options.lookahead_start_epochs * steps_per_epoch)
    # The first synchronisation only takes the weights.
    if options.lookahead_decay and (start // every + 1) * every >= steps:
        raise UserError(
            f"--lookahead_every_steps={every} with --lookahead_start_epochs="
            f"{options.lookahead_start_epochs:g}: Lookahead never synchronises in the "
            f"run's {steps} steps; give smaller ones, or more --epochs, or leave "
            "--lookahead_decay out"
        )


def list_late(config: Config) -> list[str]:
    """Write a line for each option that acts less than it says, or not at all."""
    epochs, schedule, lines = config.train.epochs, config.schedule, []
    left = epochs - find_start(schedule)
    late = [x for x in schedule.milestones if x >= left]
    if schedule.schedule == "step" and not schedule.step_every_epochs and late:
        lines.append(
            f"the rate is not lowered at {_format(late)} of --milestones: the run ends "
            f"after --epochs={epochs}"
        )
    if _get_warmup(schedule) == epochs:
        lines.append(
            f"--warmup_epochs={schedule.warmup_epochs:g} takes all of --epochs={epochs}"
        )
    patience = config.train.early_stop_epochs
    if patience >= epochs:
        lines.append(
            f"--early_stop_epochs={patience} stops nothing in --epochs={epochs}"
        )
    return lines


def _format(epochs: Sequence[float]) -> str:
    return ",".join(f"{epoch:g}" for epoch in epochs)


def _are_late(values: Sequence[float], epochs: int) -> bool:
    return all(value >= epochs for value in values)


def _make_error(name: str, value: str, what: str, epochs: int) -> UserError:
    return UserError(
        f"--{name}={value} with --epochs={epochs}: {what}; give less than {epochs}, "
        "also where a preset gives it, or more --epochs"
    )
