"""What a model says of images: padded batches, masked, on all devices."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.augment import pipeline
from cnn.augment.options import AugmentOptions
from cnn.config import Config
from cnn.data import find_own_classes, load_evaluated
from cnn.data.chunks import Loader
from cnn.data.images import Evaluated
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.training import canary, multilabel, tasks
from cnn.training.epoch import choose_kernels, compute_metrics, compute_stacked
from cnn.training.steps import Structure
from cnn.training.trained import Trained, check_image_shape, match_labels


@dataclasses.dataclass
class Subject:
    """A run that is to be evaluated.

    Attributes:
        config: its options.
        trained: its model, with its temperature.
        changed: frozen weights that are not what they were.
        stored: its options, as of `same_data.find_moved`.
        files: what is to be written besides its evaluation, by path.
    """

    config: Config
    directory: Path
    trained: Trained
    changed: list[str]
    stored: Mapping[str, Any]
    files: dict[Path, str]

    def make_key(self) -> tuple:
        """Return what is equal for runs that one program evaluates."""
        config, trained = self.config, self.trained
        own = find_own_classes(self.stored, config.data)
        data = config.data, config.evaluate.split, own, trained.image_shape
        classes = trained.class_names, trained.classes_are_named
        how = config.step.batch_size, config.augment.tta, config.device.mesh
        return trained.structure, data, classes, how


def load_images(
    config: Config,
    trained: Trained,
    stored: Mapping[str, Any],
    load: Callable[..., Evaluated] = load_evaluated,
) -> Evaluated:
    """Load the images of `--split`, labelled as the run numbers its classes.

    Args:
        stored: the run's options, as of `same_data.find_moved`.
        load: does what `load_evaluated` does, and may know what it has loaded before.

    Raises:
        UserError: as `load_evaluated`, or the run does not take the images or does
            not know their classes.
    """
    options, split = config.data, config.evaluate.split
    if not options.channels and trained.image_shape[2] == 3:
        # Data that happen to be grey are colour to a run of colour images.
        options = dataclasses.replace(options, channels=3)
    data = load(options, split, find_own_classes(stored, options))
    labels = match_labels(trained, data, options.classes)
    images = dataclasses.replace(data.images, labels=labels)
    return dataclasses.replace(data, images=images)


def make_judge(
    config: Config, trained: Trained, data: Evaluated, stop: Stop
) -> Callable[[Any], dict[str, Any]]:
    """Make what evaluates several weights of one model on the same images.

    Args:
        data: of `load_images`.

    Returns:
        From `params` and `batch_stats` to what `compute_metrics` returns; of several
        labels an image with the `thresholds` that these tune, too.

    Raises:
        UserError: the run does not take the images.
    """
    structure, loader, batch_size = _place(config, trained, data)
    everywhere = devices.replicated(loader.mesh)

    def judge(variables: Any) -> dict[str, Any]:
        placed = jax.device_put(variables, everywhere)
        examples = {} if structure.task.keeps_examples else None
        found = compute_metrics(structure, placed, loader, batch_size, stop, examples)
        if examples:
            logits = tasks.concatenate(examples)["logits"]
            found["thresholds"] = multilabel.tune_thresholds(logits, loader.labels)
        return found

    return judge


def compute(
    subject: Subject, data: Evaluated
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Compute metrics, and of the images `logits` [n, K] and `loss` [n]."""
    trained, stop = subject.trained, Stop()
    structure, loader, batch_size = _place(subject.config, trained, data)
    variables = jax.device_put(trained.variables, devices.replicated(loader.mesh))
    examples: dict[str, list[np.ndarray]] = {}
    arguments = structure, variables, loader, batch_size, stop
    with catch_signals(stop):
        found = compute_metrics(*arguments, examples, trained.thresholds)
        if not structure.task.keeps_examples:
            # By the program that the run was tested with: its loss to the last bit.
            found = compute_metrics(*arguments)
    return found, {name: np.concatenate(x) for name, x in examples.items()}


def compute_together(
    subjects: Sequence[Subject], data: Evaluated
) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Compute what `compute` does of each of several runs, in one program."""
    first, stop = subjects[0], Stop()
    structure, loader, batch_size = _place(first.config, first.trained, data)
    weights = [subject.trained.variables for subject in subjects]
    thresholds = [subject.trained.thresholds for subject in subjects]
    with catch_signals(stop):
        return compute_stacked(structure, weights, loader, batch_size, stop, thresholds)


def _place(
    config: Config, trained: Trained, data: Evaluated
) -> tuple[Structure, Loader, int]:
    """Return the structure on these images, what reads them, and the batch size.

    Batches are padded all the same, and may come from a run on other devices.
    """
    mesh = devices.make_mesh(config.device.mesh)
    structure = _make_structure(config, trained, data)
    loader = Loader(data.images, config.data, mesh)
    options = choose_kernels(structure, loader)
    canary.check_kernels(config.device, mesh, options)
    return structure, loader, choose_batch_size(config, mesh)


def choose_batch_size(config: Config, mesh: jax.sharding.Mesh) -> int:
    """Round the batch size up to a multiple of the devices."""
    count = mesh.shape["data"]
    return -(-config.step.batch_size // count) * count


def _make_structure(config: Config, trained: Trained, data: Evaluated) -> Structure:
    """Make the structure of a run on these images; refuse those it does not take."""
    size, shape = config.data.image_size, data.images.shape
    views = AugmentOptions(tta=config.augment.tta)
    check_image_shape(trained, (size, size, shape[2]) if size else shape)
    pipeline.check_views(views.tta, shape, size)
    return dataclasses.replace(trained.structure, image_size=size, augment=views)
