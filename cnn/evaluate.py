"""Evaluation of a set of images: padded, masked, every example counted once.

What a run was trained with (scaling, mean, std, precision, loss) is its checkpoint's;
which images, in which size, and the views of each are the options'.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from cnn.training.epoch import compute_metrics, compute_stacked
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
# Of weights and answers of the runs that one program evaluates.
_STACKED_BYTES = 2**30
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
        which = config.evaluate.members
        among = "" if which == "all" else f" for --members={which}"
        raise UserError(
            "--ensemble averages several runs: give --workdir=A,B,…, or the directory "
            f"of a sweep{among}"
        )
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
    place: Path | None = None,
) -> int:
    """Evaluate one run after the other: a line each, and a table at the end.

    Args:
        make_config: from a run's directory to the `config` of `evaluate`.
        averages: whether the mean of their probabilities is evaluated too; runs of one
            structure are then computed in one program.
        place: directory of `ensemble.json`, of a sweep whose trials the runs are; None:
            that of the first run.

    Returns:
        How many could not be evaluated; why is said, and the others are evaluated.

    Raises:
        UserError: probabilities cannot be averaged, or `ensemble.json` is of others.
    """
    rows, failed = [], 0
    mean, members = Ensemble(), {}
    iterate = _evaluate_stacked if averages else _evaluate_each
    for directory, found in iterate(directories, make_config):
        cells = {"run": show_line(str(directory)), "split": "failed"}
        rows.append(cells)
        try:
            if isinstance(found, Exception):
                raise found
            terminal.say(f"{directory}: {_format_result(found.result)}")
            cells |= _format_cells(found.result)
            _write(found.files)
        except (UserError, OSError) as error:
            failed += 1
            terminal.say(f"{directory}: error: {error}")
        if averages and not failed:
            members[directory] = found
            ensemble.check_own(_name_ensemble(members, place), directories, place)
            mean.add(str(directory), found.take_examples())
    if averages and not failed:
        files, result = _evaluate_ensemble(mean, members, place)
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


def _evaluate_each(
    directories: Sequence[Path], make_config: Callable[[Path], Config]
) -> Iterator[tuple[Path, "_Evaluation | Exception"]]:
    """Evaluate runs, each as if it were alone; yields why one could not be."""
    for directory in directories:
        try:
            yield directory, _evaluate(make_config(directory), directory, _be_quiet())
        except (UserError, OSError) as error:
            yield directory, error


def _evaluate_stacked(
    directories: Sequence[Path], make_config: Callable[[Path], Config]
) -> Iterator[tuple[Path, "_Evaluation | Exception"]]:
    """Evaluate runs, successive ones of one structure and data in one program."""
    load, stack = functools.lru_cache(1)(load_evaluated), None
    for directory in directories:
        try:
            subject = _prepare(make_config(directory), directory, _be_quiet())
        except (UserError, OSError) as error:
            yield from _compute_stack(stack)
            stack = None
            yield directory, error
            continue
        if stack is not None and not stack.takes(subject):
            yield from _compute_stack(stack)
            stack = None
        if stack is not None:
            stack.subjects.append(subject)
            continue
        try:
            images = load_images(subject.config, subject.trained, subject.stored, load)
            stack = _Stack([subject], images)
        except (UserError, OSError) as error:
            yield directory, error
    yield from _compute_stack(stack)


def _be_quiet() -> Terminal:
    quiet = Terminal()
    quiet.console.quiet = True
    return quiet


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
        ensemble: the name of the ensemble's file that belongs to it.
        weights_sha256: of its weights, as of `proof.hash_variables`; empty: not asked
            for.
        examples: what it says of each image, until it is taken; None: not asked for.
    """

    path: Path
    files: dict[Path, str]
    result: dict[str, Any]
    ensemble: str
    weights_sha256: str
    examples: Examples | None

    def take_examples(self) -> Examples:
        """Return the examples and forget them, which may be large."""
        examples, self.examples = self.examples, None
        return examples


@dataclasses.dataclass
class _Subject:
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


@dataclasses.dataclass
class _Stack:
    """Runs that one program evaluates, and their images."""

    subjects: list[_Subject]
    images: Evaluated

    def takes(self, subject: _Subject) -> bool:
        """Whether a run is another of these, and there is room for it."""
        leaves = jax.tree.leaves(subject.trained.variables)
        answers = len(self.images.images) * (len(subject.trained.class_names) + 1)
        bytes_each = sum(x.nbytes for x in leaves) + 4 * answers
        is_room = (len(self.subjects) + 1) * bytes_each <= _STACKED_BYTES
        return is_room and self.subjects[0].make_key() == subject.make_key()


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        atomic.write_text(path, text)


def _evaluate(config: Config, directory: Path, terminal: Terminal) -> _Evaluation:
    """Evaluate a run; nothing is written."""
    subject = _prepare(config, directory, terminal)
    data = load_images(subject.config, subject.trained, subject.stored)
    for note in data.notes + describe_bad(data.excluded):
        terminal.say(note)
    metrics, found = _compute(subject, data)
    return _conclude(subject, data, metrics, found, terminal)


def _compute_stack(
    stack: _Stack | None,
) -> Iterator[tuple[Path, _Evaluation | Exception]]:
    """Evaluate the runs of a stack, if there is one; nothing is written."""
    subjects = [] if stack is None else stack.subjects
    try:
        if len(subjects) == 1:  # by the program that it was tested with
            found = [_compute(subjects[0], stack.images)]
        elif subjects:
            found = _compute_together(subjects, stack.images)
    except (UserError, OSError) as error:
        yield from ((subject.directory, error) for subject in subjects)
        return
    for number, subject in enumerate(subjects):
        try:
            own, found[number] = found[number], None
            yield (
                subject.directory,
                _conclude(subject, stack.images, *own, _be_quiet()),
            )
        except (UserError, OSError) as error:
            yield subject.directory, error


