"""The lecture's shifted image: what two pixels do to weights that know their place.

It is part of the section of the kernels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.training import calibration
from cnn.visualize.compute import kernels
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import COLOURS, Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

_PIXELS, _MOST_RUNS, _MOST_BARS = 2, 4, 10


def draw_shift(subject: Subject, folder: Path) -> list[Picture]:
    """Draw each run's answer to an image, and to the same two pixels to the right.

    The image is one that the first run with weights for places knows and loses.

    Returns:
        Nothing where no run has weights for each pixel, which is no fault of a run.

    Raises:
        UserError: no run takes the images.
    """
    runs = subject.single_class_runs[:_MOST_RUNS]
    fixed = [run for run in runs if _get_model(run) in ("logistic_regression", "mlp")]
    if not fixed:
        return []
    if "sliding_regression" not in {_get_model(run) for run in runs}:
        subject.note(
            "a run of --model=sliding_regression, given beside this one, shows how "
            "sliding the weights repairs the shifted prediction"
        )
    position = _find_example(subject, fixed[0], runs)
    images = subject.read(np.array([position]))
    images = np.concatenate([images, kernels.shift_right(images, _PIXELS)])
    room = max(lettering.find_room(subject.label_classes(run)) for run in runs)
    figure = picture.make_figure(2.2 + (2.8 + room) * len(runs), 4.6)
    axes = figure.subplots(2, 1 + len(runs), squeeze=False)
    for row, text in enumerate(("as it is", f"{_PIXELS} pixels to the right")):
        picture.show_image(axes[row, 0], images[row])
        axes[row, 0].set_title(text)
    for column, run in enumerate(runs, start=1):
        _draw_answers(subject, run, images, position, axes[:, column])
    title = f"An image shifted by {_PIXELS} pixels"
    figure.suptitle(title)
    caption = (
        "Bars are each model's probabilities, green for the true class: weights that "
        "belong to places lose a shifted image, weights that slide find it again."
    )
    return [picture.save(figure, folder / "kernels_shift.png", title, caption)]


def _draw_answers(
    subject: Subject, run: NamedRun, images: np.ndarray, position: int, axes: Any
) -> None:
    label = subject.get_labels(run)[position]
    probabilities = np.exp(calibration.compute_log_probabilities(run.predict(images)))
    names = subject.label_classes(run)
    shown = np.sort(np.argsort(-probabilities.sum(0))[:_MOST_BARS])
    for ax, row in zip(axes, probabilities, strict=True):
        colours = [COLOURS[2] if k == label else COLOURS[5] for k in shown]
        ax.barh(range(len(shown)), row[shown], color=colours)
        ax.set_yticks(range(len(shown)), [names[k] for k in shown])
        ax.set(xlim=(0, 1), xlabel="probability")
        ax.invert_yaxis()
        verdict = "right" if np.argmax(row) == label else "wrong"
        ax.set_title(f"{run.name}\n{names[np.argmax(row)]}: {verdict}")


def _find_example(subject: Subject, fixed: NamedRun, runs: Sequence[NamedRun]) -> int:
    """Find an image that a model knows and loses, and that most others keep."""
    positions = subject.sample(subject.config.visualize.picture_sample)
    images = subject.read(positions)
    shifted = kernels.shift_right(images, _PIXELS)

    def find_right(run: NamedRun, images: np.ndarray) -> np.ndarray:
        labels = subject.get_labels(run)[positions]
        return np.argmax(run.predict(images), axis=1) == labels

    good = find_right(fixed, images) * 2.0 - 2.0 * find_right(fixed, shifted)
    for run in runs:
        if run is not fixed:
            good += find_right(run, images) & find_right(run, shifted)
    return int(positions[np.argmax(good)])


def _get_model(run: NamedRun) -> str:
    return run.trained.options["model"]
