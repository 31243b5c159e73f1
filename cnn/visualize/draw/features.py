"""Features: what each stage makes of an image, channel by channel.

Where a stage ends in a ReLU, what enters it is shown: red passes, blue is stopped at
the threshold, which is white.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.visualize.compute import features
from cnn.visualize.compute.features import Stage
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject


def draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    """Draw the responses of the chosen images, a picture a stage."""
    stages = {stage.name: stage for stage in subject.get_stages(run)}
    names = subject.choose_layers(run, list(stages))
    if not stages:
        model = run.trained.options["model"]
        raise UserError(f"{model} goes from pixels to logits, it has no stages")
    scaled = run.scale(subject.chosen.images)
    responses = features.compute_responses(run.function, scaled)
    pictures = []
    for name in names:
        path = subject.name_file(folder, run, "features", name)
        values, stage = np.asarray(responses[name], np.float32), stages[name]
        draw = _draw_maps if stage.is_map else _draw_units
        draw = _draw_alignments if name == "alignments" else draw
        pictures.append(draw(subject, run, stage, values, path))
    return pictures


def _draw_maps(
    subject: Subject, run: NamedRun, stage: Stage, values: np.ndarray, path: Path
) -> Picture:
    """Draw one row an image, one column a channel."""
    channels = subject.choose_channels(values.shape[-1])
    silent = subject.searched.find_silent(run, [stage])[stage.name]
    most = max(float(np.abs(values[..., channels]).max()), 1e-12)
    columns = [f"never fires\n{k}" if silent[k] else k for k in channels]
    figure, ax, shown = _show(subject, values[..., channels], columns, most)
    ax.set_xlabel("channel")
    label = "response"
    caption = "Each row is an image, each column a channel of the stage"
    if stage.is_thresholded:
        label = "what enters the ReLU (it stops what is below 0)"
        caption += ": the ReLU lets red pass and makes everything blue 0."
        if silent[channels].any():
            searched = len(subject.searched.images)
            caption += (
                f" A channel that never fires passes at no place of {searched} images."
            )
    else:
        caption += ": red is positive, blue negative; no ReLU ends this stage."
    figure.colorbar(shown, ax=ax, label=label, shrink=0.7)
    figure.suptitle(subject.describe(run, stage))
    title = subject.entitle(run, f"features of {stage.name}")
    return picture.save(figure, path, title, caption)


def _draw_units(
    subject: Subject, run: NamedRun, stage: Stage, values: np.ndarray, path: Path
) -> Picture:
    """Draw the units of a dense layer, which have no places: one row an image."""
    most = max(float(np.abs(values).max()), 1e-12)
    figure = picture.make_figure(9, 0.35 * len(values) + 1.4)
    ax = figure.subplots()
    shown = ax.imshow(values, aspect="auto", **picture.scale_signed(most))
    names = [name.replace("\n", " ") for name in subject.chosen.names]
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="unit")
    label = "enters the ReLU" if stage.is_thresholded else "response"
    figure.colorbar(shown, ax=ax, label=label)
    figure.suptitle(subject.describe(run, stage))
    title = subject.entitle(run, f"features of {stage.name}")
    caption = (
        "Each row is an image, each column a unit of the layer: red is positive, blue "
        "negative, and a ReLU makes everything blue 0."
    )
    silent = int(subject.searched.find_silent(run, [stage])[stage.name].sum())
    if silent:
        searched = len(subject.searched.images)
        caption += (
            f" {silent} of {stage.shape[0]} units never fire on {searched} images."
        )
    return picture.save(figure, path, title, caption)


def _draw_alignments(
    subject: Subject, run: NamedRun, stage: Stage, values: np.ndarray, path: Path
) -> Picture:
    """Draw, for each class, how well its weights match at each alignment."""
    count = min(10, values.shape[-1])
    names = [lettering.wrap(name) for name in subject.label_classes(run)]
    height, width = values.shape[1:3]
    centre = np.array([(height - 1) // 2, (width - 1) // 2])
    most = float(np.abs(values).max())
    figure, ax, shown = _show(subject, values[..., :count], names[:count], most)
    ax.set_xlabel("class")
    for row, scores in enumerate(values):
        winner = int(np.argmax(scores.max(axis=(0, 1))))
        for label in range(count):
            best = np.argmax(scores[..., label])
            place = np.array(np.unravel_index(best, (height, width)))
            y, x = row + (place[0] + 0.5) / height, 1 + label + (place[1] + 0.5) / width
            ax.plot(x, y, "kx", markersize=6)
            down, right = place - centre
            weight = "bold" if label == winner else "normal"
            # At the other end of the map than the cross.
            is_low = place[0] > centre[0]
            at = {"fontsize": 7, "ha": "center", "weight": weight}
            at |= {"va": "top" if is_low else "bottom"}
            end = row + (0.05 if is_low else 0.96)
            ax.text(1.5 + label, end, f"{right:+d}, {down:+d}", **at)
    figure.colorbar(shown, ax=ax, label="image · weights at this alignment", shrink=0.7)
    figure.suptitle(f"{run.name}: where the image and each class's weights match")
    title = subject.entitle(run, "alignments of each class")
    caption = (
        "Each map shows, for one class, the match at each shift of the weights; the "
        "cross and the numbers (pixels to the right, pixels down) are the best one; "
        "bold is the class that wins."
    )
    return picture.save(figure, path, title, caption)


def _show(
    subject: Subject, maps: np.ndarray, labels: Sequence[Any], most: float
) -> tuple[Any, Any, Any]:
    """Show images and their maps [n, h, w, k]; returns figure, axes, colours."""
    chosen = subject.chosen
    grid = [
        [image, *np.moveaxis(row, -1, 0)]
        for image, row in zip(chosen.images, maps, strict=True)
    ]
    figure = picture.make_figure(0.95 * len(grid[0]) + 2, 0.95 * len(grid) + 0.8)
    ax, options = figure.subplots(), picture.scale_signed(most)
    columns = ["image", *labels]
    return figure, ax, picture.show_grid(ax, grid, columns, chosen.names, **options)
