"""Trained runs as pictures use them: named, and applied batch by batch."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn.checkpoints import naming
from cnn.ops import scaling
from cnn.option import read_group
from cnn.runtime import devices, xla
from cnn.runtime.options import DeviceOptions
from cnn.training import canary, temperature
from cnn.training.trained import Trained, load_trained
from cnn.visualize.compute import features, layers
from cnn.visualize.compute.features import map_batches
from cnn.visualize.compute.layers import Layer

# What a report computes the logits of: 46 times 192 for invariance, and more. What
# calls oneDNN cannot be kept for the next start, so that few do not pay for it.
_MANY_IMAGES = 8_000


@dataclasses.dataclass(frozen=True)
class _Forward:
    """A model as a function of variables and scaled images, equal to its equals.

    Attributes:
        model: the model.
        compiler_options: with which its logits are compiled.
    """

    model: nn.Module
    compiler_options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, variables: Any, images: jax.Array) -> Any:
        logits, updated = self.model.apply(variables, images, mutable=["features"])
        found = traverse_util.flatten_dict(dict(updated.get("features", {})), sep="/")
        stages = {name.removesuffix("_out"): x[0] for name, x in found.items()}
        return logits.astype(jnp.float32), stages


@dataclasses.dataclass(frozen=True)
class NamedRun:
    """A trained run, under a name that no other of the call has.

    Attributes:
        name: its label.
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
        options = self._choose_compiler_options()
        forward = _Forward(self.trained.structure.model, options)
        return jax.tree_util.Partial(forward, self.trained.variables)

    def _choose_compiler_options(self) -> tuple[tuple[str, Any], ...]:
        """Choose oneDNN, as training does, where many images outweigh compilation."""
        given = read_group(DeviceOptions, self.trained.options)
        kernels = "xla" if given.cpu_kernels == "xla" else "auto"
        macs, mesh = sum(layer.macs for layer in self.layers), devices.make_mesh()
        chosen = xla.choose_compiler_options(kernels, mesh, macs * _MANY_IMAGES)
        canary.check_kernels(given, mesh, chosen)
        return chosen

    @functools.cached_property
    def stage_names(self) -> tuple[str, ...]:
        """Return the names of the model's stages, in the order of computation."""
        stages = features.list_stages(self.function, self.trained.image_shape)
        return tuple(stage.name for stage in stages)

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Return the model's layers, in the order of execution."""
        forward = _Forward(self.trained.structure.model)
        trained = self.trained
        return layers.list_layers(forward, trained.variables, trained.image_shape)

    @property
    def kernels(self) -> dict[str, np.ndarray]:
        """Return the kernels [S, S, C / groups, O] of the convolutions, by layer."""
        return {x.name: x.kernel for x in self.layers if x.is_convolution}

    def scale(self, images: np.ndarray) -> jax.Array:
        """Scale uint8 images [N, H, W, C] to what the model sees, float32."""
        structure = self.trained.structure
        return _scale(jnp.asarray(images), structure.mean, structure.std)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Compute logits, float32 [N, K], of uint8 images [N, H, W, C]."""
        return map_batches(
            lambda batch: features.compute_logits(self.function, self.scale(batch)),
            images,
            pixels=images[0, :, :, 0].size,
        )


def load_run(directory: str | Path, which: str = "latest", name: str = "") -> NamedRun:
    """Load a run.

    Args:
        directory: of the run.
        which: `latest`, `best` or a step.
        name: its label if empty.

    Raises:
        UserError: the directory holds no whole checkpoint.
    """
    name = name or naming.label_runs([Path(directory)])[0]
    trained, _ = temperature.apply(load_trained(directory, which), Path(directory))
    return NamedRun(name, Path(directory), trained)


_scale = jax.jit(scaling.scale_images)
