"""What of a run's options it is too short or too small for: refused, or said before it.

One rule for each duration and each count: what it must not exceed stands in its
interval, as `[0, epochs)`, and the run is measured here. `config` alone decides what
`check` refuses, so that each trial of a sweep is checked like a run; what depends on
the images too is for `check_steps`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cnn.config import Config, list_fields
from cnn.errors import UserError
from cnn.optim import freezing
from cnn.optim.options import ScheduleOptions
from cnn.option import format_value, read_interval, split_numbers

# What becomes of an option that exceeds what its interval ends in: it is refused, …
NEVER = {
    "mixing_until_epoch": "mixing never ends, as without the flag",
    "warmup_epochs": "the rate never reaches its peak",
    "milestones": "--schedule=step never lowers the rate",
    "step_every_epochs": "--schedule=step never lowers the rate",
    "restart_epochs": "--schedule=cosine_restarts never restarts",
    "plateau_patience": "--schedule=plateau never lowers the rate",
    "train_until": "what trains until then trains to the end",
    "ema_start_epochs": "the weights are never averaged",
    "lookahead_start_epochs": "Lookahead never begins",
    "lookahead_every_steps": "Lookahead never synchronises",
    "crop_padding": "windows would lie beside the image",
    "cutout_size": "the square is larger than the image",
}
# … or only said, because the run does what it says nevertheless.
SAID = {
    "early_stop_epochs": "it stops nothing",
    "eval_every_epochs": "evaluation comes at the end alone",
    "checkpoint_every_epochs": "none is written before the end, but the best",
    "keep_checkpoints": "all are kept",
    "log_every_steps": "no step is logged",
    "plateau_cooldown": "the rate is lowered once at most",
    "ema_every_steps": "the averaged weights are updated once an epoch",
    "ema_warmup_steps": "the decay stays far below --ema_decay",
    "recompute_statistics": "that is more batches than training takes",
    "whitening_images": "all are taken",
    "cached_views": "some are computed and never seen",
}
# What comes again and again cannot come more often than at each step.
_PERIODS = ("step_every_epochs", "restart_epochs")
_MOST_STEPS = 2**31 - 1


class Whole(NamedTuple):
    """How much of something a run has, in numbers and words, and what gives it more."""

    size: float
    words: str
    more: str


@dataclasses.dataclass(frozen=True)
class _Excess:
    """An option that exceeds a run: its values that do, as text too, of how many."""

    name: str
    texts: tuple[str, ...]
    values: tuple[float, ...]
    of: int
    whole: Whole
    ends: str

    @property
    def is_refused(self) -> bool:
        """Whether nothing of the option happens; a name's number may not be larger."""
        is_by_name = list_fields()[self.name].metadata["kind"] == "traced_by_name"
        is_larger = is_by_name and max(self.values) > self.whole.size
        return self.name not in SAID and (len(self.values) == self.of or is_larger)

    def describe(self) -> str:
        """Write what exceeds what, and what becomes of it."""
        what = SAID.get(self.name) or NEVER.get(self.name, "there is not so much")
        if not self.is_refused and self.name not in SAID:
            what = "that is not before the end"
        return f"--{self.name}={','.join(self.texts)} with {self.whole.words}: {what}"

    def make_error(self) -> UserError:
        """Make the refusal, with what would be allowed."""
        size = _format(self.whole.size)
        less = f"less than {size}" if self.ends == ")" else f"{size} or less"
        return UserError(
            f"{self.describe()}; give {less}, also where a preset gives it, or "
            f"{self.whole.more}"
        )


def check(config: Config) -> None:
    """Refuse what would never happen: the run ends before it.

    Raises:
        UserError: naming the option and `--epochs`.
    """
    epochs = config.train.epochs
    for excess in _find(config, _measure(config)):
        if excess.is_refused:
            raise excess.make_error()
    warmup = _get_warmup(config.schedule)
    if warmup == epochs and config.schedule.warmup_kind != "product":
        what = f"--schedule={config.schedule.schedule} never begins"
        raise _make_error("warmup_epochs", f"{warmup:g}", what, epochs)
    for epoch, size in config.data.sizes:
        if epoch >= epochs:
            what = f"no image is shown with {size} pixels"
            raise _make_error("image_size_schedule", f"{epoch}:{size}", what, epochs)
    for text in config.freezing.unfreeze:
        freezing.read_unfreeze(text, epochs)


def check_steps(
    config: Config,
    steps_per_epoch: int,
    num_images: float = math.inf,
    pixels: float = math.inf,
) -> None:
    """Refuse what `check` cannot see without the images.

    Args:
        num_images: that the run trains on.
        pixels: of their longer side.

    Raises:
        UserError: naming the option, and what there is too little of.
    """
    options, steps = config.averaging, config.train.epochs * steps_per_epoch
    if steps > _MOST_STEPS:
        raise UserError(
            f"--epochs={config.train.epochs} of {steps_per_epoch} steps each are more "
            f"than the {_MOST_STEPS} steps that are counted; give fewer --epochs"
        )
    for excess in _find(
        config, _measure_images(config, steps_per_epoch, num_images, pixels)
    ):
        if excess.is_refused:
            raise excess.make_error()
    for name, value in _find_short(config, steps_per_epoch):
        if name in _PERIODS:
            raise UserError(
                f"--{name}={value:g} is less than a step, of which an epoch has "
                f"{steps_per_epoch}; give {1 / steps_per_epoch:.3g} or more"
            )
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


