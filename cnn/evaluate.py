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
from cnn.checkpoints import atomic, proof
from cnn.config import Config
from cnn.data import (
    find_own_classes,
    forget_dataset,
    identity,
    is_same_source,
    load_evaluated,
    use_evaluation_sizes,
)
from cnn.data import labels as labelled
from cnn.data.chunks import Loader
from cnn.data.files import describe_bad, format_bad
from cnn.data.images import Evaluated, Images
from cnn.errors import UserError
from cnn.option import format_value, read_group
from cnn.runtime import devices, environment
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.options import DeviceOptions
from cnn.runtime.terminal import Terminal
from cnn.text import format_row, name_file, show_line
from cnn.training import (
    calibration,
    ensemble,
    multilabel,
    same_data,
    tasks,
    temperature,
)
from cnn.training.ensemble import Ensemble, Examples
from cnn.training.epoch import compute_metrics
from cnn.training.steps import Structure
from cnn.training.trained import (
    Trained,
    check_image_shape,
    get_class_names,
    load_trained,
    match_labels,
    set_threshold,
)

# The share of validation images that a run may have been trained on, as duplicates.
_MOST_TRAINED = 0.1
# Options of the data that some values of --split alone depend on.
_READ_BY = {
    "num_classes": (),
    "task": (),
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
    if config.evaluate.ensemble:
        raise UserError("--ensemble averages several runs: give --workdir=A,B,…")
    found = _evaluate(config, directory, terminal)
    terminal.say(_format_result(found.result))
    _write(found.files)
    terminal.say_written(*found.files)
    return found.result


def evaluate_runs(
    directories: Sequence[Path],
    make_config: Callable[[Path], Config],
    averages: bool,
    terminal: Terminal,
) -> int:
    """Evaluate one run after the other: a line each, and a table at the end.

    Args:
        make_config: from a run's directory to the `config` of `evaluate`.
        averages: whether the mean of their probabilities is evaluated too.

    Returns:
        How many could not be evaluated; why is said, and the others are evaluated.

    Raises:
        UserError: probabilities cannot be averaged, or `ensemble.json` is of others.
    """
    rows, failed = [], 0
    mean, members = Ensemble(), {}
    for directory in directories:
        quiet = Terminal()
        quiet.console.quiet = True
        cells = {"run": show_line(str(directory)), "split": "failed"}
        rows.append(cells)
        try:
            found = _evaluate(make_config(directory), directory, quiet)
            terminal.say(f"{directory}: {_format_result(found.result)}")
            cells |= _format_cells(found.result)
            _write(found.files)
        except (UserError, OSError) as error:
            failed += 1
            terminal.say(f"{directory}: error: {error}")
        if averages and not failed:
            members[directory] = found
            ensemble.check_own(_name_ensemble(members), directories)
            mean.add(str(directory), found.take_examples())
    if averages and not failed:
        files, result = _evaluate_ensemble(mean, members)
        name = {"run": f"ensemble of {len(members)}"}
        rows.append(name | _format_cells(result))
    terminal.show(_make_table(rows))
    if failed:
        without = ": no ensemble is made of the others" if averages else ""
        terminal.say(f"{failed} of {len(directories)} runs failed{without}")
    elif averages:
        terminal.say(_format_ensemble(result))
        _write(files)
        terminal.say_written(*files)
    return failed


def _make_table(rows: Sequence[dict[str, str]]) -> Table:
    """Make a table of cells by column; what a run does not have stays empty."""
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n != "loss"]
    table = Table()
    for name in [*names, "loss"]:
        justify = "left" if name in ("run", "split") else "right"
        table.add_column(name, justify=justify)
    for row in rows:
        table.add_row(*(row.get(name, "") for name in [*names, "loss"]))
    return table


@dataclasses.dataclass
class _Evaluation:
    """An evaluated run.

    Attributes:
        path: of its evaluation.json.
        files: what is to be written, by path.
        result: what evaluation.json says.
        examples: what it says of each image, until it is taken; None: not asked for.
    """

    path: Path
    files: dict[Path, str]
    result: dict[str, Any]
    examples: Examples | None

    def take_examples(self) -> Examples:
        """Return the examples and forget them, which may be large."""
        examples, self.examples = self.examples, None
        return examples


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        atomic.write_text(path, text)


