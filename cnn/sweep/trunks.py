"""Trials that differ in their length alone share the steps before their decays.

Under `--schedule=stable_then_decay` the longest is trained; where the decay of another
one begins within the next epoch, that one branches off with the state that it would
have, and is trained to its end. Each ends with the bits of a trial on its own.
"""

import copy
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from cnn.config import Config
from cnn.sweep.batch import Batch, TrialProgress, start_batch
from cnn.sweep.executors import Executor
from cnn.sweep.trials import Trial
from cnn.training import trunk
from cnn.training.state import TrainState

# What trials of one trunk may differ in.
_BRANCHING = ("epochs", "decay_share", "decay_power")


@dataclasses.dataclass(frozen=True)
class Family:
    """Trials of one trunk.

    Attributes:
        longest: whose trunk has them all.
        branches: the others, with the epoch at which each leaves the trunk.
    """

    longest: Trial
    branches: tuple[tuple[int, Trial], ...] = ()

    @property
    def trials(self) -> list[Trial]:
        """Return all, the longest first."""
        return [self.longest, *(trial for _, trial in self.branches)]

    def count_epochs(self) -> int:
        """Count the epochs that are trained for all together."""
        own = [trial.config.train.epochs - epoch for epoch, trial in self.branches]
        return self.longest.config.train.epochs + sum(own)


def make_families(trials: Sequence[Trial], steps_per_epoch: int) -> list[Family]:
    """Group trials of one program by their trunk, in the order of their first ones.

    Those without a trunk, or whose average depends on their length, stand alone.
    """
    found: dict[str, list[tuple[int, Trial]]] = {}
    for trial in trials:
        epoch = _find_epoch(trial.config, steps_per_epoch)
        options = trial.config.select_run_options()
        name = json.dumps({n: x for n, x in options.items() if n not in _BRANCHING})
        found.setdefault(name if epoch else trial.identity, []).append((epoch, trial))
    return [_make_family(members) for members in found.values()]


def _find_epoch(config: Config, steps_per_epoch: int) -> int:
    """Find the last epoch of a trial's trunk; 0 where it shares none."""
    is_one = config.schedule.schedule == trunk.DECAYS
    if not is_one or config.averaging.lookahead_decay:
        return 0
    return trunk.find_trunk(config, steps_per_epoch) // steps_per_epoch


def _make_family(members: Sequence[tuple[int, Trial]]) -> Family:
    longest = max(members, key=lambda one: (one[0], one[1].config.train.epochs))
    others = [one for one in members if one is not longest]
    others.sort(key=lambda one: one[0])
    return Family(longest[1], tuple(others))


def describe(families: Sequence[Family]) -> list[str]:
    """Write how many epochs are saved; nothing where none are."""
    alone = sum(t.config.train.epochs for family in families for t in family.trials)
    together = sum(family.count_epochs() for family in families)
    if alone == together:
        return []
    return [
        f"trunks    {sum(bool(family.branches) for family in families)} shared by "
        f"trials that differ in their length: {together} epochs in place of {alone}"
    ]


def iterate(
    executor: Executor, families: Sequence[Family], watch: Callable[[Batch], None]
) -> Iterator[Batch]:
    """Train some families of a group, at most as many as the executor is wide.

    Args:
        watch: as of `Batch.advance`.

    Yields:
        Batches of trials that have ended. A trial whose trunk has ended before it
        branches off, as by early stopping, comes from its own start.
    """
    stem, alone = start_batch(executor, [family.longest for family in families]), []
    for epoch in sorted({epoch for family in families for epoch, _ in family.branches}):
        stem.advance(epoch, watch)
        found, left = _branch(stem, families, epoch)
        alone += left
        for i in range(0, len(found), executor.width):
            some, states = zip(*found[i : i + executor.width], strict=True)
            yield _train(Batch(executor, some, states), watch)
    yield _train(stem, watch)
    for i in range(0, len(alone), executor.width):
        yield _train(start_batch(executor, alone[i : i + executor.width]), watch)


def _train(batch: Batch, watch: Callable[[Batch], None]) -> Batch:
    batch.advance(sys.maxsize, watch)
    return batch


def _branch(
    stem: Batch, families: Sequence[Family], epoch: int
) -> tuple[list[tuple[TrialProgress, TrainState]], list[Trial]]:
    """Branch off those trials that leave the trunks at an epoch.

    Returns:
        How far each has come, and its state on the host; and those whose trunk has
        ended.
    """
    running = {one.trial.number: (one, state) for one, state in stem.take_running()}
    found, left = [], []
    for family in families:
        own = [trial for first, trial in family.branches if first == epoch]
        if family.longest.number not in running:
            left += own
            continue
        one, state = running[family.longest.number]
        # Copies: the next steps of the trunk overwrite its arrays.
        found += [
            (_copy(one, trial), jax.tree.map(lambda x: np.array(x, copy=True), state))
            for trial in own
        ]
    return found, left


def _copy(one: TrialProgress, trial: Trial) -> TrialProgress:
    """Return how far a trial has come that has come as far as another one."""
    return dataclasses.replace(copy.deepcopy(one), trial=trial)