def list_late(
    config: Config,
    steps_per_epoch: int,
    num_images: float = math.inf,
    pixels: float = math.inf,
) -> list[str]:
    """Write a line for each option that acts less than it says, or not at all.

    Args:
        config: that is not refused.
        num_images: that the run trains on.
        pixels: of their longer side.
    """
    wholes = _measure(config)
    wholes |= _measure_images(config, steps_per_epoch, num_images, pixels)
    lines = [excess.describe() for excess in _find(config, wholes)]
    for name, value in _find_short(config, steps_per_epoch):
        lines.append(
            f"--{name}={value:g} is less than a step, of which an epoch has "
            f"{steps_per_epoch}"
        )
    warmup, epochs = _get_warmup(config.schedule), config.train.epochs
    if warmup == epochs:
        lines.append(f"--warmup_epochs={warmup:g} takes all of --epochs={epochs}")
    return lines


def _measure(config: Config) -> dict[str, Whole]:
    """Measure what of a run its options alone say, by unit."""
    epochs, schedule = config.train.epochs, config.schedule
    left = epochs - find_start(schedule)
    every = min(config.checkpoint.checkpoint_every_epochs, epochs)
    evaluations = math.ceil(epochs / config.train.eval_every_epochs)
    more, words = "more --epochs", f"--epochs={epochs}"
    of_schedule = words if left == epochs else f"{left:g} epochs of its schedule"
    sparser = f"{more}, or fewer --eval_every_epochs"
    return {
        "epochs": Whole(epochs, words, more),
        "schedule": Whole(left, of_schedule, more),
        # The first is better than none, and the last comes too late for what follows.
        "evaluations": Whole(evaluations - 2, f"{evaluations} evaluations", sparser),
        "checkpoints": Whole(
            math.ceil(epochs / every), f"{math.ceil(epochs / every)} checkpoints", more
        ),
    }


def _measure_images(
    config: Config, steps_per_epoch: int, num_images: float, pixels: float
) -> dict[str, Whole]:
    """Measure what of a run depends on its images, by unit."""
    steps, more = config.train.epochs * steps_per_epoch, "more --epochs"
    return {
        "steps": Whole(steps, f"the run's {steps} steps", more),
        "epoch_steps": Whole(
            steps_per_epoch, f"{steps_per_epoch} steps in an epoch", "a smaller batch"
        ),
        "images": Whole(num_images, f"{num_images} training images", "more of them"),
        "pixels": Whole(pixels, f"images of {pixels} pixels", "a larger --image_size"),
    }


def _find(config: Config, wholes: Mapping[str, Whole]) -> Iterator[_Excess]:
    """Find the options that are read and exceed what their intervals end in.

    Args:
        wholes: by unit; options of other units are left out.
    """
    flat = config.to_flat()
    for name, values, unit in _list_measured(config):
        if unit not in wholes:
            continue
        size, ends = wholes[unit].size, list_fields()[name].metadata["within"][-1]
        late = {
            text: x
            for text, x in values.items()
            if x > size or (x == size and ends == ")")
        }
        if late and not (name in SAID and flat[name] == list_fields()[name].default):
            texts, numbers = tuple(late), tuple(late.values())
            yield _Excess(name, texts, numbers, len(values), wholes[unit], ends)


def _find_short(config: Config, steps_per_epoch: int) -> Iterator[tuple[str, float]]:
    """Find the durations of less than a step; 0 is none."""
    for name, values, unit in _list_measured(config):
        for value in values.values():
            if unit in ("epochs", "schedule") and 0 < value < 0.999 / steps_per_epoch:
                yield name, value


def _list_measured(config: Config) -> list[tuple[str, dict[str, float], str]]:
    """List the options that are read and are on: name, numbers by text, and unit."""
    flat, found = config.to_flat(), []
    for name, field in list_fields().items():
        unit, value = read_interval(field.metadata["within"])[2], flat[name]
        if not unit or (value == 0 and field.default == 0):
            continue
        if field.metadata["kind"] == "traced_by_name":
            numbers = dict(zip(value, split_numbers(name, value)[1], strict=True))
        else:
            values = value if isinstance(value, list) else [value]
            numbers = {_format(x): x for x in values}
        found.append((name, numbers, unit))
    unread = config.find_unread([name for name, _, _ in found], "train")
    return [one for one in found if one[0] not in unread]


def _get_warmup(options: ScheduleOptions) -> float:
    """Return the epochs of warm-up; one_cycle has none."""
    return 0.0 if options.schedule == "one_cycle" else options.warmup_epochs


def find_start(options: ScheduleOptions) -> float:
    """Return the epoch from which a schedule counts its own."""
    precedes = options.warmup_kind in ("before", "constant")
    return _get_warmup(options) if precedes else 0.0


def _format(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else format_value(number)


def _make_error(name: str, value: str, what: str, epochs: int) -> UserError:
    return UserError(
        f"--{name}={value} with --epochs={epochs}: {what}; give less than {epochs}, "
        "also where a preset gives it, or more --epochs"
    )
