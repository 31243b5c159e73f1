"""How the trials of a batch are run: one after the other, or together in one program.

An executor holds no trial: states go in and come out. `active` says which trials of a
batch take part; the others stay as they are.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cnn.config import Config
from cnn.data.order import draw_epoch, make_eval_order
from cnn.errors import UserError
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.sweep import programs
from cnn.training import epoch, metrics, multilabel, progress, statistics, steps
from cnn.training.epoch import Pace
from cnn.training.progress import Progress, find_bad_step
from cnn.training.setup import Setup
from cnn.training.state import TrainState, get_variables
from cnn.training.tasks import Task

Thresholds = tuple[float, ...] | None
STACKED = {
    "map": ("map", False),
    "vmap": ("vmap", False),
    "shard": ("map", True),
    "shard_vmap": ("vmap", True),
}


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """What one trial's epoch gave.

    Attributes:
        losses: float32 [n], of each step.
        loss: mean over examples.
        metric: `Task.train_metric`.
        bad_step: the first step whose loss or gradient is not finite, None if none.
        seconds: the trial's share of the time that training took.
    """

    losses: np.ndarray
    loss: float
    metric: float
    bad_step: int | None
    seconds: float


def _summarise(
    task: Task,
    losses: np.ndarray,
    sums: Mapping[str, Any],
    bad_step: int | None,
    seconds: float,
) -> EpochResult:
    loss, metric, _ = task.divide(sums)
    return EpochResult(losses, loss, metric, bad_step, seconds)


def find_obstacle(setup: Setup) -> str:
    """Return why trials of a setup cannot be stacked, and the remedy; else empty."""
    if not setup.loaders["train"].is_resident:
        return "needs images on the device, not streamed; use --resident=always"
    if len(setup.phases) > 1:
        flags = "--unfreeze or --image_size_schedule"
        return f"is one program, and {flags} makes several; leave it out"
    if setup.phases[0].structure.takes_features:
        return "computes on images; use --cache_features=never"
    return ""


def check_stackable(name: str, setup: Setup) -> None:
    """Refuse an executor that a setup does not allow, naming the remedies."""
    obstacle = find_obstacle(setup) if name in STACKED else ""
    if obstacle:
        raise UserError(f"--executor={name} {obstacle} or --executor=loop")


def is_shortage(error: BaseException) -> bool:
    """Return whether an error is that of too little memory."""
    if isinstance(error, UserError) and error.__cause__ is not None:
        error = error.__cause__  # as `memory.explain_shortage` explains it
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and "RESOURCE_EXHAUSTED" in str(error)
    )


@contextlib.contextmanager
def explain_shortage(count: int) -> Iterator[None]:
    """Turn a lack of memory for `count` trials at once into a message.

    Raises:
        UserError: there was too little memory for what was done inside.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError, UserError) as error:
        if not is_shortage(error):
            raise
        raise UserError(
            f"{count} trials at once do not fit in memory; lower --trials_at_once, or "
            "use --executor=loop"
        ) from error


