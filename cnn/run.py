"""One training run: built once from its options, resumed from its checkpoints."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn import augment, checkpoint, describe, devices, epoch, losses, models, steps
from cnn.data import load_dataset
from cnn.data.chunks import Loader, choose_chunk_steps
from cnn.data.images import Dataset
from cnn.data.statistics import compute_scaling
from cnn.errors import UserError
from cnn.evaluate import compute_metrics
from cnn.interrupt import Stop
from cnn.optimizer import Hyperparameters
from cnn.progress import Pace, Terminal
from cnn.records import Records
from cnn.state import TrainState, create_state, get_variables

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
        self.mesh = devices.make_mesh()
        devices.check_batch_size(config.step.batch_size, self.mesh)
        shares_data = like is not None and like.config.data == config.data
        self.dataset = like.dataset if shares_data else load_dataset(config.data)
        for note in () if shares_data else self.dataset.notes:
            terminal.say(note)
        self.task = make_task(config, self.dataset)
        self.image_shape = self._crop_shape(self.dataset.train.shape)
        self.description = describe.describe_model(self.task.model, self.image_shape)
        self.loaders = like.loaders if shares_data else self._make_loaders()
        self.eval_split = "validation" if "validation" in self.loaders else "test"
        self.chunk_steps = choose_chunk_steps(
            self.task.steps_per_epoch,
            config.step.batch_size,
            int(np.prod(self.dataset.train.shape)),
        )
        self._train_chunk = epoch.make_train_chunk(self.task)
        self._compiled_train_chunk: Callable[..., Any] | None = None
        self.eval_chunk = epoch.make_eval_chunk(self.task)
        self._everywhere = devices.replicated(self.mesh)
        self._create = jax.jit(self._create_state, out_shardings=self._everywhere)
        self.hyperparameters = config.make_hyperparameters()
        self.pace = Pace()
        self._seconds_before = 0.0

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
        shapes = jax.eval_shape(self._create, self.hyperparameters)
        sums = jax.eval_shape(steps.create_train_sums)
        like = checkpoint.abstract((shapes, sums), self._everywhere)
        newest, damaged = checkpoint.load_newest(self.directory / "checkpoints", like)
        for line in damaged:
            self.terminal.say(line)
        if not newest:
            self.begin(self.config)
            return
        self.state, self.sums, description = newest
        self.records = Records(**description["records"])
        self._seconds_before = self.records.seconds
        self.terminal.say(f"going on from step {self.step} of {self.total_steps}")

    def begin(self, config: "Config", state: TrainState | None = None) -> None:
        """Take up another run of the same static part.

        Args:
            config: its options.
            state: where it stands, between two epochs; None: before its first step.
        """
        self.config, self.hyperparameters = config, config.make_hyperparameters()
        self.state = self._create(self.hyperparameters) if state is None else state
        self.sums = jax.device_put(steps.create_train_sums(), self._everywhere)
        self.records = Records()

    def take_steps(
        self, chunk: epoch.Chunk, first: int, last: int
    ) -> dict[str, np.ndarray]:
        """Take steps first … last - 1 of a chunk; compiled when first called.

        Returns:
            Their `loss`, `learning_rate` and `gradient_norm`, each [last - first].

        Raises:
            Interrupted: a signal arrived during compilation; no step was taken.
        """
        arguments = (self.state, self.sums, chunk, self.hyperparameters)
        bounds = (np.int32(first), np.int32(last))
        if self._compiled_train_chunk is None:
            lowered = self._train_chunk.lower(*arguments, *bounds)
            self._compiled_train_chunk = lowered.compile()
            self.stop.check()
        started = time.perf_counter()
        self.state, self.sums, records = self._compiled_train_chunk(*arguments, *bounds)
        records = {name: np.asarray(x)[first:last] for name, x in records.items()}
        seconds = time.perf_counter() - started
        self.pace.note(seconds / (last - first))
        self.records.train_seconds += seconds
        self.records.epoch_seconds += seconds
        return records

    def evaluate(self, split: str) -> dict[str, Any]:
        """Evaluate the current weights; see `evaluate.compute_metrics`."""
        return compute_metrics(
            self.eval_chunk,
            get_variables(self.state),
            self.loaders[split],
            self.config.step.batch_size,
            self.task.num_classes,
            self.stop,
        )

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
        }

    def _crop_shape(self, stored: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (H, W, C) of what the model sees of stored images."""
        size = self.config.data.image_size
        return (size, size, stored[2]) if size else stored

    def _make_loaders(self) -> dict[str, Loader]:
        return {
            split: Loader(images, self.config.data, self.mesh)
            for split in ("train", "validation", "test")
            if (images := getattr(self.dataset, split)) is not None
        }

    def _create_state(self, numbers: Hyperparameters) -> TrainState:
        return create_state(
            self.task.model, self.image_shape, self.task.optimizer, numbers
        )


def make_task(config: "Config", dataset: Dataset) -> steps.Task:
    """Make the static part of a run's steps.

    Raises:
        UserError: the batch is larger than the training set, does not divide into
            `accumulate_steps`, or early stopping has no validation set.
    """
    static = config.make_static()
    num_classes = len(dataset.class_names)
    batch_size, pieces = config.step.batch_size, config.step.accumulate_steps
    if len(dataset.train) < batch_size:
        raise UserError(
            f"--batch_size={batch_size} is larger than the training set of "
            f"{len(dataset.train)} images; give a smaller one"
        )
    if batch_size % pieces:
        raise UserError(
            f"--accumulate_steps={pieces} does not divide --batch_size={batch_size}"
        )
    if config.train.early_stop_epochs and dataset.validation is None:
        raise UserError(
            "--early_stop_epochs selects on validation data and there is none; carve "
            "it out of train with --validation_fraction=0.1"
        )
    data = config.data
    augment.check(config.augment, dataset.train.shape, data.image_size)
    mean, std = compute_scaling(data.scaling, data.mean, data.std, dataset.train)
    return steps.Task(
        model=models.create_model(
            static.model, num_classes, devices.get_dtype(config.device)
        ),
        num_classes=num_classes,
        mean=mean,
        std=std,
        image_size=data.image_size,
        steps_per_epoch=len(dataset.train) // batch_size,
        class_weights=losses.compute_class_weights(
            config.loss, dataset.train.labels, num_classes
        ),
        optimizer=static.optimizer,
        accumulate_steps=pieces,
        augment=static.augment,
    )
