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

from cnn.records import Records, note_best
from cnn.report import TEST_METRICS
from cnn.state import TrainState, compute_state_sha256, count_parameters
from cnn.sweep.loop import EpochResult, Loop
from cnn.sweep.stacked import Stacked
from cnn.sweep.trials import Trial

Status = Literal["running", "finished", "pruned", "failed"]
VALIDATION_METRICS = ("accuracy", "balanced_accuracy", "loss")


@dataclasses.dataclass
class Progress:
    """How far a trial has come.

    Attributes:
        trial: the trial.
        status: `running` until it ends.
        reason: why it failed or was pruned.
        rung: at which, from 0, halving pruned it.
        epoch: epochs trained.
        records: its best epoch, and whether it stopped early.
        curve: a line for each evaluation: `epoch`, the training set's `train_loss`
            and `train_accuracy` over that epoch, and the validation metrics.
        seconds: its share of the time that training took.
    """

    trial: Trial
    status: Status = "running"
    reason: str = ""
    rung: int | None = None
    epoch: int = 0
    records: Records = dataclasses.field(default_factory=Records)
    curve: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def metric(self) -> float:
        """Return the newest validation metric that selects."""
        return self.curve[-1][f"validation_{self.trial.config.train.select_by}"]

    def end(self, status: Status, reason: str = "") -> None:
        """End the trial."""
        self.status, self.reason = status, reason


class Batch:
    """The trials of one call: their states, and how far each has come."""

    def __init__(
        self,
        executor: Loop | Stacked,
        progress: Sequence[Progress],
        steps_per_epoch: int,
        states: Sequence[TrainState] | None = None,
    ) -> None:
        """Take up trials that have come equally far.

        Args:
            executor: of their group.
            progress: at most as many as the executor is wide.
            steps_per_epoch: the length of an epoch.
            states: where they stand; None: before the first step.
        """
        self._executor, self._length = executor, steps_per_epoch
        self.progress = list(progress)
        self._configs = [one.trial.config for one in progress]
        self._states = (
            executor.create(self._configs) if states is None else executor.place(states)
        )
        self.epoch = progress[0].epoch

    @property
    def is_running(self) -> bool:
        """Return whether a trial has not ended."""
        return any(one.status == "running" for one in self.progress)

    def advance(self, until: int, watch: Callable[["Batch"], None]) -> None:
        """Train up to an epoch, or until every trial has ended.

        Args:
            until: the epoch, counted from the trials' beginning.
            watch: called after each epoch; it may end trials.

        Raises:
            Interrupted: a signal arrived.
        """
        if not self.epoch:
            self._evaluate([True] * len(self.progress), [None] * len(self.progress))
        while self.epoch < until and self.is_running:
            self._train_epoch()
            watch(self)

    def take_running(self) -> list[tuple[Progress, TrainState]]:
        """Bring the trials that have not ended to the host."""
        states = self._executor.take_states(self._states)
        pairs = zip(self.progress, states, strict=False)
        return [(one, state) for one, state in pairs if one.status == "running"]

    def _train_epoch(self) -> None:
        active = [one.status == "running" for one in self.progress]
        self._states, results = self._executor.train_epoch(
            self._states, self._configs, self.epoch, active
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
        self._evaluate(due, results)

    def _evaluate(
        self, due: Sequence[bool], results: Sequence[EpochResult | None]
    ) -> None:
        """Evaluate the trials that are due, and end those that have come to an end."""
        if not any(due):
            return
        found = self._executor.evaluate(self._states, "validation", due)
        for one, metrics, result in zip(self.progress, found, results, strict=True):
            if metrics is not None:
                self._note(one, metrics, result)

    def _note(
        self, one: Progress, found: dict[str, Any], result: EpochResult | None
    ) -> None:
        step, options = self.epoch * self._length, one.trial.config.train
        line: dict[str, Any] = {"epoch": self.epoch}
        if result is not None:
            line |= {"train_loss": result.loss, "train_accuracy": result.accuracy}
        line |= {f"validation_{name}": found[name] for name in VALIDATION_METRICS}
        if not math.isfinite(found["loss"]):
            one.end("failed", f"the validation loss is not finite after step {step}")
            return
        one.curve.append(line)
        note_best(one.records, options, step, self.epoch, found)
        if self.epoch == options.epochs or one.records.stopped_early:
            one.end("finished")

    def conclude(self) -> list[tuple[dict[str, Any], TrainState | None]]:
        """Say what became of every trial that has ended.

        Returns:
            For each trial its record, as JSON, and the state of one that finished,
            None of the others.
        """
        finished = [one.status == "finished" for one in self.progress]
        tested = [None] * len(finished)
        states: list[TrainState | None] = [None] * len(finished)
        if any(finished):
            tested = self._executor.evaluate(self._states, "test", finished)
            states = self._executor.take_states(self._states)
        told = []
        for one, metrics, state in zip(self.progress, tested, states, strict=False):
            if one.status == "finished" and not _is_finite(state):
                one.end("failed", "the last update is not finite")
            is_good = one.status == "finished"
            told.append(
                (
                    self._describe(one, metrics, state if is_good else None),
                    state if is_good else None,
                )
            )
        return told

    def _describe(
        self, one: Progress, tested: dict[str, Any] | None, state: TrainState | None
    ) -> dict[str, Any]:
        record: dict[str, Any] = {
            "trial": one.trial.number,
            "options": dict(one.trial.options),
            "status": one.status,
            "reason": one.reason,
            "rung": one.rung,
            "executor": self._executor.name,
            "trained_epochs": one.epoch,
            "steps": one.epoch * self._length,
            "seconds": round(one.seconds, 4),
            "best_epoch": one.records.best_epoch,
            "stopped_early": one.records.stopped_early,
        }
        if one.status in ("finished", "pruned"):
            names = [f"validation_{name}" for name in VALIDATION_METRICS]
            record |= {name: one.curve[-1][name] for name in names}
        if state is not None:
            record |= {f"test_{name}": tested[name] for name in TEST_METRICS}
            record["num_parameters"] = count_parameters(state.params)
            record["state_sha256"] = compute_state_sha256(state)
        return record | {"curve": one.curve}


def _is_finite(state: TrainState) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
