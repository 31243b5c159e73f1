"""Evaluation of a set of images: padded, masked, every example counted once.

What a run was trained with (scaling, mean, std, precision, loss) is its checkpoint's;
which images, in which size, and the views of each are the options'.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from cnn.augment import pipeline
from cnn.augment.options import AugmentOptions
from cnn.checkpoints import proof, workdir
from cnn.config import Config
from cnn.data import (
    find_own_classes,
    forget_dataset,
    identity,
    is_same_source,
    load_evaluated,
    use_evaluation_sizes,
)
from cnn.data.chunks import Loader
from cnn.data.files import describe_bad, format_bad
from cnn.data.images import Evaluated
from cnn.errors import UserError
from cnn.option import format_value, read_group
from cnn.runtime import devices, environment
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.options import DeviceOptions
from cnn.runtime.terminal import Terminal
from cnn.text import format_row, name_file, show_line
from cnn.training import same_data
from cnn.training.epoch import compute_metrics
from cnn.training.steps import Structure
from cnn.training.trained import (
    Trained,
    check_image_shape,
    get_class_names,
    load_trained,
    match_labels,
)

# Options of the data that some values of --split alone depend on.
_READ_BY = {
    "num_classes": (),
    "train_examples": ("train",),
    "validation_fraction": ("train", "validation"),
    "train_split": ("train", "validation", "all"),
    "validation_split": ("validation", "all"),
    "test_split": ("test", "all"),
    # They are the plain sizes of what is evaluated.
    "image_size_schedule": (),
    "eval_image_size": (),
    "eval_resize_size": (),
}


def evaluate(config: Config, directory: Path, terminal: Terminal) -> dict[str, Any]:
    """Evaluate a trained run and write `evaluation.json` beside it.

    With `--per_image=true` a CSV file of the same name has a line for every image.

    Args:
        config: the run's options, those of the command line over them.

    Returns:
        What was written: the metrics of `metrics.summarise` with all that they depend
        on.

    Raises:
        UserError: the run, the checkpoint or the split is absent, the data has classes
            that the run does not know, or frozen weights are not what they were.
    """
    files, result = _evaluate(config, directory, terminal)
    terminal.say(_format_result(result))
    for path, text in files.items():
        workdir.write_text(path, text)
    terminal.say_written(*files)
    return result


def evaluate_runs(
    directories: Sequence[Path],
    make_config: Callable[[Path], Config],
    terminal: Terminal,
) -> int:
    """Evaluate one run after the other: a line each, and a table at the end.

    Args:
        make_config: from a run's directory to the `config` of `evaluate`.

    Returns:
        How many could not be evaluated; why is said, and the others are evaluated.
    """
    table, failed = Table("run", "split", "images", "accuracy", "top-5", "loss"), 0
    for column in table.columns[2:]:
        column.justify = "right"
    for directory in directories:
        quiet = Terminal()
        quiet.console.quiet = True
        cells = ["failed"]
        try:
            files, result = _evaluate(make_config(directory), directory, quiet)
            terminal.say(f"{directory}: {_format_result(result)}")
            shares = [f"{result[name]:.4%}" for name in ("accuracy", "top5")]
            loss = f"{result['loss']:.6f}"
            cells = [result["split"], str(result["count"]), *shares, loss]
            for path, text in files.items():
                workdir.write_text(path, text)
        except (UserError, OSError) as error:
            failed += 1
            terminal.say(f"{directory}: error: {error}")
        table.add_row(show_line(str(directory)), *cells)
    terminal.show(table)
    if failed:
        terminal.say(f"{failed} of {len(directories)} runs failed")
    return failed


def _evaluate(
    config: Config, directory: Path, terminal: Terminal
) -> tuple[dict[Path, str], dict[str, Any]]:
    """Evaluate a run; return what is to be written by file, and the result."""
    config = dataclasses.replace(config, data=config.data.for_evaluation())
    trained = load_trained(directory, config.checkpoint.checkpoint)
    changed = proof.find_changed(trained.transfer.get("frozen", {}), trained.variables)
    proof.check_unchanged(changed, f"--workdir={directory}")
    stored = same_data.find_moved(directory, config.data)
    path = directory / _name_file(config, stored)
    data = load_images(config, trained, stored)
    for note in data.notes + describe_bad(data.excluded):
        terminal.say(note)
    examples = {} if config.evaluate.per_image else None
    metrics, about = _compute(config, trained, data, examples)
    about = _describe(config, trained, data) | about
    about |= same_data.describe_evaluated(
        directory,
        trained.data,
        identity.make_part_record(about["class_names"], about["split"], data.images),
        terminal,
    )
    result = about | proof.summarise(trained.transfer, changed) | metrics
    files = {}
    if examples is not None:
        table = path.with_suffix(".csv")
        files[table] = _format_examples(result["class_names"], data, examples)
        result["per_image"] = table.name
    if data.excluded:
        listed = format_bad(data.name, data.excluded)
        files[directory / same_data.BAD_FILE] = listed
    return files | {path: json.dumps(result, indent=2) + "\n"}, result


def load_images(
    config: Config, trained: Trained, stored: Mapping[str, Any]
) -> Evaluated:
    """Load the images of `--split`, labelled as the run numbers its classes.

    Args:
        stored: the run's options, as of `same_data.find_moved`.

    Raises:
        UserError: as `load_evaluated`, or the run does not take the images or does
            not know their classes.
    """
    options, split = config.data, config.evaluate.split
    if not options.channels and trained.image_shape[2] == 3:
        # Data that happen to be grey are colour to a run of colour images.
        options = dataclasses.replace(options, channels=3)
    data = load_evaluated(options, split, find_own_classes(stored, options))
    labels = match_labels(trained, data, options.classes)
    images = dataclasses.replace(data.images, labels=labels)
    return dataclasses.replace(data, images=images)


def _compute(
    config: Config,
    trained: Trained,
    data: Evaluated,
    examples: dict[str, list[np.ndarray]] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics, and what they depend on of how they are computed."""
    mesh, stop = devices.make_mesh(config.device.mesh), Stop()
    # Batches are padded all the same, and may come from a run on other devices.
    count = mesh.shape["data"]
    batch_size = -(-config.step.batch_size // count) * count
    structure = _make_structure(config, trained, data)
    loader = Loader(data.images, config.data, mesh)
    variables = jax.device_put(trained.variables, devices.replicated(mesh))
    with catch_signals(stop):
        found = compute_metrics(
            structure, variables, loader, batch_size, stop, examples
        )
    about = {
        "batch_size": batch_size,
        "deterministic": config.device.deterministic,
        **environment.describe(mesh),
    }
    return found, about


def _make_structure(config: Config, trained: Trained, data: Evaluated) -> Structure:
    """Make the structure of a run on these images; refuse those it does not take."""
    size, shape = config.data.image_size, data.images.shape
    views = AugmentOptions(tta=config.augment.tta)
    check_image_shape(trained, (size, size, shape[2]) if size else shape)
    pipeline.check_views(views.tta, shape, size)
    return dataclasses.replace(trained.structure, image_size=size, augment=views)


def _describe(config: Config, trained: Trained, data: Evaluated) -> dict[str, Any]:
    """Return what a number depends on of the run and its images."""
    split, size = config.evaluate.split, config.data.image_size
    height, width, channels = data.images.shape
    options = config.select_run_options()
    read = [field.name for field in dataclasses.fields(config.data)]
    read = [name for name in read if split in _READ_BY.get(name, (split,))]
    return {name: options[name] for name in read if name in options} | {
        "split": split,
        "whole_dataset": data.is_whole,
        "class_names": list(get_class_names(trained, data.class_names)),
        "excluded_count": len(data.excluded),
        "excluded_files": [bad.name for bad in data.excluded],
        "image_shape": [size or height, size or width, channels],
        "channels": channels,
        "scaling": trained.options["scaling"],
        "mean": list(trained.structure.mean),
        "std": list(trained.structure.std),
        "checkpoint": config.checkpoint.checkpoint,
        "step": trained.step,
        "averaged": trained.averaged,
        "tta": config.augment.tta,
        "precision": read_group(DeviceOptions, trained.options).precision,
        "loss_function": trained.structure.loss,
        "loss_reduction": trained.structure.loss_reduction,
    }


def _format_examples(
    class_names: Sequence[str], data: Evaluated, examples: dict[str, list[np.ndarray]]
) -> str:
    """Write a line of CSV for each image, in their order.

    Numbers have the digits that tell one float32 from another.

    Args:
        examples: `logits` [n, K] and `loss` [n] of the images, some at a time.
    """
    logits = np.concatenate(examples["logits"]).astype(np.float64)
    losses = np.concatenate(examples["loss"])
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    names = data.images.names
    columns = [f"probability_{name}" for name in class_names]
    has_paths = data.name.partition(":")[0] in ("folder", "csv")
    first = "path" if has_paths else "id"
    lines = [format_row([first, "label", "prediction", "loss", *columns])]
    for i, label in enumerate(data.images.labels):
        predicted = class_names[int(logits[i].argmax())]
        numbers = [f"{x:.9g}" for x in (losses[i], *probabilities[i])]
        lines.append(format_row([names[i], class_names[label], predicted, *numbers]))
    return "".join(lines)


def _format_result(result: dict[str, Any]) -> str:
    excluded = result["excluded_count"]
    without = f", {excluded} unreadable images left out" if excluded else ""
    return (
        f"{result['split']}: accuracy {result['accuracy']:.4%} "
        f"({result['correct']} of {result['count']}), top-5 {result['top5']:.4%}, "
        f"loss {result['loss']:.6f}{without}"
    )


def _name_file(config: Config, stored: Mapping[str, Any]) -> str:
    """Name the file after what differs from the test set of the run's own data.

    Args:
        stored: the run's options.
    """
    parts = ["evaluation"]
    if config.evaluate.split != "test":
        parts.append(f"split={config.evaluate.split}")
    if config.checkpoint.checkpoint != "latest":
        parts.append(f"checkpoint={config.checkpoint.checkpoint}")
    if config.augment.tta != stored.get("tta", "none"):
        parts.append(f"tta={config.augment.tta}")
    base = forget_dataset(use_evaluation_sizes(stored), config.data.dataset)
    if is_same_source(stored["dataset"], config.data.dataset):
        base["dataset"] = config.data.dataset  # however its path is written
    plain = json.loads(json.dumps(dataclasses.asdict(config.data)))
    unread = config.find_unread(plain, "evaluate")
    for field in dataclasses.fields(config.data):
        name, value = field.name, plain[field.name]
        is_read = field.metadata["changes_run"] and name not in unread
        if is_read and base.get(name, json.loads(json.dumps(field.default))) != value:
            parts.append(f"{name}={format_value(value)}")
    name = ",".join(parts)
    return f"{name_file(name, 'evaluation')}.json"
