"""The temperature of a run: fitted on validation images, kept, measured."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.config import Config
from cnn.data import identity
from cnn.errors import UserError
from cnn.evaluation import judge, written
from cnn.runtime.terminal import Terminal
from cnn.training import calibration, same_data, tasks, temperature
from cnn.training.trained import Trained

# The share of validation images that a run may have been trained on, as duplicates.
_MOST_TRAINED = 0.1


def choose_temperature(
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
        data = judge.load_images(config, trained, stored)
    except UserError as error:
        raise UserError(
            "--calibrate fits a temperature on validation images, which training with "
            f"--validation_fraction=0.1 sets aside: {error}"
        ) from None
    about, labels = written.describe(config, trained, data), data.images.labels
    record = identity.make_part_record(about["class_names"], "validation", data.images)
    seen = same_data.describe_evaluated(directory, trained.data, record, terminal)
    count = seen.get("trained_images") or 0
    if count > _MOST_TRAINED * len(labels):
        raise UserError(
            f"--calibrate: the run was trained on {count} of the {len(labels)} "
            "validation images, of which it is too sure; give images that it has not "
            "seen"
        )
    subject = judge.Subject(config, directory, trained, [], stored, {})
    logits = judge.compute(subject, data)[1]["logits"]
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


def measure_calibration(
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
