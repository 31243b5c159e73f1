"""What computes in one phase of a run: its compiled chunks and what fills them."""

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnn import devices, epoch, memory
from cnn.data.chunks import Loader, choose_chunk_steps
from cnn.devices import processes
from cnn.evaluate import compute_metrics
from cnn.interrupt import Stop
from cnn.optimizer import Hyperparameters
from cnn.state import TrainState
from cnn.steps import Sums, Task
from cnn.transfer.features import FeatureLoaders

_UNWATCHED = contextlib.nullcontext()


class Program:
    """The steps and the evaluation of one phase, compiled when first used.

    Attributes:
        task: the static part.
        loaders: fill chunks, by split, with images or with cached features.
        chunk_steps: steps of a chunk.
    """

    def __init__(
        self,
        task: Task,
        loaders: Mapping[str, Loader],
        batch_size: int,
        image_bytes: int,
        stop: Stop,
        mesh: Mesh,
        compiler_options: Mapping[str, Any],
    ) -> None:
        """Build the programs without compiling them.

        Args:
            task: the static part.
            loaders: by split.
            batch_size: of training and evaluation.
            image_bytes: of one example.
            stop: looked at between calls.
            mesh: the devices.
            compiler_options: of the training steps.
        """
        self.task, self.loaders = task, loaders
        self._batch_size, self._stop = batch_size, stop
        self.chunk_steps = choose_chunk_steps(
            task.steps_per_epoch, batch_size, image_bytes
        )
        self._train_chunk = epoch.make_train_chunk(task, mesh, compiler_options)
        self._compiled: Callable[..., Any] | None = None
        self._eval_chunk = epoch.make_eval_chunk(task, mesh)

    def place(self, ids: np.ndarray, number: int) -> np.ndarray:
        """Return where the loader has the training examples `ids` in an epoch."""
        if not isinstance(self.loaders, FeatureLoaders):
            return ids
        view, views = number % self.loaders.views, self.loaders.views
        return ids + np.int32(len(self.loaders["train"]) // views * view)

    def forget(self) -> None:
        """Forget the features of another run."""
        if isinstance(self.loaders, FeatureLoaders):
            self.loaders.clear()

    def take_steps(
        self,
        state: TrainState,
        sums: Sums,
        chunk: epoch.Chunk,
        hyperparameters: Hyperparameters,
        first: int,
        last: int,
        watch: AbstractContextManager = _UNWATCHED,
    ) -> tuple[TrainState, Sums, dict[str, np.ndarray], float]:
        """Take steps first … last - 1 of a chunk; compiled when first called.

        Args:
            state: before them, on the devices.
            sums: the epoch's so far, on the devices.
            chunk: the images, on the devices.
            hyperparameters: every number.
            first: of the chunk's steps, the first to take.
            last: the one after the last.
            watch: in which the compiled program is called.

        Returns:
            State and sums after them; their `loss`, `learning_rate` and
            `gradient_norm`, each [last - first]; seconds, of the slowest process.

        Raises:
            Interrupted: a signal arrived during compilation; no step was taken.
            UserError: the device has too little memory.
        """
        # Inside a call nothing crosses between host and devices unless placed here.
        numbers = (hyperparameters, np.int32(first), np.int32(last))
        numbers = devices.put(state.step.sharding, numbers)
        arguments = (state, sums, chunk, *numbers)
        if self._compiled is None:
            self._compiled = memory.compile_if_it_fits(
                self._train_chunk, arguments, self.task.accumulate_steps
            )
            self._stop.check()
        explained = memory.explain_shortage(
            self._train_chunk, arguments, memory.REMEDIES, self.task.accumulate_steps
        )
        started = time.perf_counter()
        with explained, watch:
            state, sums, records = self._compiled(*arguments)
            records = jax.device_get(records)
        records = {name: x[first:last] for name, x in records.items()}
        seconds = processes.find_most(time.perf_counter() - started)
        return state, sums, records, seconds

    def evaluate(self, variables: Any, split: str) -> dict[str, Any]:
        """Evaluate weights; see `evaluate.compute_metrics`."""
        return compute_metrics(
            self._eval_chunk,
            variables,
            self.loaders[split],
            self._batch_size,
            self.task.num_classes,
            self._stop,
        )