def _evaluate(config: Config, directory: Path, terminal: Terminal) -> _Evaluation:
    """Evaluate a run; nothing is written."""
    config = dataclasses.replace(config, data=config.data.for_evaluation())
    trained = load_trained(directory, config.checkpoint.checkpoint)
    trained = set_threshold(trained, config.evaluate.threshold)
    changed = proof.find_changed(trained.transfer.get("frozen", {}), trained.variables)
    proof.check_unchanged(changed, f"--workdir={directory}")
    stored = same_data.find_moved(directory, config.data)
    trained, files = _choose_temperature(config, trained, directory, stored, terminal)
    path = directory / _name_file(config, stored)
    data = load_images(config, trained, stored)
    for note in data.notes + describe_bad(data.excluded):
        terminal.say(note)
    metrics, about, found = _compute(config, trained, data)
    about = _describe(config, trained, data) | about
    about |= same_data.describe_evaluated(
        directory,
        trained.data,
        identity.make_part_record(about["class_names"], about["split"], data.images),
        terminal,
    )
    result = about | proof.summarise(trained.transfer, changed) | metrics
    result |= _measure_calibration(trained, found["logits"], data.images.labels)
    examples, class_names = None, result["class_names"]
    if config.evaluate.ensemble:
        examples = _make_examples(trained, data, class_names, found["logits"])
    if config.evaluate.per_image:
        table = path.with_suffix(".csv")
        said = (*_choose_classes(trained, found["logits"]), found["loss"])
        files[table] = _format_examples(data.name, data.images, class_names, *said)
        result["per_image"] = table.name
    if data.excluded:
        listed = format_bad(data.name, data.excluded)
        files[directory / same_data.BAD_FILE] = listed
    files[path] = _format_json(result)
    return _Evaluation(path, files, result, examples)


def _make_examples(
    trained: Trained, data: Evaluated, class_names: Sequence[str], logits: np.ndarray
) -> Examples:
    """Keep what a run says of each image, for an ensemble."""
    scale = trained.temperature or 1.0
    return Examples(
        class_names=tuple(class_names),
        names=data.images.names,
        stamps=data.images.stamps,
        labels=data.images.labels,
        log_probabilities=calibration.compute_log_probabilities(logits, scale),
    )


def _choose_classes(trained: Trained, logits: np.ndarray) -> tuple[np.ndarray, list]:
    """Return each image's probabilities [N, K] and classes, as `labels.to_lists`."""
    if trained.structure.task is tasks.MULTILABEL:
        probabilities = multilabel.compute_probabilities(logits)
        chosen = multilabel.choose_labels(probabilities, trained.thresholds)
        return probabilities, labelled.to_lists(chosen)
    scale = trained.temperature or 1.0
    logs = calibration.compute_log_probabilities(logits, scale)
    return np.exp(logs), logs.argmax(axis=1).tolist()


def _choose_temperature(
    config: Config,
    trained: Trained,
    directory: Path,
    stored: Mapping[str, Any],
    terminal: Terminal,
) -> tuple[Trained, dict[Path, str]]:
    """Return the model with its temperature, and what is to be written of that."""
    if trained.structure.task is tasks.MULTILABEL:
        _refuse_softmax(config)
        return trained, {}
    if config.evaluate.calibrate:
        return _calibrate(config, trained, directory, stored, terminal)
    trained, line = temperature.apply(trained, directory, config.evaluate.calibration)
    if line:
        terminal.say(line)
    return trained, {}


def _refuse_softmax(config: Config) -> None:
    """Refuse what is not for several labels an image."""
    for name in ("calibrate", "ensemble"):
        if getattr(config.evaluate, name):
            raise UserError(
                f"--{name} is for one class an image, and this run may choose several; "
                "leave it out"
            )


def _calibrate(
    config: Config,
    trained: Trained,
    directory: Path,
    stored: Mapping[str, Any],
    terminal: Terminal,
) -> tuple[Trained, dict[Path, str]]:
    """Fit the temperature on the validation images, and print it."""
    group = dataclasses.replace(config.evaluate, split="validation")
    config = dataclasses.replace(config, evaluate=group)
    try:
        data = load_images(config, trained, stored)
    except UserError as error:
        raise UserError(
            "--calibrate fits a temperature on validation images, which training with "
            f"--validation_fraction=0.1 sets aside: {error}"
        ) from None
    about, labels = _describe(config, trained, data), data.images.labels
    record = identity.make_part_record(about["class_names"], "validation", data.images)
    seen = same_data.describe_evaluated(directory, trained.data, record, terminal)
    count = seen.get("trained_images") or 0
    if count > _MOST_TRAINED * len(labels):
        raise UserError(
            f"--calibrate: the run was trained on {count} of the {len(labels)} "
            "validation images, of which it is too sure; give images that it has not "
            "seen"
        )
    logits = _compute(config, trained, data)[2]["logits"]
    fitted = calibration.fit_temperature(logits, labels)
    trained = dataclasses.replace(trained, temperature=fitted)
    before, after = (
        float(calibration.compute_scores(logits, labels, x).nll.mean())
        for x in (1.0, fitted)
    )
    terminal.say(
        f"calibrated on {len(labels)} validation images, T={fitted:.4g}: negative "
        f"log-likelihood {before:.4f}, now {after:.4f}"
    )
    names = ("dataset", "image_shape", "tta", "averaged")
    kept = {name: about[name] for name in names} | {
        "validation_images": len(labels),
        "dataset_fingerprint": seen.get("dataset_fingerprint", ""),
        "negative_log_likelihood": {"before": before, "after": after},
    }
    text = temperature.format_kept(trained, directory, kept)
    return trained, {directory / temperature.CALIBRATION_FILE: text}


