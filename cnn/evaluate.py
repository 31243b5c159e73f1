"""Evaluation of a set of images: padded, masked, every example counted once."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax

from cnn.augment import pipeline
from cnn.checkpoints import proof, workdir
from cnn.config import Config
from cnn.data import load_dataset
from cnn.data.chunks import Loader
from cnn.data.images import Dataset, Images, get_split
from cnn.errors import UserError
from cnn.option import format_value
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.terminal import Terminal
from cnn.training.epoch import compute_metrics
from cnn.training.steps import Structure
from cnn.training.trained import Trained, check_image_shape, load_trained


def evaluate(config: Config, directory: Path, terminal: Terminal) -> dict:
    """Evaluate a trained run and write `evaluation.json` beside it.

    Args:
        config: the run's options, those of the command line over them.

    Returns:
        What was written: the metrics of `metrics.summarise` with what they are of.

    Raises:
        UserError: the run, the checkpoint or the split is absent, the data has other
            classes, or frozen weights are not what they were.
    """
    mesh, stop = devices.make_mesh(config.device.mesh), Stop()
    # Batches are padded all the same, and may come from a run on other devices.
    count = mesh.shape["data"]
    batch_size = -(-config.step.batch_size // count) * count
    trained = load_trained(directory, config.checkpoint.checkpoint)
    changed = proof.find_changed(trained.transfer.get("frozen", {}), trained.variables)
    proof.check_unchanged(changed, f"--workdir={directory}")
    dataset = load_dataset(config.data)
    images = get_split(dataset, config.evaluate.split)
    structure = _make_structure(config, trained, dataset, images)
    loader = Loader(images, config.data, mesh)
    with catch_signals(stop):
        result = compute_metrics(
            structure,
            jax.device_put(trained.variables, devices.replicated(mesh)),
            loader,
            batch_size,
            stop,
        )
    about = {
        "dataset": config.data.dataset,
        "split": config.evaluate.split,
        "checkpoint": config.checkpoint.checkpoint,
        "step": trained.step,
        "class_names": list(dataset.class_names),
    }
    result = about | proof.summarise(trained.transfer, changed) | result
    terminal.say(
        f"{config.evaluate.split}: accuracy {result['accuracy']:.4%} "
        f"({result['correct']} of {result['count']}), top-5 {result['top5']:.4%}, "
        f"loss {result['loss']:.6f}"
    )
    path = directory / _name_file(config, trained.options)
    workdir.write_json(path, result)
    terminal.say(f"written to {path}")
    return result


def _make_structure(
    config: Config, trained: Trained, dataset: Dataset, images: Images
) -> Structure:
    """Make the structure of a run on these images; refuse those it does not know."""
    size, views = config.data.image_size, config.make_static().augment
    _check_classes(trained, dataset)
    seen = (size, size, images.shape[2]) if size else images.shape
    check_image_shape(trained, seen)
    pipeline.check_views(views.tta, images.shape, size)
    return dataclasses.replace(trained.structure, image_size=size, augment=views)


def _check_classes(trained: Trained, dataset: Dataset) -> None:
    there, here = trained.class_names, dataset.class_names
    if not trained.classes_are_named and len(there) == len(here):
        return
    if there != here:
        raise UserError(
            f"The run knows the classes {_shorten(there)}, but {dataset.name} has "
            f"{_shorten(here)}; evaluate needs the same, in the same order"
        )


def _shorten(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, … ({len(names)})" if len(names) > 5 else shown


def _name_file(config: Config, stored: dict[str, Any]) -> str:
    """Name the file after what differs from the test set of the run's own data.

    A name that no file system takes is replaced by its hash.
    """
    parts = ["evaluation"]
    if config.evaluate.split != "test":
        parts.append(f"split={config.evaluate.split}")
    if config.checkpoint.checkpoint != "latest":
        parts.append(f"checkpoint={config.checkpoint.checkpoint}")
    if config.augment.tta != stored.get("tta", "none"):
        parts.append(f"tta={config.augment.tta}")
    plain = json.loads(json.dumps(dataclasses.asdict(config.data)))
    for field in dataclasses.fields(config.data):
        name, value = field.name, plain[field.name]
        if field.metadata["changes_run"] and stored.get(name) != value:
            parts.append(f"{name}={format_value(value)}")
    name = ",".join(parts).replace("/", "_")
    if len(name.encode()) > 200:
        name = f"evaluation,{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return name + ".json"
