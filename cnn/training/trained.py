"""A trained run, loaded from its checkpoint with everything needed to use it."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import models
from cnn.checkpoints import checkpoint, manifest
from cnn.checkpoints.workdir import DESCRIPTION
from cnn.data import choose
from cnn.data import labels as labelled
from cnn.data.images import Evaluated
from cnn.data.names import show
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables
from cnn.optim import weight_averaging
from cnn.option import read_group
from cnn.runtime import devices
from cnn.runtime.options import DeviceOptions
from cnn.training import canary, kernels, memory, steps, tasks
from cnn.training.options import LossOptions
from cnn.training.steps import Structure

_PROGRAMS_KEPT = 16  # one for each size and number of images


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
        averaged: whether the variables are averages over training.
        transfer: what it started from, and digests of what was frozen; empty without.
        data: which images it saw, as of `same_data.Seen.summarise`; empty where
            nobody noted them.
        temperature: by which logits are divided for probabilities, as of
            `cnn.training.temperature`; None: as they are.
        thresholds: K probabilities from which a class is a label of an image that may
            have several; None where none were tuned.
    """

    structure: Structure
    variables: dict[str, Any]
    class_names: tuple[str, ...]
    classes_are_named: bool
    image_shape: tuple[int, int, int]
    options: dict[str, Any]
    step: int
    averaged: bool
    transfer: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    temperature: float | None = None
    thresholds: tuple[float, ...] | None = None


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
    try:
        structure = make_structure(description)
    except (UserError, LookupError) as error:  # a model or a task that there is not
        raise manifest.DamagedCheckpoint(f"{path / DESCRIPTION}: {error}") from None
    image_shape = tuple(description["image_shape"])
    shapes = jax.eval_shape(lambda: create_variables(structure.model, 0, image_shape))
    sharding = devices.replicated(devices.make_mesh())
    like = checkpoint.abstract(shapes, sharding)
    averaged = weight_averaging.is_on(description["options"])
    variables = checkpoint.load_variables(path, like, averaged)
    return make_trained(description, variables, step, averaged)


