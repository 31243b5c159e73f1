"""Some trials of one group, side by side, epoch by epoch.

A trial ends as a solo run does: after its epochs, by early stopping, or because a
number is not finite; what becomes of one does not touch the others.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np

from cnn.models.variables import count_parameters
from cnn.optim import plateau
from cnn.sweep.executors import EpochResult, Executor, Thresholds
from cnn.sweep.table import Row
from cnn.sweep.trials import Trial
from cnn.training.counters import Counters
from cnn.training.state import TrainState, compute_state_sha256
from cnn.training.tasks import MULTICLASS

Status = Literal["running", "finished", "pruned", "failed"]


@dataclasses.dataclass
class TrialProgress:
    """How far a trial has come.

    Attributes:
        reason: why it failed or was pruned.
        rung: the rung, from 0, at which halving pruned it.
        epoch: epochs trained.
        curve: a line for each evaluation: `epoch`, the loss and the metric of training
            over that epoch, and the validation metrics.
        thresholds: of the classes, as the newest evaluation tuned them; or None.
        seconds: its share of the time that training took.
    """

    trial: Trial
    status: Status = "running"
    reason: str = ""
    rung: int | None = None
    epoch: int = 0
    counters: Counters = dataclasses.field(default_factory=Counters)
    curve: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    thresholds: Thresholds = None

    @property
    def metric(self) -> float:
        """Return the newest value of the validation metric `--select_by`."""
        return self.curve[-1][f"validation_{self.trial.config.train.select_by}"]

    def end(self, status: Status, reason: str = "") -> None:
        """End the trial."""
        self.status, self.reason = status, reason


class Batch:
    """The trials of one call: their states, and how far each has come."""

    def __init__(
        self,
        executor: Executor,
        progress: Sequence[TrialProgress],
        states: Sequence[TrainState] | None = None,
    ) -> None:
        """Continue trials that have trained equally many epochs.

        Args:
            progress: at most as many as the executor is wide.
            states: of the trials; None: create those before the first step.
        """
        self._executor, self._length = executor, executor.steps_per_epoch
        self._task = executor.task
        self.progress = list(progress)
        configs = [one.trial.config for one in progress]
        self._states = (
            executor.create(configs)
            if states is None
            else executor.place(states, configs)
        )
        self.epoch = progress[0].epoch

    @property
    def is_running(self) -> bool:
        """Return whether a trial has not ended."""
        return any(one.status == "running" for one in self.progress)

    def advance(self, until: int, watch: Callable[["Batch"], None]) -> None:
        """Train up to the epoch `until`, or until every trial has ended.

        Args:
            watch: called after each epoch; it may end trials.
        """
        if not self.epoch:
            self._evaluate([True] * len(self.progress), [None] * len(self.progress))
        while self.epoch < until and self.is_running:
            self._train_epoch()
            watch(self)

    def take_running(self) -> list[tuple[TrialProgress, TrainState]]:
        """Bring the trials that have not ended to the host."""
        states = self._executor.take_states(self._states)
        pairs = zip(self.progress, states, strict=False)
        return [(one, state) for one, state in pairs if one.status == "running"]

    def _train_epoch(self) -> None:
        active = [one.status == "running" for one in self.progress]
        configs = [
            plateau.lower(one.trial.config, one.counters.plateau)
            for one in self.progress
        ]
        self._states, results = self._executor.train_epoch(
            self._states, configs, self.epoch, active
        )
        self.epoch += 1
        due = []
        for one, result in zip(self.progress, results, strict=True):
            if result is not None:
                one.epoch = self.epoch
                one.seconds += result.seconds
                if result.bad_step:
                    one.end(
                        "failed",
                        "the loss or its gradient is not finite at step "
                        f"{result.bad_step}",
                    )
            options = one.trial.config.train
            is_due = (
                self.epoch % options.eval_every_epochs == 0
                or self.epoch == options.epochs
            )
            due.append(one.status == "running" and is_due)
        self._renew_statistics(
            [
                one.status == "running" and self.epoch == one.trial.config.train.epochs
                for one in self.progress
            ]
        )
        self._evaluate(due, results)

    def _renew_statistics(self, ended: Sequence[bool]) -> None:
        """Compute batch normalisation's statistics again where training has ended."""
        if any(ended):
            self._states = self._executor.renew_statistics(
                self._states, [one.trial.config for one in self.progress], ended
            )

    def _evaluate(
        self, due: Sequence[bool], results: Sequence[EpochResult | None]
    ) -> None:
        """Evaluate the trials that are due; some end by their epochs or their loss."""
        if not any(due):
            return
        found = self._executor.evaluate(self._states, "validation", due)
        for one, metrics, result in zip(self.progress, found, results, strict=True):
            if metrics is not None:
                self._note(one, metrics, result)

    def _note(
        self, one: TrialProgress, found: dict[str, Any], result: EpochResult | None
    ) -> None:
        step, options = self.epoch * self._length, one.trial.config.train
        line: dict[str, Any] = {"epoch": self.epoch}
        if result is not None:
            line["train_loss"] = result.loss
            line[f"train_{self._task.train_metric}"] = result.metric
        line |= {f"validation_{name}": found[name] for name in self._task.compared}
        for name in ("loss", options.select_by):
            if not math.isfinite(found[name]):
                reason = f"the validation {name} is not finite after step {step}"
                one.end("failed", reason)
                return
        one.curve.append(line)
        one.thresholds = found.get("thresholds")
        one.counters.note_best(options, step, self.epoch, found)
        if self.epoch:
            one.counters.note_plateau(one.trial.config, found)
        if self.epoch == options.epochs or one.counters.stopped_early:
            one.end("finished")

    def conclude(self) -> list[tuple[Row, TrainState | None]]:
        """Test the trials that have finished and describe every trial.

        Returns:
            For each trial its row of the table, and the state of one that finished,
            None of the others.
        """
        finished = [one.status == "finished" for one in self.progress]
        tested = [None] * len(finished)
        states: list[TrainState | None] = [None] * len(finished)
        if any(finished):
            self._renew_statistics(
                [
                    is_done and one.counters.stopped_early
                    for is_done, one in zip(finished, self.progress, strict=True)
                ]
            )
            thresholds = [one.thresholds for one in self.progress]
            evaluate = self._executor.evaluate
            tested = evaluate(self._states, "test", finished, thresholds)
            states = self._executor.take_states(self._states)
        described = []
        for one, metrics, state in zip(self.progress, tested, states, strict=False):
            leaves = jax.tree.leaves(state) if one.status == "finished" else []
            if not all(np.isfinite(leaf).all() for leaf in leaves):
                one.end("failed", "the last update is not finite")
            kept = state if one.status == "finished" else None
            described.append((self._describe(one, metrics, kept), kept))
        return described

    def _describe(
        self,
        one: TrialProgress,
        tested: dict[str, Any] | None,
        state: TrainState | None,
    ) -> Row:
        row: Row = {
            "trial": one.trial.number,
            "options": dict(one.trial.options),
            "status": one.status,
            "reason": one.reason,
            "rung": one.rung,
            "executor": self._executor.name,
            "trained_epochs": one.epoch,
            "steps": one.epoch * self._length,
            "seconds": round(one.seconds, 4),
            "best_epoch": one.counters.best_epoch,
            "stopped_early": one.counters.stopped_early,
        }
        if one.status in ("finished", "pruned"):
            names = [f"validation_{name}" for name in self._task.compared]
            row |= {name: one.curve[-1][name] for name in names}
        if state is not None:
            row |= {f"test_{name}": tested[name] for name in self._task.tested}
            row["num_parameters"] = count_parameters(state.params)
            row["state_sha256"] = compute_state_sha256(state)
        if one.thresholds is not None:
            row["thresholds"] = one.thresholds
        if self._task is not MULTICLASS:
            row["task"] = self._task.name
        return row | {"curve": one.curve}


def start_batch(executor: Executor, trials: Sequence[Trial]) -> Batch:
    """Create the first states of some trials of a group."""
    return Batch(executor, [TrialProgress(trial) for trial in trials])


def regroup(executor: Executor, batches: Sequence[Batch]) -> list[Batch]:
    """Gather a group's trials that have not ended in as few batches as possible."""
    pairs = [pair for batch in batches for pair in batch.take_running()]
    starts = range(0, len(pairs), executor.width)
    groups = [zip(*pairs[i : i + executor.width], strict=True) for i in starts]
    return [Batch(executor, *group) for group in groups]