def _prepare(config: Config, directory: Path, terminal: Terminal) -> _Subject:
    """Load a run and its temperature; refuse one that is not what it was."""
    config = dataclasses.replace(config, data=config.data.for_evaluation())
    trained = load_trained(directory, config.checkpoint.checkpoint)
    trained = set_threshold(trained, config.evaluate.threshold)
    changed = proof.find_changed(trained.transfer.get("frozen", {}), trained.variables)
    proof.check_unchanged(changed, f"--workdir={directory}")
    stored = same_data.find_moved(directory, config.data)
    trained, files = _choose_temperature(config, trained, directory, stored, terminal)
    return _Subject(config, directory, trained, changed, stored, files)


def _conclude(
    subject: _Subject,
    data: Evaluated,
    metrics: dict[str, Any],
    found: dict[str, np.ndarray],
    terminal: Terminal,
) -> _Evaluation:
    """Say what was computed of a run, with all that it depends on.

    Args:
        data: its images.
        metrics: of all of them.
        found: of each `logits` [n, K] and `loss` [n].
    """
    config, trained, files = subject.config, subject.trained, subject.files
    directory = subject.directory
    path = directory / _name_file(config, subject.stored)
    about = _describe(config, trained, data) | _describe_machine(config)
    about |= same_data.describe_evaluated(
        directory,
        trained.data,
        identity.make_part_record(about["class_names"], about["split"], data.images),
        terminal,
    )
    result = about | proof.summarise(trained.transfer, subject.changed) | metrics
    result |= _measure_calibration(trained, found["logits"], data.images.labels)
    class_names = result["class_names"]
    if config.evaluate.per_image:
        table = path.with_suffix(".csv")
        said = (*_choose_classes(trained, found["logits"]), found["loss"])
        files[table] = _format_examples(data.name, data.images, class_names, *said)
        result["per_image"] = table.name
    if data.excluded:
        listed = format_bad(data.name, data.excluded)
        files[directory / same_data.BAD_FILE] = listed
    files[path] = _format_json(result)
    examples, weights, name = None, "", "ensemble"
    if config.evaluate.ensemble:
        examples = _make_examples(trained, data, class_names, found["logits"])
        weights = proof.hash_variables(trained.variables)
        if config.evaluate.members != "all":
            name += f",members={config.evaluate.members}"
    name = path.name.replace("evaluation", name, 1)
    return _Evaluation(path, files, result, name, weights, examples)


def _make_examples(
    trained: Trained, data: Evaluated, class_names: Sequence[str], logits: np.ndarray
) -> Examples:
    """Keep what a run says of each image, for an ensemble."""
    if trained.structure.task is tasks.MULTILABEL:
        logs = multilabel.compute_log_probabilities(logits)
    else:
        scale = trained.temperature or 1.0
        logs = calibration.compute_log_probabilities(logits, scale)
    return Examples(
        class_names=tuple(class_names),
        names=data.images.names,
        stamps=data.images.stamps,
        labels=data.images.labels,
        log_probabilities=logs,
        thresholds=trained.thresholds,
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
    if config.evaluate.calibrate:
        raise UserError(
            "--calibrate is for one class an image, and this run may choose several; "
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
    subject = _Subject(config, directory, trained, [], stored, {})
    logits = _compute(subject, data)[1]["logits"]
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
    mean: Ensemble, members: Mapping[Path, _Evaluation], place: Path | None
) -> tuple[dict[Path, str], dict[str, Any]]:
    """Evaluate the mean of the members' probabilities."""
    results = {
        str(directory): one.result | {"weights_sha256": one.weights_sha256}
        for directory, one in members.items()
    }
    average, files, first = mean.average(), {}, next(iter(results.values()))
    result = ensemble.describe(mean, average, results)
    path = _name_ensemble(members, place)
    if "per_image" in first:
        table, names = path.with_suffix(".csv"), average.class_names
        chosen = labelled.to_lists(average.choose_classes())
        said = average.compute_probabilities(), chosen, average.compute_losses()
        files[table] = _format_examples(first["dataset"], average, names, *said)
        result["per_image"] = table.name
    files[path] = _format_json(result)
    return files, result


def _name_ensemble(members: Mapping[Path, _Evaluation], place: Path | None) -> Path:
    """Name the file of an ensemble as the evaluation of its first run."""
    first = next(iter(members.values()))
    return (place or first.path.parent) / first.ensemble


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


def _compute(
    subject: _Subject, data: Evaluated
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


def _compute_together(
    subjects: Sequence[_Subject], data: Evaluated
) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Compute what `_compute` does of each of several runs, in one program."""
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
    return structure, loader, _choose_batch_size(config, mesh)


def _choose_batch_size(config: Config, mesh: jax.sharding.Mesh) -> int:
    """Round the batch size up to a multiple of the devices."""
    count = mesh.shape["data"]
    return -(-config.step.batch_size // count) * count


def _describe_machine(config: Config) -> dict[str, Any]:
    """Return what a number depends on of how it was computed."""
    mesh = devices.make_mesh(config.device.mesh)
    return {
        "batch_size": _choose_batch_size(config, mesh),
        "deterministic": config.device.deterministic,
        **environment.describe(mesh),
    }


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
    metric, name = result["compared_by"], show_line(result["best_member"])
    return (
        f"ensemble: {_format_result(result)}; {best:+.2f} points over its best member "
        f"({name}, {result[f'best_{metric}']:.4%}), {mean:+.2f} over their mean "
        f"({result[f'mean_{metric}']:.4%}); two members disagree on "
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
