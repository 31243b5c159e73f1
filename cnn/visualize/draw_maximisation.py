"""Activation maximisation: images drawn to excite a channel, or a class."""

from pathlib import Path

import jax
import numpy as np

from cnn.visualize import maximisation, picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.picture import Picture
from cnn.visualize.subject import Subject

_MOST_CLASSES = 10


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw what channels of each stage, and the classes, would like to see.

    Args:
        subject: the runs.
        folder: where the files go.

    Raises:
        UserError: no run takes the images.
    """
    return subject.draw_runs(
        lambda run: [_draw_run(subject, run, folder)], subject.fitting_runs
    )


def _draw_run(subject: Subject, run: NamedRun, folder: Path) -> Picture:
    stages = {stage.name: stage.shape[-1] for stage in subject.get_stages(run)}
    rows = {}
    for name in subject.choose_layers(run, list(stages)):
        total = stages[name]
        count = min(subject.config.visualize.picture_channels, total)
        rows[name] = np.arange(count) * total // count
    names = subject.get_class_names(run)
    rows["logits"] = np.arange(min(_MOST_CLASSES, len(names)))
    images = _maximise(subject, run, rows, stages | {"logits": len(names)})
    columns = max(len(row) for row in rows.values())
    figure = picture.make_figure(1.05 * columns + 1, 1.25 * len(rows) + 0.6)
    axes, start = figure.subplots(len(rows), squeeze=False)[:, 0], 0
    for ax, (name, channels) in zip(axes, rows.items(), strict=True):
        row = images[start : start + len(channels)]
        start += len(channels)
        labels = [names[k] if name == "logits" else str(k) for k in channels]
        picture.show_grid(
            ax, [row], labels, ["class" if name == "logits" else f"{name}\nchannel"]
        )
        ax.set(xlim=(0, columns), facecolor="white")
    title = f"{run.name}: images that excite channels and classes"
    figure.suptitle(title)
    caption = (
        "Each image was drawn from grey noise to excite one channel of the stage at "
        "its left, or in the last row one class, as much as it can."
    )
    path = subject.name_file(folder, run, "maximisation")
    return picture.save(figure, path, title, caption)


def _maximise(
    subject: Subject,
    run: NamedRun,
    rows: dict[str, np.ndarray],
    totals: dict[str, int],
) -> np.ndarray:
    """Draw the images of all rows, one after the other, in one call."""
    count, start, targets = sum(len(row) for row in rows.values()), 0, {}
    for name, channels in rows.items():
        weights = np.zeros((count, totals[name]), np.float32)
        weights[start + np.arange(len(channels)), channels] = 1
        targets[name] = weights
        start += len(channels)
    task = run.trained.task
    scaling, key = (task.mean, task.std), jax.random.key(0)
    images, _ = maximisation.maximise(
        key, run.function, targets, scaling, subject.image_shape
    )
    return np.asarray(images)
