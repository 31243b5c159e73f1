"""Activation maximisation: images drawn to excite a channel, or a class."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.visualize.compute import maximisation
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

_MOST_CLASSES = 10


def draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    """Draw what channels of each stage, and the classes, would like to see."""
    stages = subject.get_stages(run)
    totals = {stage.name: stage.shape[-1] for stage in stages}
    layers = subject.choose_layers(run, list(totals))
    rows = {name: subject.choose_channels(totals[name]) for name in layers}
    names = subject.label_classes(run)
    rows["logits"] = np.arange(min(_MOST_CLASSES, len(names)))
    drawn = _maximise(subject, run, rows, totals | {"logits": len(names)})
    found = subject.searched.find_silent(run, stages)
    found["logits"] = np.zeros(len(names), bool)
    columns = max(len(row) for row in rows.values())
    figure = picture.make_figure(1.05 * columns + 1, 1.25 * len(rows) + 0.6)
    axes, any_silent = figure.subplots(len(rows), squeeze=False)[:, 0], False
    for ax, (name, channels) in zip(axes, rows.items(), strict=True):
        images, scores = drawn[name]
        silent = found[name][channels] & (scores <= 0)
        any_silent |= silent.any()
        is_class = name == "logits"
        labels = [lettering.wrap(names[k]) if is_class else str(k) for k in channels]
        left = "class" if is_class else f"{name}\nchannel"
        _draw_row(ax, images, silent, labels, left)
        ax.set(xlim=(0, columns))
    title = subject.entitle(run, "images that excite channels and classes")
    figure.suptitle(title)
    caption = (
        "Each image was drawn from grey noise to excite one channel of the stage at "
        "its left, or in the last row one class, as much as it can."
    )
    if any_silent:
        caption += (
            " A channel that never fires is excited neither by the image that was "
            f"drawn for it nor by {len(subject.searched.images)} of the set."
        )
    path = subject.name_file(folder, run, "maximisation")
    return [picture.save(figure, path, title, caption)]


def _draw_row(
    ax: Any, images: np.ndarray, silent: np.ndarray, labels: list[str], left: str
) -> None:
    """Draw one row; in place of a silent channel's image a word stands."""
    shown = np.where(silent[:, None, None, None], 1, images)
    picture.show_grid(ax, [shown], labels, [left])
    ax.set_facecolor("white")
    for column in np.flatnonzero(silent):
        ax.text(column + 0.5, 0.5, "never\nfires", ha="center", va="center")


def _maximise(
    subject: Subject,
    run: NamedRun,
    rows: dict[str, np.ndarray],
    totals: dict[str, int],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Draw the images of all rows in one call; returns them and their scores by row."""
    count, start, targets, parts = sum(len(row) for row in rows.values()), 0, {}, {}
    for name, channels in rows.items():
        parts[name] = slice(start, start + len(channels))
        weights = np.zeros((count, totals[name]), np.float32)
        weights[start + np.arange(len(channels)), channels] = 1
        targets[name] = weights
        start += len(channels)
    structure = run.trained.structure
    scaling, key = (structure.mean, structure.std), jax.random.key(0)
    images, scores = maximisation.maximise(
        key, run.function, targets, scaling, subject.image_shape
    )
    images, scores = np.asarray(images), np.asarray(scores)
    return {name: (images[part], scores[part]) for name, part in parts.items()}
