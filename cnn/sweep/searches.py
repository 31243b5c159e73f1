"""Searches: every trial of a space, or successive halving.

Halving trains many settings for a few epochs and the best of them for more. A rung is
a stage of one run: a trial's schedule is that of all its epochs, and a trial that
survives continues with its state. Settings are ranked by the mean over their seeds, so
that none survives by a lucky one.

Source: Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.sweep import table, trunks
from cnn.sweep.batch import Batch, TrialProgress, regroup, start_batch
from cnn.sweep.executors import Executor, explain_shortage
from cnn.sweep.live import LiveTable
from cnn.sweep.session import Session
from cnn.sweep.trials import Trial, make_setting


@dataclasses.dataclass(frozen=True)
class Rung:
    """A stage of halving: how many settings are trained up to which epoch."""

    epochs: int
    settings: int


def plan_rungs(settings: int, epochs: int, factor: int, every: int = 1) -> list[Rung]:
    """Plan the rungs: each has `factor` times fewer settings, for as many more epochs.

    Args:
        settings: how many settings the sweep has.
        epochs: of a trial that survives all rungs.
        factor: at least 2.
        every: epochs between evaluations; rungs end at multiples of it.

    Returns:
        The rungs; the last has all epochs, and the first at least one evaluation.
    """
    levels, most = 0, min(settings, epochs // every)
    while factor ** (levels + 1) <= most:
        levels += 1
    rungs = []
    for level in range(levels):
        share = epochs / factor ** (levels - level)
        reached = max(1, round(share / every)) * every
        rungs.append(Rung(reached, math.ceil(settings / factor**level)))
    return [*rungs, Rung(epochs, math.ceil(settings / factor**levels))]


def make_plan(trials: Sequence[Trial], factor: int, terminal: Terminal) -> list[Rung]:
    """Plan the rungs of a sweep and print them with their budget.

    Raises:
        UserError: trials differ in their epochs, or are too few for two rungs, or the
            factor is 1.
    """
    options = trials[0].config.train
    if factor < 2:
        raise UserError(f"--halving={factor} keeps every setting; give 2 or more")
    if len({trial.config.train.epochs for trial in trials}) > 1:
        raise UserError(
            f"--halving={factor} compares trials after equally many epochs; take "
            "epochs out of --sweep"
        )
    settings = len({trial.setting for trial in trials})
    every = options.eval_every_epochs
    rungs = plan_rungs(settings, options.epochs, factor, every)
    if len(rungs) == 1:
        raise UserError(
            f"--halving={factor} needs at least {factor} settings and {factor} "
            f"evaluations of each; there are {settings}, and {options.epochs // every}"
        )
    seeds, before, budget = len(trials) // settings, 0, 0
    for number, rung in enumerate(rungs, start=1):
        terminal.say(
            f"rung {number}    {rung.settings} settings x {seeds} seeds to epoch "
            f"{rung.epochs}"
        )
        budget += rung.settings * seeds * (rung.epochs - before)
        before = rung.epochs
    whole = len(trials) * options.epochs
    terminal.say(f"budget    {budget} epochs, {budget / whole:.0%} of {whole}")
    terminal.say("equal settings are ranked by their loss, then by their number")
    return rungs


def run_halving(
    session: Session, groups: Sequence[Sequence[Trial]], rungs: Sequence[Rung]
) -> None:
    """Run the trials, grouped by program, from rung to rung and save those that end.

    Raises:
        Interrupted: a signal arrived; trials that have ended are saved, the others
            start from scratch when the sweep is resumed, with the same result.
    """
    planned = [trial for group in groups for trial in group]
    show = LiveTable(session.terminal, session.count_total(planned))
    alive = [_Group(session, group) for group in groups]
    with show:
        for number, rung in enumerate(rungs):
            for group in alive:
                with explain_shortage(group.width):
                    group.advance(rung.epochs, planned, show)
            if number + 1 < len(rungs):
                running = [one for group in alive for one in group.list_running()]
                _prune(session, running, number, rung, rungs[number + 1].settings)
                for group in alive:
                    group.save_ended(planned)


class _Group:
    """The trials of one program that have not ended, in batches."""

    def __init__(self, session: Session, trials: Sequence[Trial]) -> None:
        done = {row["trial"] for row in session.rows}
        self._trials, self._session = trials, session
        self._pending = [trial for trial in trials if trial.number not in done]
        self._executor: Executor | None = None
        self._batches: list[Batch] = []

    def advance(self, epochs: int, planned: Sequence[Trial], show: LiveTable) -> None:
        """Train up to an epoch, and save the trials that end."""
        if not self._pending:
            return
        session = self._session
        if self._executor is None:
            self._executor = session.make_executor(self._trials)
            width = self._executor.width
            self._batches = [
                start_batch(self._executor, self._pending[i : i + width])
                for i in range(0, len(self._pending), width)
            ]
        else:
            self._batches = regroup(self._executor, self._batches)
        for batch in self._batches:
            batch.advance(epochs, lambda batch: show.show(batch, session.rows))
        self.save_ended(planned)

    @property
    def width(self) -> int:
        """Return how many trials run at once."""
        return self._executor.width if self._executor else len(self._pending)

    def list_running(self) -> list[TrialProgress]:
        """List the trials that have not ended."""
        everyone = [one for batch in self._batches for one in batch.progress]
        return [one for one in everyone if one.status == "running"]

    def save_ended(self, planned: Sequence[Trial]) -> None:
        """Save the trials that have ended."""
        for batch in self._batches:
            self._session.save_ended(batch, planned)


def _prune(
    session: Session,
    running: Sequence[TrialProgress],
    number: int,
    rung: Rung,
    keep: int,
) -> None:
    """End the trials whose settings are not among the best `keep` of a rung.

    Trials that ended before the sweep was resumed are ranked by their curves, so that
    the same settings survive.
    """
    names = f"validation_{session.select_by}", "validation_loss"
    found: dict[tuple, list[tuple[float, float, int]]] = {}
    for row in session.rows:
        if row["status"] == "pruned" and row["rung"] < number:
            continue
        lines = [line for line in row["curve"] if line["epoch"] <= rung.epochs]
        values = math.nan, math.nan
        if row["status"] != "failed" or row["trained_epochs"] > rung.epochs:
            values = tuple(lines[-1][name] for name in names)
        setting = make_setting(row["options"])
        found.setdefault(setting, []).append((*values, row["trial"]))
    for one in running:
        values = tuple(one.curve[-1][name] for name in names)
        found.setdefault(one.trial.setting, []).append((*values, one.trial.number))
    ranked = _rank(found, lower_is_better=session.select_by == "loss")
    for one in running:
        place = ranked.index(one.trial.setting) + 1
        if place > keep:
            one.rung = number
            one.end("pruned", f"rung {number + 1}: place {place} of {len(ranked)}")


def _rank(
    found: Mapping[tuple, Sequence[tuple[float, float, int]]], lower_is_better: bool
) -> list[tuple]:
    """Order settings by their mean, failed ones last, equal ones by their loss.

    Args:
        found: metric, loss and number of each setting's trials.
    """
    sign = 1 if lower_is_better else -1

    def place(setting: tuple) -> tuple:
        metrics, losses, numbers = zip(*found[setting], strict=True)
        if not all(map(math.isfinite, (*metrics, *losses))):
            return True, 0.0, 0.0, min(numbers)
        mean, loss = (math.fsum(x) / len(x) for x in (metrics, losses))
        return False, *table.make_place(sign * mean, loss, min(numbers))

    return sorted(found, key=place)


def run_grid(session: Session, groups: Sequence[Sequence[Trial]]) -> None:
    """Run every trial, grouped by program, that has not ended yet.

    Raises:
        UserError: several at once do not fit in memory.
        Interrupted: a signal arrived; the trials that have ended are saved.
    """
    planned = [trial for group in groups for trial in group]
    show = LiveTable(session.terminal, session.count_total(planned))
    for group in groups:
        length = session.make_setup(group[0].config).structure.steps_per_epoch
        done = {row["trial"] for row in session.rows}
        pending = [trial for trial in group if trial.number not in done]
        if not pending:
            continue
        stems = [family.longest for family in trunks.make_families(group, length)]
        families = trunks.make_families(pending, length)
        for line in trunks.describe(families):
            session.terminal.say(line)
        executor = session.make_executor(stems)
        with show:
            for i in range(0, len(families), executor.width):
                some = families[i : i + executor.width]
                session.run_batch(
                    executor, some, planned, lambda b: show.show(b, session.rows)
                )
