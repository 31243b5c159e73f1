"""A trained run, loaded from its checkpoint with everything needed to use it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import models
from cnn.checkpoints import checkpoint, manifest
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables
from cnn.optim import weight_averaging
from cnn.option import read_group
from cnn.runtime import devices
from cnn.runtime.options import DeviceOptions
from cnn.training import steps
from cnn.training.options import LossOptions
from cnn.training.steps import Structure


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model with everything needed to use it.

    Attributes:
        structure: the model, its scaling and its number of classes.
        variables: `params` and `batch_stats`, replicated on all devices.
        class_names: K names.
        classes_are_named: False when they are mere numbers, as converted weights have.
        image_shape: (H, W, C) of the images it was trained on.
        options: every option of the run, by flag name.
        step: how many steps it was trained for.
        transfer: what it started from, and digests of what was frozen; empty without.
        data: which images it saw, as of `same_data.Seen.summarise`; empty where
            nobody noted them.
    """

    structure: Structure
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    classes_are_named: bool
    image_shape: tuple[int, int, int]
    options: dict[str, Any]
    step: int
    transfer: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


def load_trained(directory: str | Path, which: str = "latest") -> Trained:
    """Load a run's weights, the averaged ones when averaging was on.

    Args:
        which: `latest`, `best` or a step.

    Raises:
        UserError: there is no such checkpoint, it is damaged, or it does not fit.
    """
    step = manifest.find_step(Path(directory), which)
    path = Path(directory) / "checkpoints" / str(step)
    description = manifest.read_description(path)
    stored = description["options"]
    image_shape = tuple(description["image_shape"])
    structure = Structure(
        model=models.create_model(
            read_group(ModelOptions, stored),
            len(description["class_names"]),
            devices.get_dtype(read_group(DeviceOptions, stored)),
        ),
        num_classes=len(description["class_names"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        loss=read_group(LossOptions, stored).loss,
    )
    shapes = jax.eval_shape(lambda: create_variables(structure.model, 0, image_shape))
    sharding = devices.replicated(devices.make_mesh())
    like = checkpoint.abstract(shapes, sharding)
    averaged = weight_averaging.is_on(stored)
    return Trained(
        structure=structure,
        variables=checkpoint.load_variables(path, like, averaged),
        class_names=tuple(description["class_names"]),
        classes_are_named=description.get("classes_are_named", True),
        image_shape=image_shape,
        options=stored,
        step=step,
        transfer=description.get("transfer", {}),
        data=description.get("data", {}),
    )


def check_image_shape(trained: Trained, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that the trained weights do not take.

    Args:
        trained: the model.
        image_shape: (H, W, C) of what it would see.

    Raises:
        UserError: naming both shapes.
    """
    model, fits = trained.structure.model, image_shape[2] == trained.image_shape[2]
    if fits:
        like = jax.eval_shape(lambda: create_variables(model, 0, image_shape))
        shapes = [jax.tree.map(jnp.shape, x) for x in (like, trained.variables)]
        fits = shapes[0] == shapes[1]
    if not fits:
        here, there = (
            "x".join(map(str, x)) for x in (image_shape, trained.image_shape)
        )
        raise UserError(
            f"The run was trained on images of {there} and cannot take {here}; set "
            f"--image_size and --channels to what it was trained on"
        )


def make_classifier(trained: Trained) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function from uint8 images [N, H, W, C] to probabilities [N, K]."""

    @jax.jit
    def compute(variables: Any, images: jax.Array) -> jax.Array:
        logits = steps.predict_step(trained.structure, variables, images)
        return jax.nn.softmax(logits)

    def classify(images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                "images must be uint8 [N, H, W, C], not "
                f"{images.dtype} {list(images.shape)}"
            )
        return np.asarray(compute(trained.variables, jnp.asarray(images)))

    return classify
