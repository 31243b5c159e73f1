"""Trained runs as pictures use them: named, and applied batch by batch."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import predict, steps
from cnn.ops import scaling
from cnn.predict import Trained

_BATCH_SIZE = 250


@dataclasses.dataclass(frozen=True)
class NamedRun:
    """A trained run under a name that tells it from the others.

    Attributes:
        name: its directory's.
        directory: where it lies.
        trained: its model and weights.
    """

    name: str
    directory: Path
    trained: Trained

    def scale(self, images: np.ndarray) -> jax.Array:
        """Scale uint8 images [N, H, W, C] to what the model sees, float32."""
        return scaling.scale_images(
            jnp.asarray(images), self.trained.task.mean, self.trained.task.std
        )

    def unscale(self, images: np.ndarray) -> np.ndarray:
        """Bring what the model sees back to floats in 0..1, clipped."""
        mean, std = (
            np.reshape(x, (1, 1, 1, -1))
            for x in (self.trained.task.mean, self.trained.task.std)
        )
        return np.clip(np.asarray(images) * std + mean, 0, 1)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Compute logits, float32 [N, K], of uint8 images [N, H, W, C]."""
        trained = self.trained
        function = functools.partial(_predict, trained.task, trained.variables)
        return map_batches(function, images)


def load_runs(directories: Sequence[Path], which: str) -> tuple[NamedRun, ...]:
    """Load runs and name them after their directories.

    Args:
        directories: of the runs.
        which: `latest`, `best` or a step.

    Raises:
        UserError: a directory holds no whole checkpoint.
    """
    return tuple(
        NamedRun(name, directory, predict.load_trained(directory, which))
        for name, directory in zip(name_runs(directories), directories, strict=True)
    )


def name_runs(directories: Sequence[Path]) -> list[str]:
    """Name runs after their directories, by the whole path where the last part
    does not tell them apart."""
    names = [directory.resolve().name for directory in directories]
    is_clear = len(set(names)) == len(names)
    return names if is_clear else [str(directory) for directory in directories]


def map_batches(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """Apply a function to arrays batch by batch, with one shape for all batches.

    Args:
        function: of arrays [n, …], compiled; returns a tree of arrays [n, …].
        *arrays: [N, …], N at least 1.

    Returns:
        The tree of arrays [N, …], in numpy.
    """
    total = len(arrays[0])
    size = min(_BATCH_SIZE, total)
    results = []
    for start in range(0, total, size):
        batch = [np.asarray(array[start : start + size]) for array in arrays]
        missing = size - len(batch[0])
        padded = [
            np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) for x in batch
        ]
        result = function(*(jnp.asarray(x) for x in padded))
        results.append(jax.tree.map(np.asarray, result))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:total], *results)


@functools.partial(jax.jit, static_argnums=0)
def _predict(task: steps.Task, variables: Any, images: jax.Array) -> jax.Array:
    return steps.predict_step(task, variables, images)
