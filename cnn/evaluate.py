"""Evaluation of a set of images: padded, masked, every example counted once."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn import augment, devices, epoch, memory, metrics, predict, workdir
from cnn.data import load_dataset
from cnn.data.chunks import Loader, choose_chunk_steps, iterate_chunks
from cnn.data.images import Dataset, Images
from cnn.data.order import make_eval_order
from cnn.devices import processes
from cnn.errors import UserError
from cnn.interrupt import Stop, catch_signals
from cnn.options import format_value, option
from cnn.progress import Pace
from cnn.task import Task
from cnn.transfer import proof

if TYPE_CHECKING:
    from cnn.config import Config
    from cnn.progress import Terminal

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated."""

    split: str = option(
        "test",
        "what evaluate and visualize look at",
        choices=SPLITS,
        changes_run=False,
    )


def compute_metrics(
    program: Callable[..., dict],
    variables: Any,
    loader: Loader,
    batch_size: int,
    num_classes: int,
    stop: Stop,
) -> dict[str, Any]:
    """Evaluate all images of a loader.

    Args:
        program: made by `epoch.make_eval_chunk`.
        variables: `params` and `batch_stats`.
        loader: the images.
        batch_size: images computed at a time.
        num_classes: K.
        stop: looked at between chunks.

    Returns:
        As `metrics.summarise`.

    Raises:
        Interrupted: a signal arrived.
        UserError: the device has too little memory.
    """
    positions, mask = make_eval_order(len(loader), batch_size)
    size = choose_chunk_steps(len(positions), batch_size, loader.image_bytes)
    everywhere, pace = devices.replicated(loader.mesh), Pace()
    sums = devices.put(everywhere, metrics.create_sums(num_classes))
    arrays = {"positions": positions, "mask": mask}
    for first, last, chunk in iterate_chunks(loader, size, arrays):
        while first < last:
            count, started = pace.choose_steps(last - first), time.perf_counter()
            here = first % size
            bounds = (np.int32(here), np.int32(here + count))
            arguments = (variables, sums, chunk, *devices.put(everywhere, bounds))
            with memory.explain_shortage(program, arguments):
                sums = jax.block_until_ready(program(*arguments))
            seconds = processes.find_most(time.perf_counter() - started)
            pace.note(seconds / count)
            first += count
            stop.check()
    return metrics.summarise(sums)


def evaluate(config: "Config", directory: Path, terminal: "Terminal") -> dict:
    """Evaluate a trained run and write `evaluation.json` beside it.

    Args:
        config: the run's options, those of the command line over them.
        directory: the run's directory.
        terminal: where to print.

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
    trained = predict.load_trained(directory, config.checkpoint.checkpoint)
    changed = proof.find_changed(trained.transfer.get("frozen", {}), trained.variables)
    proof.check_unchanged(changed, f"--workdir={directory}")
    dataset = load_dataset(config.data)
    images = get_split(dataset, config.evaluate.split)
    task = _make_task(config, trained, dataset, images)
    loader = Loader(images, config.data, mesh)
    with catch_signals(stop):
        result = compute_metrics(
            epoch.make_eval_chunk(task),
            jax.device_put(trained.variables, devices.replicated(mesh)),
            loader,
            batch_size,
            task.num_classes,
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
    path = directory / _name_file(config, trained.options)
    workdir.write_json(path, result)
    terminal.say(
        f"{config.evaluate.split}: accuracy {result['accuracy']:.4%} "
        f"({result['correct']} of {result['count']}), top-5 {result['top5']:.4%}, "
        f"loss {result['loss']:.6f}"
    )
    terminal.say(f"written to {path}")
    return result


def _make_task(
    config: "Config", trained: predict.Trained, dataset: Dataset, images: Images
) -> Task:
    """Make the task of a run on these images; refuses those that it does not know."""
    size, views = config.data.image_size, config.make_static().augment
    _check_classes(trained, dataset)
    seen = (size, size, images.shape[2]) if size else images.shape
    predict.check_image_shape(trained, seen)
    augment.check_views(views.tta, images.shape, size)
    return dataclasses.replace(trained.task, image_size=size, augment=views)


def get_split(dataset: Dataset, split: str) -> Images:
    """Return the images of a split.

    Raises:
        UserError: the dataset has none of that name.
    """
    images = getattr(dataset, split)
    if images is None:
        raise UserError(
            f"--split={split}: {dataset.name} has no such set; carve one out of train "
            "with --validation_fraction=0.1"
        )
    return images


def _check_classes(trained: predict.Trained, dataset: Dataset) -> None:
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


def _name_file(config: "Config", stored: dict[str, Any]) -> str:
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
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"{name}={format_value(text)}")
    name = ",".join(parts).replace("/", "_")
    if len(name.encode()) > 200:
        name = f"evaluation,{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return name + ".json"