class Loop:
    """One trial after the other, in the very programs of a solo run."""

    name = "loop"

    def __init__(self, setup: Setup, stop: Stop, width: int = 1) -> None:
        """Use a setup's programs for batches of `width` trials."""
        self._setup, self._stop, self.width = setup, stop, width
        self.steps_per_epoch = setup.structure.steps_per_epoch
        self.task = setup.structure.task
        self._pace, self._profiler = Pace(), Profiler(ProfileOptions(), 0)
        self._last: tuple[Progress, Setup] | None = None

    def create(self, configs: Sequence[Config]) -> list[Progress]:
        """Create the states before the first step."""
        return [progress.begin(self._setup.with_numbers(config)) for config in configs]

    def place(
        self, states: Sequence[TrainState], configs: Sequence[Config]
    ) -> list[Progress]:
        """Bring the states of single trials to the devices."""
        mesh = self._setup.mesh
        return [
            progress.stand(
                self._setup.with_numbers(config),
                jax.device_put(state, devices.split_leaves(mesh, state)),
                {},
            )
            for state, config in zip(states, configs, strict=True)
        ]

    def train_epoch(
        self,
        trials: list[Progress],
        configs: Sequence[Config],
        number: int,
        active: Sequence[bool],
        most: int | None = None,
    ) -> tuple[list[Progress], list[EpochResult | None]]:
        """Train one epoch of every active trial.

        Args:
            trials: overwritten.
            number: of the epoch, from 0.
            most: the steps after which to leave, for timing; None: all.

        Returns:
            The trials after it, and their results, None where not active.
        """
        results = [
            self._train_one(one, config, most) if takes_part else None
            for one, config, takes_part in zip(trials, configs, active, strict=True)
        ]
        return trials, results

    def _train_one(
        self, one: Progress, config: Config, most: int | None
    ) -> EpochResult:
        setup, before = self._setup.with_numbers(config), one.step
        if self._last is not None and self._last[0] is not one:
            self._last[0].renew_loaders(self._last[1])  # one trial's features at a time
        self._last = one, setup
        one.start_epoch()
        losses, bad_step = [], None
        interval = most or self.steps_per_epoch
        taken = progress.take_epoch(
            setup, one, self._stop, self._pace, self._profiler, interval
        )
        with contextlib.closing(taken):
            for ids, step_metrics in taken:
                losses.append(step_metrics["loss"])
                bad_step = find_bad_step(step_metrics, one.step - len(ids))
                if bad_step or one.step - before == most:
                    break
        seconds = one.counters.epoch_seconds
        task = setup.structure.task
        return _summarise(task, np.concatenate(losses), one.sums, bad_step, seconds)

    def evaluate(
        self,
        trials: list[Progress],
        split: str,
        active: Sequence[bool],
        thresholds: Sequence[Thresholds] = (),
    ) -> list[dict[str, Any] | None]:
        """Evaluate every active trial on a split; see `progress.evaluate`.

        Args:
            thresholds: of each trial's classes, for the test set; empty: none.
        """
        for one, own in zip(trials, thresholds, strict=False):
            one.thresholds = own
        return [
            progress.evaluate(self._setup, one, split, self._stop)
            if takes_part
            else None
            for one, takes_part in zip(trials, active, strict=True)
        ]

    def renew_statistics(
        self, trials: list[Progress], configs: Sequence[Config], active: Sequence[bool]
    ) -> list[Progress]:
        """Compute the statistics of every active trial, as of `statistics.renew`."""
        for one, config, takes_part in zip(trials, configs, active, strict=True):
            if takes_part:
                setup = self._setup.with_numbers(config)
                one.state = statistics.renew(setup, one.phase, one.state, self._stop)
        return trials

    def take_states(self, trials: list[Progress]) -> list[TrainState]:
        """Bring the states of the single trials to the host."""
        return jax.device_get([one.state for one in trials])