def make_structure(description: Mapping[str, Any]) -> Structure:
    """Make the structure that a checkpoint's description says."""
    stored, task = description["options"], tasks.get_task(description)
    device = read_group(DeviceOptions, stored)
    return Structure(
        model=models.create_model(
            read_group(ModelOptions, stored),
            len(description["class_names"]),
            devices.get_dtype(device),
        ),
        num_classes=len(description["class_names"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        task=task,
        loss=task.choose_loss(read_group(LossOptions, stored).loss),
        loss_reduction=read_group(LossOptions, stored).loss_reduction,
        cpu_kernels=device.cpu_kernels,
    )


def make_trained(
    description: Mapping[str, Any],
    variables: Any,
    step: int = 0,
    averaged: bool = False,
) -> Trained:
    """Make a trained model of variables and what a checkpoint says of them."""
    return Trained(
        structure=make_structure(description),
        variables=variables,
        class_names=tuple(description["class_names"]),
        classes_are_named=description.get("classes_are_named", True),
        image_shape=tuple(description["image_shape"]),
        options=description["options"],
        step=step,
        averaged=averaged,
        transfer=description.get("transfer", {}),
        data=description.get("data", {}),
        thresholds=tasks.read_thresholds(description),
    )


def set_threshold(trained: Trained, threshold: float) -> Trained:
    """Return a model with `--threshold` for all classes; 0 keeps those it has.

    Raises:
        UserError: an image has one class.
    """
    if not threshold:
        return trained
    if trained.structure.task is not tasks.MULTILABEL:
        raise UserError(
            f"--threshold={threshold:g} would have no effect: the run takes one class "
            "an image, the most probable one; leave it out"
        )
    thresholds = (threshold,) * trained.structure.num_classes
    return dataclasses.replace(trained, thresholds=thresholds)


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


def takes_any_size(trained: Trained) -> bool:
    """Whether the weights take images of other heights and widths than their own."""
    height, width, channels = trained.image_shape
    try:
        check_image_shape(trained, (2 * height, 2 * width, channels))
    except UserError:
        return False
    return True


def get_class_names(trained: Trained, here: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a run's classes: those of data as many, where it has none.

    Data whose classes are numbers too mean the run's by these, whatever their order: a
    folder sorts 10 before 2.
    """
    known = trained.class_names
    are_numbers = all(name.isdecimal() for name in (*known, *here))
    if trained.classes_are_named or are_numbers or len(known) != len(here):
        return known
    return tuple(here)


def match_labels(
    trained: Trained,
    data: Evaluated,
    numbers: Sequence[int] = (),
) -> np.ndarray:
    """Number the labels of images as a run does, class by class of the same name.

    Of a run whose images may have several, one label each is taken as one of several.

    Args:
        trained: the run; classes that the images lack do not matter.
        data: the images.
        numbers: of `--classes`, what selected the data's classes; empty: all.

    Returns:
        As of `cnn.data.labels`.

    Raises:
        UserError: the run does not know the class of an image, or takes one class an
            image and some have not one.
    """
    here = data.class_names
    labels = _take_task(trained, data)
    known = get_class_names(trained, here)
    if known == here:
        return labels
    place = {name: number for number, name in enumerate(known)}
    occurring = labelled.list_occurring(labels)
    unknown = [here[label] for label in occurring if here[label] not in place]
    if unknown:
        kept = [label for label in occurring if here[label] in place]
        kept = [numbers[label] if numbers else label for label in kept]
        leave_out = f", or leave them out with --classes={','.join(map(str, kept))}"
        convert = ", or name its classes with --mode=convert --class_names=FILE"
        raise UserError(
            f"The run does not know {_write_classes(unknown)} of {data.name}; it knows "
            f"{_write_classes(known)}. Name classes in the data as the run does"
            f"{'' if trained.classes_are_named else convert}"
            f"{leave_out if kept else ''}"
        )
    table = np.array([place.get(name, -1) for name in here], np.int32)
    return labelled.renumber(labels, table, len(known))


def _take_task(trained: Trained, data: Evaluated) -> np.ndarray:
    """Return the labels of images in the form of a run's."""
    labels, several = data.images.labels, trained.structure.task is tasks.MULTILABEL
    if labelled.are_several(labels) == several:
        return labels
    if several:
        return labelled.to_matrix(labels, len(data.class_names))
    if (labels.sum(axis=1) != 1).any():
        raise UserError(
            f"The run takes one class an image, and images of {data.name} may have "
            "several labels or none; train one with --task=multilabel to evaluate it "
            "on them"
        )
    return labelled.as_stored(labels.argmax(axis=1))


def _write_classes(names: Sequence[str]) -> str:
    return f"the {'class' if len(names) == 1 else 'classes'} {show(names)}"


def make_classifier(
    trained: Trained, counts: Mapping[tuple[int, int, int], int] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function from uint8 images [N, H, W, C] to probabilities [N, K].

    With the run's `--shuffle_pixels` it permutes the pixels, as training did; a
    temperature divides the logits.

    Args:
        counts: how many images of a shape (H, W, C) are to come, by which the library
            is chosen; None: nobody knows.

    Raises:
        UserError: by the function, when the device has too little memory.
    """
    options = read_group(DataOptions, trained.options)
    device = read_group(DeviceOptions, trained.options)
    mesh = devices.make_mesh()
    everywhere = devices.replicated(mesh)

    def compute(structure: Structure, variables: Any, images: jax.Array) -> jax.Array:
        logits = steps.predict_step(structure, variables, images)
        if trained.temperature is not None:
            logits = logits / trained.temperature
        return trained.structure.task.to_probabilities(logits)

    @functools.lru_cache(_PROGRAMS_KEPT)
    def compile_for(shape: tuple[int, ...]) -> Any:
        images = jax.ShapeDtypeStruct(shape, np.uint8, sharding=everywhere)
        chosen = kernels.choose_compiler_options(
            trained.structure, mesh, shape[1:], (counts or {}).get(shape[1:], 0)
        )
        canary.check_kernels(device, mesh, chosen)
        structure = kernels.adapt(trained.structure, chosen)
        own = functools.partial(compute, structure)
        program = jax.jit(own, compiler_options=dict(chosen))
        compiled = program.lower(trained.variables, images).compile()
        needed = memory.read_temporary(compiled) + math.prod(shape)
        if needed > devices.get_device_memory(mesh):
            raise MemoryError
        return compiled

    def classify(images: np.ndarray) -> np.ndarray:
        if options.shuffle_pixels:
            images = choose.permute_pixels(images, options.split_seed)
        try:
            compiled = compile_for(images.shape)
            images = devices.put(everywhere, images)
            return np.asarray(compiled(trained.variables, images))
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                count, height, width, _ = images.shape
                raise UserError(
                    f"images of {width}×{height} pixels, {count} at a time, take more "
                    "memory than there is; give a smaller --predict_batch_size, or an "
                    "--image_size"
                ) from error
            raise

    return classify
