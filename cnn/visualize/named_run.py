"""Trained runs as pictures use them: named, and applied batch by batch."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn import predict, steps
from cnn.ops import scaling
from cnn.predict import Trained
from cnn.visualize import features, kernels
from cnn.visualize.batches import map_batches


@dataclasses.dataclass(frozen=True)
class _Forward:
    """A model as a function of variables and scaled images, equal to its equals."""

    model: nn.Module

    def __call__(self, variables: Any, images: jax.Array) -> Any:
        logits, updated = self.model.apply(variables, images, mutable=["features"])
        found = traverse_util.flatten_dict(dict(updated.get("features", {})), sep="/")
        stages = {name.removesuffix("_out"): x[0] for name, x in found.items()}
        return logits.astype(jnp.float32), stages


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

    @functools.cached_property
    def function(self) -> Callable[[jax.Array], tuple[jax.Array, dict]]:
        """Return the model as a function that compiled functions take as an argument.

        It maps scaled images float32 [N, H, W, C] to logits float32 [N, K] and the
        features by stage.
        """
        forward = _Forward(self.trained.task.model)
        return jax.tree_util.Partial(forward, self.trained.variables)

    @functools.cached_property
    def stage_names(self) -> tuple[str, ...]:
        """Return the names of the model's stages, in the order of computation."""
        stages = features.list_stages(self.function, self.trained.image_shape)
        return tuple(stage.name for stage in stages)

    @functools.cached_property
    def kernels(self) -> dict[str, np.ndarray]:
        """Return the model's kernels; see `kernels.list_kernels`."""
        trained = self.trained
        return kernels.list_kernels(
            trained.task.model, trained.variables, trained.image_shape
        )

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
        return map_batches(function, images, pixels=images[0, :, :, 0].size)


def load_run(directory: str | Path, which: str = "latest") -> NamedRun:
    """Load a run, named after its directory.

    Args:
        directory: of the run.
        which: `latest`, `best` or a step.

    Raises:
        UserError: the directory holds no whole checkpoint.
    """
    (name,) = name_runs([Path(directory)])
    return NamedRun(name, Path(directory), predict.load_trained(directory, which))


def name_runs(directories: Sequence[Path]) -> list[str]:
    """Name runs after their directories, by the whole path where the last part
    does not tell them apart."""
    names = [directory.resolve().name for directory in directories]
    is_clear = len(set(names)) == len(names)
    return names if is_clear else [str(directory) for directory in directories]


@functools.partial(jax.jit, static_argnums=0)
def _predict(task: steps.Task, variables: Any, images: jax.Array) -> jax.Array:
    return steps.predict_step(task, variables, images)
