"""Trained runs from Python and on the command line: images in, probabilities out.

from cnn import predict
classify = predict.load_classifier("runs/digits")
probabilities = classify(images)  # uint8 [N, H, W, C] -> float32 [N, K]
"""

import csv
import dataclasses
import glob
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import (
    augment,
    averaging,
    checkpoint,
    devices,
    manifest,
    models,
    options,
    steps,
    workdir,
)
from cnn.data.files import decode_files
from cnn.devices import DeviceOptions
from cnn.errors import UserError
from cnn.models import ModelOptions
from cnn.options import option
from cnn.state import create_variables
from cnn.steps import Task

if TYPE_CHECKING:
    from cnn.config import Config

_COLUMNS = ("class", "probability")


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What is predicted."""

    predict_images: str = option(
        "",
        "pattern of the image files to classify, such as 'photos/*.jpg'",
        changes_run=False,
    )


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model with everything needed to use it.

    Attributes:
        task: the model, its scaling and its number of classes.
        variables: `params` and `batch_stats`, replicated on all devices.
        class_names: K names.
        classes_are_named: False when they are mere numbers, as converted weights have.
        image_shape: (H, W, C) of the images it was trained on.
        options: every option of the run, by flag name.
        step: how many steps it was trained for.
        transfer: what it started from, and digests of what was frozen; empty without.
    """

    task: Task
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    classes_are_named: bool
    image_shape: tuple[int, int, int]
    options: dict[str, Any]
    step: int
    transfer: dict[str, Any] = dataclasses.field(default_factory=dict)


def load_trained(directory: str | Path, which: str = "latest") -> Trained:
    """Load a run's weights, the averaged ones when averaging was on.

    Args:
        directory: the run's directory.
        which: `latest`, `best` or a step.

    Raises:
        UserError: there is no such checkpoint, it is damaged, or it does not fit.
    """
    step = manifest.find_step(Path(directory), which)
    path = Path(directory) / "checkpoints" / str(step)
    description = manifest.read_description(path)
    stored = description["options"]
    image_shape = tuple(description["image_shape"])
    task = Task(
        model=models.create_model(
            options.read_group(ModelOptions, stored),
            len(description["class_names"]),
            devices.get_dtype(options.read_group(DeviceOptions, stored)),
        ),
        num_classes=len(description["class_names"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
    )
    shapes = jax.eval_shape(lambda: create_variables(task.model, 0, image_shape))
    sharding = devices.replicated(devices.make_mesh())
    like = checkpoint.abstract(shapes, sharding)
    averaged = averaging.is_on(stored)
    return Trained(
        task=task,
        variables=checkpoint.load_variables(path, like, averaged),
        class_names=tuple(description["class_names"]),
        classes_are_named=description.get("classes_are_named", True),
        image_shape=image_shape,
        options=stored,
        step=step,
        transfer=description.get("transfer", {}),
    )


def check_image_shape(trained: Trained, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that the trained weights do not take.

    Args:
        trained: the model.
        image_shape: (H, W, C) of what it would see.

    Raises:
        UserError: naming both shapes.
    """
    model, fits = trained.task.model, image_shape[2] == trained.image_shape[2]
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


def load_classifier(
    directory: str | Path, which: str = "latest"
) -> Callable[[np.ndarray], np.ndarray]:
    """Load a run as a function from images to probabilities.

    Args:
        directory: the run's directory.
        which: `latest`, `best` or a step.

    Returns:
        A function of uint8 images [N, H, W, C] that returns float32 [N, K].

    Raises:
        UserError: as `load_trained`.
    """
    return make_classifier(load_trained(directory, which))


def make_classifier(trained: Trained) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function from uint8 images [N, H, W, C] to probabilities [N, K]."""

    @jax.jit
    def compute(variables: Any, images: jax.Array) -> jax.Array:
        logits = steps.predict_step(trained.task, variables, images)
        return jax.nn.softmax(logits)

    def classify(images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                "images must be uint8 [N, H, W, C], not "
                f"{images.dtype} {list(images.shape)}"
            )
        return np.asarray(compute(trained.variables, jnp.asarray(images)))

    return classify


def predict(config: "Config", directory: Path) -> Path:
    """Classify image files and write `predictions.csv` into the run's directory.

    Args:
        config: the run's options, those of the command line over them;
            `predict_images` says which files, `**` descends.
        directory: the run's directory.

    Returns:
        The file: `path`, `class`, `probability`, then the runners-up (up to four)
        as `class2`, `probability2`, ….

    Raises:
        UserError: no file matches, or one is no image.
    """
    pattern = config.predict.predict_images
    if not pattern:
        raise UserError("--mode=predict needs --predict_images='PATTERN'")
    files = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not files:
        raise UserError(f"--predict_images={pattern} matches no file")
    trained = load_trained(directory, config.checkpoint.checkpoint)
    size = config.data.stored_size or trained.image_shape[0]
    shape, batch_size = (size, size, trained.image_shape[2]), config.step.batch_size
    seen, views = config.data.image_size or size, config.make_static().augment
    check_image_shape(trained, (seen, seen, shape[2]))
    augment.check_views(views.tta, shape, seen)
    task = dataclasses.replace(trained.task, image_size=seen, augment=views)
    classify = make_classifier(dataclasses.replace(trained, task=task))
    shown = min(5, trained.task.num_classes)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    later = [f"{name}{rank}" for rank in range(2, shown + 1) for name in _COLUMNS]
    writer.writerow(["path", *_COLUMNS, *later])
    for start in range(0, len(files), batch_size):
        paths = files[start : start + batch_size]
        paths, images = decode_files(paths, shape, config.data)
        padding = [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)]
        rows = classify(np.pad(images, padding))[: len(images)]
        for path, row in zip(paths, rows, strict=True):
            best = np.argsort(-row, kind="stable")[:shown]
            cells = [(trained.class_names[k], f"{row[k]:.6f}") for k in best]
            writer.writerow([path, *(cell for pair in cells for cell in pair)])
    target = directory / "predictions.csv"
    workdir.write_text(target, text.getvalue())
    return target
