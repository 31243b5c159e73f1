"""Trials of a batch together, in one program with one more axis.

As `loop.Loop`, it holds no trial: states go in and come out.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn import devices, metrics, steps
from cnn.data.order import make_epoch_order, make_eval_order
from cnn.errors import UserError
from cnn.progress import Pace
from cnn.records import find_bad_step
from cnn.run import Run
from cnn.state import TrainState, create_state, get_variables
from cnn.sweep import programs
from cnn.sweep.loop import EpochResult, summarise_epoch
from cnn.transfer import freezing

if TYPE_CHECKING:
    from cnn.config import Config

STACKED = {
    "map": ("map", False),
    "vmap": ("vmap", False),
    "shard": ("map", True),
    "shard_vmap": ("vmap", True),
}


def find_obstacle(run: Run) -> str:
    """Say why trials of a run cannot be stacked, and the remedy; empty if they can."""
    if not run.loaders["train"].is_resident:
        return "needs images on the device, not streamed; use --resident=always"
    if len(run.plan.phases) > 1:
        return "is one program, and --unfreeze makes several; leave it out"
    if run.program.task.takes_features:
        return "computes on images; use --cache_features=never"
    return ""


def check_stackable(name: str, run: Run) -> None:
    """Refuse an executor that a run does not allow.

    Raises:
        UserError: naming the remedies.
    """
    obstacle = find_obstacle(run) if name in STACKED else ""
    if obstacle:
        raise UserError(f"--executor={name} {obstacle} or --executor=loop")


class Stacked:
    """All trials of a batch in one program."""

    def __init__(self, run: Run, name: str, width: int) -> None:
        """Build the programs, without compiling.

        Args:
            run: what its task and its images are taken of.
            name: one of `STACKED`.
            width: T, the trials of a batch; when they are spread over devices, rounded
                up to a multiple of those.
        """
        axis, is_spread = STACKED[name]
        chosen = list(run.mesh.devices.flat)[: None if is_spread else 1]
        self._run, self.name = run, name
        each = -(-width // len(chosen))
        self.width = each * len(chosen)
        # Neighbours go to different devices, so that a batch that is not full, or in
        # which trials have ended, keeps all of them busy: the trial at position i of a
        # batch has lane _lanes[i] of the stacked arrays.
        self._lanes = np.arange(self.width).reshape(len(chosen), each).T.reshape(-1)
        mesh = programs.make_trials_mesh(chosen)
        self._sharding, everywhere = programs.stacked(mesh), devices.replicated(mesh)
        self._images = {
            split: jax.device_put(loader.resident, everywhere)
            for split, loader in run.loaders.items()
        }
        task, shape = run.program.task, run.image_shape
        trained = freezing.list_trained(task.phase)
        self._create = jax.jit(
            programs.over_trials(
                lambda taken, numbers: create_state(
                    task.model, shape, task.optimizer, numbers, taken, trained
                ),
                axis,
                mesh,
            )
        )
        self._train = programs.make_train_trials(task, axis, mesh)
        self._compiled_train: Any = None
        self._evaluate = programs.make_eval_trials(task, axis, mesh)
        self._pace, self._call_seconds = Pace(), 0.0

    def create(self, configs: Sequence["Config"]) -> TrainState:
        """Create the states before the first step, stacked."""
        return self._create(self._run.plan.taken, self._stack_numbers(configs))

    def place(self, states: Sequence[TrainState]) -> TrainState:
        """Bring the states of single trials to the devices."""
        return self._stack(states)

    def train_epoch(
        self,
        states: TrainState,
        configs: Sequence["Config"],
        number: int,
        active: Sequence[bool],
        most: int | None = None,
    ) -> tuple[TrainState, list[EpochResult | None]]:
        """Train one epoch of every active trial; as `Loop.train_epoch`."""
        run, running = self._run, np.array(self._fill(active, False))
        size = len(run.loaders["train"])
        orders = {
            seed: make_epoch_order(seed, number, size, run.config.step.batch_size)
            for seed in {config.train.seed for config in configs}
        }
        order = self._stack([orders[config.train.seed] for config in configs])
        numbers = self._stack_numbers(configs)
        sums = self._stack([steps.create_train_sums()])
        length = run.task.steps_per_epoch
        first, until = 0, min(most or length, length)
        losses, bad_steps = [], [None] * len(configs)
        seconds = np.zeros(self.width)
        while first < until and running.any():
            count = self._pace.choose_steps(until - first)
            states, sums, records = self._take_steps(
                states, sums, order, numbers, first, first + count * running
            )
            losses.append(records["loss"])
            seconds += running * self._call_seconds / running.sum()
            for i in np.flatnonzero(running):
                own = {name: values[i] for name, values in records.items()}
                bad_steps[i] = find_bad_step(own, number * length + first)
                running[i] = bad_steps[i] is None
            first += count
            run.stop.check()
        results, sums = [None] * len(configs), self._unstack(sums)
        for i in np.flatnonzero(active):
            own = np.concatenate([values[i] for values in losses])
            total = {name: values[i] for name, values in sums.items()}
            results[i] = summarise_epoch(own, total, bad_steps[i], float(seconds[i]))
        return states, results

    def evaluate(
        self, states: TrainState, split: str, active: Sequence[bool]
    ) -> list[dict[str, Any] | None]:
        """Evaluate every active trial on a split; as `Loop.evaluate`."""
        run, running = self._run, np.array(self._fill(active, False))
        size = len(run.loaders[split])
        positions, mask = make_eval_order(size, run.config.step.batch_size)
        shared = self._images[split] | {"positions": positions, "mask": mask}
        sums = self._stack([metrics.create_sums(run.task.num_classes)])
        pace, first, until = Pace(), 0, len(positions)
        while first < until:
            count, started = pace.choose_steps(until - first), time.perf_counter()
            bounds = self._make_bounds(first, first + count * running)
            sums = self._evaluate(shared, get_variables(states), sums, *bounds)
            jax.block_until_ready(sums)
            pace.note((time.perf_counter() - started) / count)
            first += count
            run.stop.check()
        sums = self._unstack(sums)
        return [
            metrics.summarise({n: x[i] for n, x in sums.items()})
            if running[i]
            else None
            for i in range(len(active))
        ]

    def take_states(self, states: TrainState) -> list[TrainState]:
        """Bring the states of the single trials to the host."""
        states = self._unstack(states)
        return [jax.tree.map(lambda x, i=i: x[i], states) for i in range(self.width)]

    def _take_steps(self, *arguments: Any) -> tuple[TrainState, Any, dict]:
        """Call the training program, compiled when first called."""
        *arguments, first, last = arguments
        bounds = self._make_bounds(first, last)
        arguments = (self._images["train"], *arguments, *bounds)
        if self._compiled_train is None:
            self._compiled_train = self._train.lower(*arguments).compile()
            self._run.stop.check()
        started = time.perf_counter()
        states, sums, records = self._compiled_train(*arguments)
        steps_taken = np.max(last) - first
        records = {
            name: values[:, first : first + steps_taken]
            for name, values in self._unstack(records).items()
        }
        self._call_seconds = time.perf_counter() - started
        self._pace.note(self._call_seconds / steps_taken)
        return states, sums, records

    def _make_bounds(self, first: int, last: np.ndarray) -> tuple[jax.Array, jax.Array]:
        firsts = np.full(self.width, first, np.int32)
        return self._stack(list(firsts)), self._stack(list(np.int32(last)))

    def _stack_numbers(self, configs: Sequence["Config"]) -> dict[str, Any]:
        return self._stack([config.make_hyperparameters() for config in configs])

    def _stack(self, trees: Sequence[Any]) -> Any:
        """Stack what the trials of a batch have, each in its lane."""
        filled = self._fill(trees)
        by_lane = [filled[i] for i in np.argsort(self._lanes)]
        whole = jax.tree.map(lambda *x: np.stack(x), *by_lane)
        return jax.device_put(whole, self._sharding)

    def _unstack(self, tree: Any) -> Any:
        """Bring stacked arrays to the host, in the order of the batch."""
        return jax.tree.map(lambda x: x[self._lanes], jax.device_get(tree))

    def _fill(self, values: Sequence[Any], filler: Any = None) -> list[Any]:
        """Fill a batch up to its width, with its last value where none is given."""
        filler = values[-1] if filler is None else filler
        return [*values, *[filler] * (self.width - len(values))]
