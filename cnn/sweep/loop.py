"""Trials one after the other, in the very programs of a solo run.

An executor holds no trial: states go in and come out. `active` says which trials of a
batch take part; the others stay as they are. `stacked.Stacked` is the other executor.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn import devices
from cnn.records import find_bad_step
from cnn.run import Run
from cnn.state import TrainState
from cnn.train import iterate_calls

if TYPE_CHECKING:
    from cnn.config import Config


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """What an epoch of one trial came to.

    Attributes:
        losses: float32 [n], of each of its steps.
        loss: mean over its examples.
        accuracy: share of them.
        bad_step: the first step whose loss or gradient is not finite, None if none.
        seconds: its share of the time that training took.
    """

    losses: np.ndarray
    loss: float
    accuracy: float
    bad_step: int | None
    seconds: float


class Loop:
    """One trial after the other, in the very programs of a solo run."""

    name = "loop"

    def __init__(self, run: Run, width: int = 1) -> None:
        """Use a run's programs for batches of `width` trials."""
        self._run, self.width = run, width

    def create(self, configs: Sequence["Config"]) -> list[TrainState]:
        """Create the states before the first step."""
        states = []
        for config in configs:
            self._run.begin(config)
            states.append(self._run.state)
        return states

    def place(self, states: Sequence[TrainState]) -> list[TrainState]:
        """Bring the states of single trials to the devices."""
        mesh = self._run.mesh
        return [jax.device_put(s, devices.split_leaves(mesh, s)) for s in states]

    def train_epoch(
        self,
        states: list[TrainState],
        configs: Sequence["Config"],
        number: int,
        active: Sequence[bool],
        most: int | None = None,
    ) -> tuple[list[TrainState], list[EpochResult | None]]:
        """Train one epoch of every active trial.

        Args:
            states: before it; they may be overwritten.
            configs: of the trials.
            number: of the epoch, from 0.
            active: which trials take part.
            most: the steps after which to leave, for timing; None: all.

        Returns:
            The states after it and what it came to, None where not active.

        Raises:
            Interrupted: a signal arrived.
        """
        after, results = list(states), [None] * len(states)
        for i, takes_part in enumerate(active):
            if takes_part:
                after[i], results[i] = self._train_one(states[i], configs[i], most)
        return after, results

    def _train_one(
        self, state: TrainState, config: "Config", most: int | None
    ) -> tuple[TrainState, EpochResult]:
        run = self._run
        run.begin(config, state)
        losses, bad_step, before = [], None, run.step
        for ids, records in iterate_calls(run, most or run.task.steps_per_epoch):
            losses.append(records["loss"])
            bad_step = find_bad_step(records, run.step - len(ids))
            if bad_step or run.step - before == most:
                break
        seconds = run.records.epoch_seconds
        joined = np.concatenate(losses)
        return run.state, summarise_epoch(joined, run.sums, bad_step, seconds)

    def evaluate(
        self, states: list[TrainState], split: str, active: Sequence[bool]
    ) -> list[dict[str, Any] | None]:
        """Evaluate every active trial on a split; see `metrics.summarise`."""
        found = []
        for state, takes_part in zip(states, active, strict=True):
            self._run.state = state
            found.append(self._run.evaluate(split) if takes_part else None)
        return found

    def take_states(self, states: list[TrainState]) -> list[TrainState]:
        """Bring the states of the single trials to the host."""
        return jax.device_get(states)


def summarise_epoch(
    losses: np.ndarray, sums: Mapping[str, Any], bad_step: int | None, seconds: float
) -> EpochResult:
    """Divide an epoch's sums of one trial."""
    count = int(sums["count"])
    loss, accuracy = float(sums["loss"]) / count, int(sums["correct"]) / count
    return EpochResult(losses, loss, accuracy, bad_step, seconds)
