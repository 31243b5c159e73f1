"""What of a run's options comes after its end: refused, or said before it begins.

`config` alone decides, so that each trial of a sweep is checked like a run.
"""

from collections.abc import Sequence

from cnn.config import Config
from cnn.errors import UserError
from cnn.optim import freezing
from cnn.option import format_value, split_numbers


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
    for name, value, what in late:
        if value >= epochs:
            raise _make_error(name, f"{value:g}", what, epochs)
    warmup = schedule.warmup_epochs
    if warmup > epochs:
        what = "the rate never reaches its peak"
        raise _make_error("warmup_epochs", f"{warmup:g}", what, epochs)
    milestones = schedule.milestones
    if schedule.schedule == "step" and _are_late(milestones, epochs):
        raise UserError(
            f"--milestones={_format(milestones)} with --epochs={epochs}: "
            f"--schedule=step never lowers the rate; give some below {epochs}, or more "
            "--epochs, or another --schedule"
        )
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
    late = [x for x in schedule.milestones if x >= epochs]
    if schedule.schedule == "step" and late:
        lines.append(
            f"the rate is not lowered at {_format(late)} of --milestones: the run ends "
            f"after --epochs={epochs}"
        )
    if schedule.warmup_epochs == epochs:
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