class Stacked:
    """All trials of a batch in one program with one more axis."""

    def __init__(self, setup: Setup, stop: Stop, name: str, width: int) -> None:
        """Make the programs, without compiling.

        Args:
            name: one of `STACKED`.
            width: T, the trials of a batch; when they are spread over devices, rounded
                up to a multiple of those.
        """
        axis, is_spread = STACKED[name]
        chosen = list(setup.mesh.devices.flat)[: None if is_spread else 1]
        self._setup, self._stop, self.name = setup, stop, name
        self.steps_per_epoch = setup.structure.steps_per_epoch
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
            for split, loader in setup.loaders.items()
        }
        self._teacher = jax.device_put(setup.teacher_variables, everywhere)
        structure = setup.phases[0].structure
        self._create = programs.make_create_trials(
            structure, setup.image_shape, axis, mesh
        )
        self._train = programs.make_train_trials(structure, axis, mesh)
        self.task = structure.task
        evaluated = setup.for_evaluation(structure)
        self._evaluate = programs.make_eval_trials(evaluated, axis, mesh)
        self._pace = Pace()

    def create(self, configs: Sequence[Config]) -> TrainState:
        """Create the states before the first step, stacked."""
        return self._create(self._setup.plan.taken, self._stack_numbers(configs))

    def place(
        self, states: Sequence[TrainState], configs: Sequence[Config]
    ) -> TrainState:
        """Bring the states of single trials to the devices."""
        del configs
        return self._stack(states)

    def train_epoch(
        self,
        states: TrainState,
        configs: Sequence[Config],
        number: int,
        active: Sequence[bool],
        most: int | None = None,
    ) -> tuple[TrainState, list[EpochResult | None]]:
        """Train one epoch of every active trial; as `Loop.train_epoch`."""
        running = np.array(self._fill(active, False))
        length = self.steps_per_epoch
        chunk = self._stack_orders(configs, number)
        numbers = self._stack_numbers(configs)
        shared = self._images["train"], self._teacher
        classes = self._setup.structure.num_classes
        sums = self._stack([steps.create_train_sums(self.task, classes)])
        losses, bad_steps = [], [None] * len(configs)
        seconds, until = np.zeros(self.width), min(most or length, length)

        def make_arguments(chunk: Any, first: int, last: int) -> tuple:
            bounds = self._make_bounds(first, last, running)
            return shared, states, chunk, sums, numbers, bounds

        for first, last, results, took in self._run_chunks(
            self._train, (0, until, chunk), make_arguments, self._pace
        ):
            states, sums, filled = results
            taken = {n: x[:, first:last] for n, x in self._unstack(filled).items()}
            losses.append(taken["loss"])
            seconds += running * took / running.sum()
            for i in np.flatnonzero(running):
                own = {name: values[i] for name, values in taken.items()}
                bad_steps[i] = find_bad_step(own, number * length + first)
                running[i] = bad_steps[i] is None
            if not running.any():
                break
        ended, totals = [None] * len(configs), self._unstack(sums)
        for i in np.flatnonzero(active):
            own = np.concatenate([values[i] for values in losses])
            total = {name: values[i] for name, values in totals.items()}
            took = float(seconds[i])
            ended[i] = _summarise(self.task, own, total, bad_steps[i], took)
        return states, ended

    def evaluate(
        self,
        states: TrainState,
        split: str,
        active: Sequence[bool],
        thresholds: Sequence[Thresholds] = (),
    ) -> list[dict[str, Any] | None]:
        """Evaluate every active trial on a split; as `Loop.evaluate`."""
        running = np.array(self._fill(active, False))
        size, step = len(self._setup.loaders[split]), self._setup.config.step
        positions, mask = make_eval_order(size, step.batch_size)
        shared = self._images[split] | {"positions": positions, "mask": mask}
        sums = self._stack([self.task.create_sums(self._setup.structure.num_classes)])
        variables = get_variables(states)

        def make_arguments(shared: Any, first: int, last: int) -> tuple:
            bounds = self._make_bounds(first, last, running)
            return shared, variables, sums, bounds

        examples = []
        for first, last, results, _ in self._run_chunks(
            self._evaluate, (0, len(positions), shared), make_arguments, Pace()
        ):
            sums = results
            if self.task.keeps_examples:
                sums, found = results
                found = {name: x[:, first:last] for name, x in found.items()}
                own = mask[first:last]
                examples.append({n: x[:, own] for n, x in self._unstack(found).items()})
        totals = self._unstack(sums)
        thresholds = thresholds or [None] * len(active)
        return [
            self._measure(split, i, totals, examples, thresholds[i])
            if running[i]
            else None
            for i in range(len(active))
        ]

    def renew_statistics(
        self, states: TrainState, configs: Sequence[Config], active: Sequence[bool]
    ) -> TrainState:
        """Compute the statistics of every active trial, one after the other."""
        if not self._setup.config.train.recompute_statistics:
            return states
        single = self.take_states(states)[: len(configs)]
        everywhere = devices.replicated(self._setup.mesh)
        for i in np.flatnonzero(active):
            setup = self._setup.with_numbers(configs[i])
            placed = jax.device_put(single[i], everywhere)
            single[i] = statistics.renew(setup, 0, placed, self._stop)
        return self._stack(jax.device_get(single))

    def _measure(
        self,
        split: str,
        i: int,
        totals: dict[str, np.ndarray],
        examples: list[dict[str, np.ndarray]],
        thresholds: Thresholds,
    ) -> dict[str, Any]:
        """Compute the metrics of the trial at place i of a batch."""
        if not self.task.keeps_examples:
            return metrics.summarise({n: x[i] for n, x in totals.items()})
        labels = self._setup.loaders[split].labels
        logits, losses = (
            np.concatenate([x[name][i] for x in examples])
            for name in ("logits", "loss")
        )
        if split == "test":
            return multilabel.summarise(logits, labels, losses, thresholds)
        found = multilabel.summarise(logits, labels, losses)
        return found | {"thresholds": multilabel.tune_thresholds(logits, labels)}

    def take_states(self, states: TrainState) -> list[TrainState]:
        """Bring the states of the single trials to the host."""
        states = self._unstack(states)
        return [jax.tree.map(lambda x, i=i: x[i], states) for i in range(self.width)]

    def _run_chunks(
        self, program: Any, chunk: tuple, make_arguments: Any, pace: Pace
    ) -> Any:
        # Lack of memory is the caller's to explain: fewer trials may fit.
        return epoch.run_chunks(
            program,
            [chunk],
            make_arguments,
            self._stop,
            pace,
            around=lambda *call: contextlib.nullcontext(),
        )

    def _make_bounds(
        self, first: int, last: int, running: np.ndarray
    ) -> tuple[jax.Array, jax.Array]:
        firsts = np.full(self.width, first, np.int32)
        lasts = np.int32(first + (last - first) * running)
        return self._stack(list(firsts)), self._stack(list(lasts))

    def _stack_orders(self, configs: Sequence[Config], number: int) -> epoch.Chunk:
        """Stack what each trial sees in an epoch, arrays [T, S, B]."""
        labels = self._setup.loaders["train"].labels
        options = self._setup.config.step
        how = options.batch_size, options.sampling, options.repeats_in_batch
        orders = {
            seed: draw_epoch(seed, number, labels, *how)
            for seed in {config.train.seed for config in configs}
        }
        return self._stack([orders[config.train.seed] for config in configs])

    def _stack_numbers(self, configs: Sequence[Config]) -> Any:
        return self._stack([config.make_numbers() for config in configs])

    def _stack(self, trees: Sequence[Any]) -> Any:
        """Stack the trees of a batch's trials, each in its lane."""
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


Executor = Loop | Stacked
