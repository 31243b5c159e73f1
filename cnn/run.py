"""One training run: built once from its options, resumed from its checkpoints."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn import checkpoint, describe, devices, epoch, manifest, profiling, steps
from cnn.data import load_dataset
from cnn.data.chunks import Loader
from cnn.interrupt import Stop
from cnn.models import remat
from cnn.optimizer import Hyperparameters
from cnn.program import Program
from cnn.progress import Pace, Terminal
from cnn.records import Records
from cnn.state import (
    TrainState,
    create_state,
    get_variables,
    get_weights,
    replace_leaves,
)
from cnn.task import make_task
from cnn.transfer import freezing, plan, proof, start
from cnn.transfer.features import FeatureLoaders
from cnn.transfer.trunk import choose_cache

if TYPE_CHECKING:
    from cnn.config import Config


class Run:
    """A run between two checkpoints.

    `state`, `sums` (the current epoch's metric sums) and `records` change as it goes
    on; they are exactly what a checkpoint holds, and come from `restore` or `begin`.
    The rest is fixed.
    """

    def __init__(
        self,
        config: "Config",
        directory: Path,
        terminal: Terminal,
        stop: Stop,
        like: "Run | None" = None,
    ) -> None:
        """Load the data, check everything, and build the programs without compiling.

        Args:
            config: every option.
            directory: the run's.
            terminal: where to print.
            stop: looked at between calls of compiled programs.
            like: a run whose data are shared, where they are the same.

        Raises:
            UserError: an option, the data or the model does not fit the others.
        """
        self.config, self.directory = config, directory
        self.terminal, self.stop = terminal, stop
        self._started = time.perf_counter()
        self.mesh = devices.make_mesh(config.device.mesh)
        pieces = config.step.accumulate_steps
        devices.check_batch_size(config.step.batch_size, self.mesh, pieces)
        shares_data = like is not None and like.config.data == config.data
        self.dataset = like.dataset if shares_data else load_dataset(config.data)
        for note in () if shares_data else self.dataset.notes:
            terminal.say(note)
        self._newest, damaged = manifest.find_newest(directory / "checkpoints")
        for line in damaged:
            terminal.say(line)
        self._stored = manifest.read_description(self._newest) if self._newest else {}
        source, pixels = start.open_start(config, self._stored, self.dataset, terminal)
        task = make_task(config, self.dataset, pixels)
        size, stored = config.data.image_size, self.dataset.train.shape
        self.image_shape = (size, size, stored[2]) if size else stored
        self.description = describe.describe_model(task.model, self.image_shape)
        remat.check(config.model, self.description["layers"])
        start_of = config, source, self._stored, task
        self.plan = plan.make_plan(*start_of, self.description, self.dataset, terminal)
        self.task = dataclasses.replace(task, rates=self.plan.rates)
        self.profiler = profiling.Profiler(config.profile, self.total_steps)
        self.loaders = like.loaders if shares_data else self._make_loaders()
        self.eval_split = "validation" if "validation" in self.loaders else "test"
        self._everywhere = devices.replicated(self.mesh)
        self.hyperparameters = config.make_hyperparameters()
        self._built: dict[int, tuple[Program, Callable[..., TrainState]]] = {}
        self._enter(0)
        self.frozen, self.pace, self._seconds_before = {}, Pace(), 0.0

    @property
    def step(self) -> int:
        """Return the number of steps taken."""
        return int(self.state.step)

    @property
    def total_steps(self) -> int:
        """Return the number of steps of the whole run."""
        return self.config.train.epochs * self.task.steps_per_epoch

    @property
    def has_ended(self) -> bool:
        """Return whether no step is left to take."""
        return self.step >= self.total_steps or self.records.stopped_early

    @property
    def checkpoint_interval(self) -> int:
        """Return the steps between checkpoints."""
        every = self.config.checkpoint.checkpoint_every_epochs
        return max(1, round(every * self.task.steps_per_epoch))

    def restore(self) -> None:
        """Take up the newest whole checkpoint, or begin anew."""
        if not self._newest:
            self.begin(self.config)
            return
        self._choose_phase(int(self._newest.name))
        shapes = jax.eval_shape(self._create, self.hyperparameters, {})
        shapes = shapes, jax.eval_shape(steps.create_train_sums)
        like = checkpoint.abstract(shapes, devices.split_leaves(self.mesh, shapes))
        self.state, self.sums, _ = checkpoint.load_state(self._newest, *like)
        self.records = Records(**self._stored["records"])
        self.frozen = self._stored.get("transfer", {}).get("frozen", {})
        self._seconds_before = self.records.seconds
        self.profiler.check_ahead(self.step)
        self.terminal.say(f"going on from step {self.step} of {self.total_steps}")

    def begin(self, config: "Config", state: TrainState | None = None) -> None:
        """Take up another run of the same static part.

        Args:
            config: its options.
            state: where it stands, between two epochs; None: before its first step.
        """
        goes_on = state is not None and config == self.config
        self.config, self.hyperparameters = config, config.make_hyperparameters()
        if not goes_on:
            self._choose_phase(0)
            self.program.forget()
            self.state = self._create(self.hyperparameters, self.plan.taken)
            whole = devices.gather(self.mesh, get_weights(self.state))
            taken = replace_leaves(whole, self.plan.taken)
            self.frozen = proof.hash_frozen(self.plan.phases[0], taken)
        if state is not None:
            self.state = state
            self._choose_phase(self.step)
        self.sums = devices.put(self._everywhere, steps.create_train_sums())
        self.records = Records()

    def enter_phase(self) -> None:
        """Let train what thaws before the next step, its optimizer state at zero."""
        phase = self.phase
        self._choose_phase(self.step + 1)
        if self.phase != phase:
            fresh = self._create(self.hyperparameters, get_weights(self.state))
            opt_state = freezing.carry_over(self.state.opt_state, fresh.opt_state)
            self.state = self.state.replace(opt_state=opt_state)

    def take_steps(
        self, chunk: epoch.Chunk, first: int, last: int
    ) -> dict[str, np.ndarray]:
        """Take steps first … last - 1 of a chunk; see `Program.take_steps`."""
        watch = self.profiler.watch(self.step, last - first)
        self.state, self.sums, records, seconds = self.program.take_steps(
            self.state, self.sums, chunk, self.hyperparameters, first, last, watch
        )
        self.pace.note(seconds / (last - first))
        self.records.train_seconds += seconds
        self.records.epoch_seconds += seconds
        return records

    def evaluate(self, split: str) -> dict[str, Any]:
        """Evaluate the current weights; see `evaluate.compute_metrics`."""
        return self.program.evaluate(get_variables(self.state), split)

    def update_seconds(self) -> None:
        """Bring the record of the run's time up to now."""
        passed = time.perf_counter() - self._started
        self.records.seconds = self._seconds_before + passed

    def describe_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint says of itself, as JSON."""
        return {
            "options": self.config.to_flat(),
            "class_names": list(self.dataset.class_names),
            "image_shape": list(self.image_shape),
            "mean": list(self.task.mean),
            "std": list(self.task.std),
            "records": dataclasses.asdict(self.records),
        } | self.plan.describe(self.phase, self.frozen)

    def _make_loaders(self) -> dict[str, Loader]:
        return {
            split: Loader(images, self.config.data, self.mesh)
            for split in ("train", "validation", "test")
            if (images := getattr(self.dataset, split)) is not None
        }

    def _make_create(self, phase: int) -> Callable[..., TrainState]:
        """Make the function that creates a state of a phase."""
        trained = freezing.list_trained(self.plan.phases[phase])
        static = self.task.model, self.image_shape, self.task.optimizer

        def create(numbers: Hyperparameters, taken: Any) -> TrainState:
            state = create_state(*static, numbers, taken, trained)
            return devices.place_state(self.mesh, state)

        return jax.jit(create)

    def _choose_phase(self, step: int) -> None:
        """Take up the phase that took a step, counted from 1, or takes the first."""
        number = max(0, step - 1) // self.task.steps_per_epoch
        self._enter(freezing.find_phase(self.plan.phases, number))

    def _enter(self, phase: int) -> None:
        """Take up a phase, built when it comes first."""
        self.phase = phase
        if phase not in self._built:
            self._built[phase] = self._make_program(phase), self._make_create(phase)
        self.program, self._create = self._built[phase]

    def _make_program(self, phase: int) -> Program:
        """Build what computes in a phase; on features while the head alone trains."""
        config, train = self.config, self.dataset.train
        task = dataclasses.replace(self.task, phase=self.plan.phases[phase])
        trunk, line = choose_cache(config, task, train, self.image_shape)
        if line:
            self.terminal.say(line)
        loaders, size = self.loaders, self.loaders["train"].image_bytes
        macs = self.description["macs"] * len(train)
        if trunk is not None:
            loaders = FeatureLoaders(
                config,
                task,
                self.loaders,
                lambda: (get_weights(self.state), self.hyperparameters),
                self.mesh,
                self.stop,
            )
            task = dataclasses.replace(task, model=trunk.head, takes_features=True)
            size, macs = 4 * int(np.prod(trunk.shape)), 0
        kernels = config.device.cpu_kernels, self.mesh, macs
        rest = size, self.stop, self.mesh, devices.choose_compiler_options(*kernels)
        return Program(task, loaders, config.step.batch_size, *rest)
