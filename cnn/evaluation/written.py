"""What an evaluation is called, what it depends on, and how it is written."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnn.config import Config
from cnn.data import forget_dataset, is_same_source, use_evaluation_sizes
from cnn.data import labels as labelled
from cnn.data.images import Evaluated, Images
from cnn.evaluation import judge
from cnn.option import format_value, read_group
from cnn.runtime import devices, environment
from cnn.runtime.options import DeviceOptions
from cnn.text import format_row, name_file, show_line
from cnn.training import tasks
from cnn.training.ensemble import Examples
from cnn.training.trained import Trained, get_class_names

# Options of the data that some values of --split alone depend on.
_READ_BY = {
    "num_classes": (),
    "task": (),
    "train_examples": ("train",),
    "drop_examples": ("train",),
    "validation_fraction": ("train", "validation"),
    "train_split": ("train", "validation", "all"),
    "validation_split": ("validation", "all"),
    "test_split": ("test", "all"),
    # They are the plain sizes of what is evaluated.
    "image_size_schedule": (),
    "eval_image_size": (),
    "eval_resize_size": (),
}


def name_evaluation(config: Config, stored: Mapping[str, Any]) -> str:
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
    if config.evaluate.threshold:
        parts.append(f"threshold={format_value(config.evaluate.threshold)}")
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


def describe(config: Config, trained: Trained, data: Evaluated) -> dict[str, Any]:
    """Return what a number depends on of the run and its images."""
    split, size = config.evaluate.split, config.data.image_size
    height, width, channels = data.images.shape
    options = config.select_run_options()
    read = [field.name for field in dataclasses.fields(config.data)]
    read = [name for name in read if split in _READ_BY.get(name, (split,))]
    task, about = trained.structure.task, {}
    if task is tasks.MULTILABEL:
        about["task"] = task.name
        if config.evaluate.threshold:
            about["threshold"] = config.evaluate.threshold
    about |= {name: options[name] for name in read if name in options}
    return about | {
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


def describe_machine(config: Config) -> dict[str, Any]:
    """Return what a number depends on of how it was computed."""
    mesh = devices.make_mesh(config.device.mesh)
    return {
        "batch_size": judge.choose_batch_size(config, mesh),
        "deterministic": config.device.deterministic,
        **environment.describe(mesh),
    }


def format_examples(
    dataset: str,
    images: Images | Examples,
    class_names: Sequence[str],
    probabilities: np.ndarray,
    predicted: Sequence,
    losses: np.ndarray,
) -> str:
    """Write a line of CSV for each image, in their order; several labels as `a|b`.

    Numbers have the digits that tell one float32 from another.

    Args:
        dataset: the value of `--dataset`.
        images: `names` and `labels` of them, [n].
        probabilities: [n, K].
        predicted: as of `labels.to_lists`.
        losses: [n].
    """
    labels = labelled.to_lists(images.labels)
    columns = [f"probability_{name}" for name in class_names]
    has_paths = dataset.partition(":")[0] in ("folder", "csv")
    first = "path" if has_paths else "id"
    lines = [format_row([first, "label", "prediction", "loss", *columns])]
    for i, pair in enumerate(zip(labels, predicted, strict=True)):
        written = [labelled.write(label, class_names) for label in pair]
        numbers = [f"{x:.9g}" for x in (losses[i], *probabilities[i])]
        lines.append(format_row([images.names[i], *written, *numbers]))
    return "".join(lines)


def format_json(result: Mapping[str, Any]) -> str:
    """Write what evaluation.json says."""
    return json.dumps(result, indent=2) + "\n"


def format_cells(result: Mapping[str, Any]) -> dict[str, str]:
    """Write the numbers of a line of the table, by column."""
    shown = tasks.get_task(result).shown
    shares = {words: f"{result[name]:.4%}" for name, words in shown}
    start = {"split": result["split"], "images": str(result["count"])}
    return start | shares | {"loss": f"{result['loss']:.6f}"}


def format_ensemble(result: Mapping[str, Any]) -> str:
    """Write the line of an ensemble, beside its members."""
    best, mean = 100 * result["gain_over_best"], 100 * result["gain_over_mean"]
    metric, name = result["compared_by"], show_line(result["best_member"])
    return (
        f"ensemble: {format_result(result)}; {best:+.2f} points over its best member "
        f"({name}, {result[f'best_{metric}']:.4%}), {mean:+.2f} over their mean "
        f"({result[f'mean_{metric}']:.4%}); two members disagree on "
        f"{result['disagreement']:.2%} of the images"
    )


def format_result(result: Mapping[str, Any]) -> str:
    """Write the line of a run: metrics, loss, calibration error, files left out."""
    excluded = result.get("excluded_count", 0)
    without = f", {excluded} unreadable images left out" if excluded else ""
    errors = [
        f"{result[name]['expected_calibration_error']['value']:.4f}"
        for name in ("calibration", "calibrated")
        if name in result
    ]
    task = tasks.get_task(result)
    (name, words), *others = task.shown
    right = f"{result['correct']} of " if "correct" in result else ""
    parts = [f"{words} {result[name]:.4%} ({right}{result['count']})"]
    parts += [f"{words} {result[name]:.4%}" for name, words in others]
    parts.append(f"loss {result['loss']:.6f}")
    if errors:
        scaled = f", at T={result.get('temperature', 1):.4g} ".join(errors)
        parts.append(f"calibration error {scaled}")
    return f"{result['split']}: {', '.join(parts)}{without}"
