"""A budget of minutes: how many epochs `--minutes` are, decided before the first step.

A run is rehearsed: its own loop takes its own steps, evaluates and saves into a
directory that is thrown away, and so do its state and its weights. What that took, and
what the start has taken, say how many whole epochs end in time. From then on the run is
the one of that many `--epochs`, to the bit: the rate knows the end from its first step,
and a resume takes what was decided, however fast its machine is.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import atomic, workdir
from cnn.config import Config, list_fields
from cnn.errors import UserError
from cnn.option import read_interval
from cnn.runtime import processes
from cnn.runtime.terminal import Terminal
from cnn.training import course
from cnn.training.setup import Setup

BUDGET_FILE = "budget.json"
# Epochs of a run that is rehearsed: nothing that the options ask for comes later.
UNDECIDED = 10_000
# The share of the budget that the rehearsal of a phase takes, at most some seconds, and
# its fewest calls.
SHARE, LONGEST, FEWEST = 0.05, 60.0, 3
clock = time.perf_counter


class Rehearsed(Exception):
    """A rehearsal has seen enough."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """The seconds that a phase takes.

    Attributes:
        first_epoch: of the phase, from 0.
        entry: what comes before its first step: its state, cached features.
        epoch: of a whole one, with its share of evaluations and checkpoints.
        evaluation: of one.
        end: of what follows the last step: tests, the last checkpoint, statistics.
        steps: how many were rehearsed.
    """

    first_epoch: int
    entry: float
    epoch: float
    evaluation: float
    end: float
    steps: int


class Stopwatch(Terminal):
    """A terminal that prints nothing and notes the seconds at which steps are taken.

    Attributes:
        marks: number of the step, from 1, and seconds, after each call of some steps.
    """

    def __init__(self, minutes: float) -> None:
        """Start; `SHARE` of a budget of minutes after the first call it is enough."""
        super().__init__()
        self.console.quiet = True
        self.marks: list[tuple[int, float]] = []
        self._seconds, self._origin = min(LONGEST, SHARE * 60 * minutes), clock()

    def read(self) -> float:
        """Return the seconds since the start, of the slowest of several processes."""
        return processes.find_most(clock() - self._origin)

    def time(self, do: Callable[[], Any]) -> float:
        """Return the seconds that something takes."""
        before = self.read()
        do()
        return self.read() - before

    def update_bar(self, step: int, *args: Any) -> None:
        """Note the time.

        Raises:
            Rehearsed: it is enough.
        """
        self.marks.append((step, self.read()))
        is_long = self.marks[-1][1] - self.marks[0][1] >= self._seconds
        if is_long and len(self.marks) >= FEWEST:
            raise Rehearsed


def resume(config: Config, directory: Path) -> Config:
    """Return the options with the epochs that were decided when the run began.

    Args:
        directory: of the run, or of none.
    """
    decided = find_decided(directory) if config.train.minutes else None
    return config if decided is None else config.change({"epochs": decided})


def find_decided(directory: Path) -> Any:
    """Return the epochs of the run in a directory; None where there is none."""
    try:
        return workdir.read_config(directory).get("epochs")
    except UserError:
        return None


def measure_epoch(
    marks: Sequence[tuple[int, float]],
    length: int,
    every: tuple[float, float],
    beside: tuple[float, float],
) -> float:
    """Return the seconds of an epoch, with its share of evaluations and checkpoints.

    Where as many whole epochs were rehearsed as lie between evaluations and between
    checkpoints, it is the median over such stretches: a checkpoint is written beside
    the next steps. The first two epochs are left out, of which one compiles and one
    waits for the first checkpoint; the median leaves out most of the best checkpoints,
    which are many in a run's first epochs alone. Else it is that of the steps, and what
    comes beside is added.

    Args:
        marks: of a stopwatch.
        length: of an epoch, in steps.
        every: epochs between evaluations, and between checkpoints.
        beside: seconds of an evaluation, and of a checkpoint.
    """
    period = math.ceil(max(every))
    ends = {step // length: now for step, now in marks if step % length == 0}
    first, last = min(ends, default=0) + 1, max(ends, default=0)
    stretches = [
        ends[end] - ends[end - period]
        for end in range(first + period, last + 1, period)
    ]
    if stretches:
        return statistics.median(stretches) / period
    begun = marks[0][0]
    own = [(s, t) for s, t in marks if (s - 1) // length == (begun - 1) // length]
    if len(own) < 2:  # an epoch is a single call
        own = list(marks)
    (step, then), (later, now) = own[0], own[-1]
    seconds = (now - then) / max(1, later - step)
    more = sum(x / n for x, n in zip(beside, every, strict=True))
    return length * seconds + more


def choose_epochs(costs: Sequence[Cost], seconds: float) -> int:
    """Choose how many whole epochs end in some seconds; 0 where not one does.

    Args:
        costs: of the phases, in order; later ones may be missing where these take all.
        seconds: from now on.
    """
    left = seconds - costs[0].evaluation - costs[-1].end
    for cost, end in zip(costs, _list_ends(costs), strict=True):
        left -= cost.entry
        room = int(max(0.0, left) // cost.epoch)
        if room < end - cost.first_epoch:
            return cost.first_epoch + room
        left -= (end - cost.first_epoch) * cost.epoch
    return _list_ends(costs)[-1]


def predict_seconds(costs: Sequence[Cost], epochs: int) -> float:
    """Predict how long a run takes from its first evaluation to its result."""
    seconds = costs[0].evaluation + costs[-1].end
    for cost, end in zip(costs, _list_ends(costs), strict=True):
        if cost.first_epoch < epochs:
            seconds += cost.entry + (min(end, epochs) - cost.first_epoch) * cost.epoch
    return seconds


def _list_ends(costs: Sequence[Cost]) -> list[int]:
    """List the epoch at which each phase ends; the last with the longest run."""
    most = read_interval(list_fields()["epochs"].metadata["within"])[1]
    return [cost.first_epoch for cost in costs[1:]] + [int(most)]


def decide(
    setup: Setup, costs: Sequence[Cost], spent: float
) -> tuple[Setup, dict[str, Any]]:
    """Fix the epochs of a run.

    Args:
        setup: with `UNDECIDED` epochs.
        costs: as of `choose_epochs`.
        spent: seconds since the command began.

    Returns:
        The setup with its epochs, and what `budget.json` holds.

    Raises:
        UserError: not one epoch ends in time, or an option waits for a later one.
    """
    minutes = setup.config.train.minutes
    epochs = choose_epochs(costs, 60 * minutes - spent)
    if not epochs:
        least = (spent + predict_seconds(costs, 1)) / 60
        beside = predict_seconds(costs, 1) - costs[0].epoch
        raise UserError(
            f"--minutes={minutes:g} is less than one epoch takes: {spent:.1f} s until "
            f"now (loading, compiling, rehearsing), {costs[0].epoch:.1f} s an epoch, "
            f"{beside:.1f} s beside it; give {_round_up(least):g} or more"
        )
    config = setup.config.change({"epochs": epochs})
    try:
        course.check(config)
        course.check_steps(config, *setup.lengths)
    except UserError as error:
        raise UserError(f"--minutes={minutes:g} is {epochs} epochs: {error}") from None
    phases = [
        {
            "first_epoch": cost.first_epoch,
            "epoch_seconds": round(cost.epoch, 4),
            "rehearsed_steps": cost.steps,
        }
        for cost in costs
    ]
    found = {
        "minutes": minutes,
        "epochs": epochs,
        "predicted_minutes": round((spent + predict_seconds(costs, epochs)) / 60, 3),
        "start_seconds": round(spent, 3),
        "end_seconds": round(costs[-1].end, 3),
        "phases": phases,
    }
    return setup.with_numbers(config), found


def describe(found: Mapping[str, Any]) -> str:
    """Write how the epochs of a run were found.

    Args:
        found: as of `decide`.
    """
    each = ", then ".join(
        f"{phase['epoch_seconds']:.3g} s an epoch ({phase['rehearsed_steps']} steps "
        "rehearsed)"
        for phase in found["phases"]
    )
    return (
        f"budget    {found['epochs']} epochs end after "
        f"{found['predicted_minutes']:.3g} minutes: {found['start_seconds']:.1f} s "
        f"until now, {each}, "
        f"{found['end_seconds']:.1f} s at the end"
    )


def read(directory: Path) -> dict[str, Any]:
    """Return what `budget.json` holds; empty where it is lost, or there is none."""
    try:
        found = workdir.read_json(directory / BUDGET_FILE)
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def write(directory: Path, found: Mapping[str, Any]) -> None:
    """Write `budget.json`, by the first process."""
    if processes.is_first():
        atomic.write_json(directory / BUDGET_FILE, found)


def _round_up(minutes: float) -> float:
    """Round to two digits that are not less."""
    unit = 10.0 ** (math.floor(math.log10(minutes)) - 1)
    return math.ceil(minutes / unit + 1e-9) * unit
