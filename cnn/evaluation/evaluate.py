"""The mode evaluate: a set of images, every example counted once.

What a run was trained with (scaling, mean, std, precision, loss) is its checkpoint's;
which images, in which size, and the views of each are the options'.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import atomic, proof
from cnn.config import Config
from cnn.data import identity
from cnn.data import labels as labelled
from cnn.data.files import describe_bad, format_bad
from cnn.data.images import Evaluated
from cnn.errors import UserError
from cnn.evaluation import calibrate, judge, written
from cnn.evaluation.judge import Subject
from cnn.runtime.terminal import Terminal
from cnn.training import calibration, multilabel, same_data, tasks
from cnn.training.ensemble import Examples
from cnn.training.trained import Trained, load_trained, set_threshold


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
    found = evaluate_run(config, directory, terminal)
    terminal.say(written.format_result(found.result))
    write(found.files)
    terminal.say_written(*found.files)
    return found.result


@dataclasses.dataclass
class Evaluation:
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


def evaluate_run(config: Config, directory: Path, terminal: Terminal) -> Evaluation:
    """Evaluate a run; nothing is written."""
    subject = prepare(config, directory, terminal)
    data = judge.load_images(subject.config, subject.trained, subject.stored)
    for note in data.notes + describe_bad(data.excluded):
        terminal.say(note)
    metrics, found = judge.compute(subject, data)
    return conclude(subject, data, metrics, found, terminal)


def prepare(config: Config, directory: Path, terminal: Terminal) -> Subject:
    """Load a run and its temperature; refuse one that is not what it was."""
    config = dataclasses.replace(config, data=config.data.for_evaluation())
    trained = load_trained(directory, config.checkpoint.checkpoint)
    trained = set_threshold(trained, config.evaluate.threshold)
    changed = proof.find_changed(trained.transfer.get("frozen", {}), trained.variables)
    proof.check_unchanged(changed, f"--workdir={directory}")
    stored = same_data.find_moved(directory, config.data)
    trained, files = calibrate.choose_temperature(
        config, trained, directory, stored, terminal
    )
    return Subject(config, directory, trained, changed, stored, files)


def conclude(
    subject: Subject,
    data: Evaluated,
    metrics: dict[str, Any],
    found: dict[str, np.ndarray],
    terminal: Terminal,
) -> Evaluation:
    """Say what was computed of a run, with all that it depends on.

    Args:
        data: its images.
        metrics: of all of them.
        found: of each `logits` [n, K] and `loss` [n].
    """
    config, trained, files = subject.config, subject.trained, subject.files
    directory = subject.directory
    path = directory / written.name_evaluation(config, subject.stored)
    about = written.describe(config, trained, data) | written.describe_machine(config)
    about |= same_data.describe_evaluated(
        directory,
        trained.data,
        identity.make_part_record(about["class_names"], about["split"], data.images),
        terminal,
    )
    result = about | proof.summarise(trained.transfer, subject.changed) | metrics
    result |= calibrate.measure_calibration(
        trained, found["logits"], data.images.labels
    )
    class_names = result["class_names"]
    if config.evaluate.per_image:
        table = path.with_suffix(".csv")
        said = (*_choose_classes(trained, found["logits"]), found["loss"])
        files[table] = written.format_examples(
            data.name, data.images, class_names, *said
        )
        result["per_image"] = table.name
    if data.excluded:
        listed = format_bad(data.name, data.excluded)
        files[directory / same_data.BAD_FILE] = listed
    files[path] = written.format_json(result)
    examples, weights, name = None, "", "ensemble"
    if config.evaluate.ensemble:
        examples = _make_examples(trained, data, class_names, found["logits"])
        weights = proof.hash_variables(trained.variables)
        if config.evaluate.members != "all":
            name += f",members={config.evaluate.members}"
    name = path.name.replace("evaluation", name, 1)
    return Evaluation(path, files, result, name, weights, examples)


def write(files: Mapping[Path, str]) -> None:
    """Write the files of an evaluation, each whole or not at all."""
    for path, text in files.items():
        atomic.write_text(path, text)


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