def _measure_calibration(
    trained: Trained, logits: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Measure probabilities as the logits have them, and with the temperature.

    Of several labels an image nothing is measured.
    """
    if trained.structure.task is tasks.MULTILABEL:
        return {}
    scores = calibration.compute_scores(logits, labels)
    found = {"calibration": calibration.summarise(scores)}
    if trained.temperature is not None:
        scores = calibration.compute_scores(logits, labels, trained.temperature)
        found["temperature"] = trained.temperature
        found["calibrated"] = calibration.summarise(scores)
    return found


def _evaluate_ensemble(
    mean: Ensemble, members: Mapping[Path, _Evaluation]
) -> tuple[dict[Path, str], dict[str, Any]]:
    """Evaluate the mean of the members' probabilities."""
    results = {str(directory): one.result for directory, one in members.items()}
    average, files, first = mean.average(), {}, next(iter(results.values()))
    result, path = ensemble.describe(mean, average, results), _name_ensemble(members)
    if "per_image" in first:
        table = path.with_suffix(".csv")
        logs, labels = average.log_probabilities, average.labels
        losses = -np.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
        said = np.exp(logs), logs.argmax(axis=1).tolist(), losses
        files[table] = _format_examples(
            first["dataset"], average, average.class_names, *said
        )
        result["per_image"] = table.name
    files[path] = _format_json(result)
    return files, result


def _name_ensemble(members: Mapping[Path, _Evaluation]) -> Path:
    """Name the file of an ensemble as the evaluation of its first run, beside it."""
    path = next(iter(members.values())).path
    return path.with_name(path.name.replace("evaluation", "ensemble", 1))


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
    mesh = devices.make_mesh(config.device.mesh)
    structure = _make_structure(config, trained, data)
    loader = Loader(data.images, config.data, mesh)
    count = mesh.shape["data"]
    batch_size = -(-config.step.batch_size // count) * count

    def judge(variables: Any) -> dict[str, Any]:
        placed = jax.device_put(variables, devices.replicated(mesh))
        examples = {} if structure.task.keeps_examples else None
        found = compute_metrics(structure, placed, loader, batch_size, stop, examples)
        if examples:
            logits = tasks.concatenate(examples)["logits"]
            found["thresholds"] = multilabel.tune_thresholds(logits, loader.labels)
        return found

    return judge


def _compute(
    config: Config, trained: Trained, data: Evaluated
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Compute metrics.

    Returns:
        The metrics, what they depend on of how they are computed, and of the images
        `logits` [n, K] and `loss` [n].
    """
    mesh, stop = devices.make_mesh(config.device.mesh), Stop()
    # Batches are padded all the same, and may come from a run on other devices.
    count = mesh.shape["data"]
    batch_size = -(-config.step.batch_size // count) * count
    structure = _make_structure(config, trained, data)
    loader = Loader(data.images, config.data, mesh)
    variables = jax.device_put(trained.variables, devices.replicated(mesh))
    examples: dict[str, list[np.ndarray]] = {}
    arguments = structure, variables, loader, batch_size, stop
    with catch_signals(stop):
        found = compute_metrics(*arguments, examples, trained.thresholds)
        if not structure.task.keeps_examples:
            # By the program that the run was tested with: its loss to the last bit.
            found = compute_metrics(*arguments)
    about = {
        "batch_size": batch_size,
        "deterministic": config.device.deterministic,
        **environment.describe(mesh),
    }
    return found, about, {name: np.concatenate(x) for name, x in examples.items()}


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


def _format_examples(
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


def _format_json(result: Mapping[str, Any]) -> str:
    return json.dumps(result, indent=2) + "\n"


def _format_cells(result: Mapping[str, Any]) -> dict[str, str]:
    """Write the numbers of a line of the table, by column."""
    shown = tasks.get_task(result).shown
    shares = {words: f"{result[name]:.4%}" for name, words in shown}
    start = {"split": result["split"], "images": str(result["count"])}
    return start | shares | {"loss": f"{result['loss']:.6f}"}


def _format_ensemble(result: Mapping[str, Any]) -> str:
    best, mean = 100 * result["gain_over_best"], 100 * result["gain_over_mean"]
    return (
        f"ensemble: {_format_result(result)}; {best:+.2f} points over its best member, "
        f"{mean:+.2f} over their mean; two members disagree on "
        f"{result['disagreement']:.2%} of the images"
    )


def _format_result(result: Mapping[str, Any]) -> str:
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
