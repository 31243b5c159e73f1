"""Kernels: what the first layers look for, and how it came about.

Weights are shown from blue (negative) through white (nothing) to red (positive);
kernels over RGB as colours, on which grey is nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import manifest
from cnn.errors import UserError
from cnn.visualize.compute import kernels
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.draw.shift import draw_shift
from cnn.visualize.named_run import NamedRun, load_run
from cnn.visualize.subject import Subject

_MOST_KERNELS, _COLUMNS, _DEEPER, _SIDE, _MOST_STEPS = 64, 8, 3, 16, 10


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw class weights, kernels of the first and of deeper layers, their growth.

    The images matter for the shifted one alone, so that every run is drawn.

    Raises:
        UserError: no run can be loaded.
    """
    pictures = subject.draw_runs(
        lambda run: _draw_run(subject, run, folder), subject.runs
    )
    return pictures + subject.attempt("shift", draw_shift, subject, folder)


def _draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    chosen = subject.choose_layers(run, list(run.kernels))
    pictures = _draw_pixel_weights(subject, run, folder)
    if not run.kernels:
        model = run.trained.options["model"]
        subject.note(
            f"{run.name}: {model} shares no kernel among places, none is drawn"
        )
        return pictures
    if not chosen:
        raise UserError("no kernel is among --picture_layers")
    first = next(iter(run.kernels))
    is_sliding = run.kernels[first].shape[:2] == run.trained.image_shape[:2]
    if first in chosen and not is_sliding:
        pictures.append(_draw_first(subject, run, first, folder))
    deeper = [name for name in chosen if name != first]
    if not subject.config.visualize.picture_layers:
        deeper = [name for name in deeper if run.kernels[name].shape[0] > 1] or deeper
        deeper = [deeper[i] for i in _spread(len(deeper), _DEEPER)]
    pictures += [_draw_deeper(subject, run, name, folder) for name in deeper]
    return pictures + _draw_growth(subject, run, first, folder)


def _draw_pixel_weights(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    """Draw the weights that each class, or hidden unit, has for each pixel."""
    found = kernels.find_pixel_weights(
        run.trained.variables["params"], run.trained.image_shape
    )
    if not found:
        return []
    ((name, images),) = found.items()
    of_classes = name != "dense1"
    order = range(len(images)) if of_classes else kernels.sort_by_size(images)
    order = list(order)[:_MOST_KERNELS]
    labels = range(len(images))
    if of_classes:
        names = lettering.make_labels(run.trained.class_names)
        labels = [lettering.wrap(name) for name in names]
    columns = 5 if len(order) <= 20 else 8
    rows = -(-len(order) // columns)
    figure = picture.make_figure(1.3 * columns + 0.8, 1.5 * rows + 0.5)
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    most = np.abs(images).max()
    for ax in all_axes:
        ax.set_axis_off()
    for ax, number in zip(all_axes, order, strict=False):
        shown = picture.show_signed(ax, images[number], most)
        ax.set_title(labels[number])
    figure.colorbar(shown, ax=all_axes, label="weight", shrink=0.8)
    of = "class" if of_classes else "hidden unit"
    title = f"{run.name}: the weights of each {of}"
    if len(order) < len(images):
        title = f"{run.name}: the weights of {len(order)} of {len(images)} {of}s"
    figure.suptitle(title)
    caption = (
        f"Each image holds one {of}'s weight for each pixel, all on one scale: red "
        "(for RGB: bright) pixels speak for it, blue (dark) ones against it."
    )
    path = subject.name_file(folder, run, "kernels", "pixel_weights")
    return [picture.save(figure, path, title, caption)]


def _draw_first(subject: Subject, run: NamedRun, name: str, folder: Path) -> Picture:
    """Draw the first layer's kernels, on scales of their own and on one."""
    images = kernels.as_images(run.kernels[name])
    total, order = len(images), kernels.sort_by_size(images)[:_MOST_KERNELS]
    images = images[order]
    negligible = np.flatnonzero(kernels.find_negligible(images))
    most = np.abs(images).max()
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = picture.make_figure(2 * 0.5 * columns + 2, max(2.7, 0.5 * rows + 1.1))
    own, common = figure.subplots(1, 2)
    shown = picture.show_signed_sheet(own, kernels.scale_each(images), 1.0, columns)
    for place in negligible:
        row, column = divmod(place, columns)
        y, x = (
            at * (side + 1) + (side - 1) / 2
            for at, side in zip((row, column), images.shape[1:3], strict=True)
        )
        text = f"{order[place]}\n≈ 0"
        own.text(x, y, text, fontsize=7, ha="center", va="center")
    own.set_title("each on its own scale")
    figure.colorbar(shown, ax=own, label="weight / largest", shrink=0.8)
    shown = picture.show_signed_sheet(common, images, most, columns)
    common.set_title("all on one scale")
    figure.colorbar(shown, ax=common, label="weight", shrink=0.8)
    size = "×".join(map(str, images.shape[1:3]))
    which = "the" if len(images) == total else f"{len(images)} of the"
    title = f"{run.name}: {which} {total} kernels of {name}, {size}"
    figure.suptitle(title)
    caption = (
        "Each small image is one kernel, largest norm first: the image patch that "
        "excites it most looks like it; on the common scale weak kernels fade."
    )
    if len(negligible):
        numbers = ", ".join(str(number) for number in sorted(order[negligible]))
        caption += (
            f" The kernels of channels {numbers}, ≈ 0, have less than 2 % of the "
            "largest norm and are not scaled up."
        )
    path = subject.name_file(folder, run, "kernels", "first")
    return picture.save(figure, path, title, caption)


def _draw_deeper(subject: Subject, run: NamedRun, name: str, folder: Path) -> Picture:
    """Draw a deeper layer: one row a channel that comes in, one column a kernel."""
    kernel = run.kernels[name]
    order = kernels.sort_by_size(kernels.as_images(kernel))[:_SIDE]
    inputs = min(_SIDE, kernel.shape[2])
    slices = np.moveaxis(kernel[:, :, :inputs, order], (2, 3), (0, 1))
    sheet = slices.reshape(-1, *kernel.shape[:2], 1)
    figure, ax = _show_table(sheet, range(inputs), order, 0.34)
    ax.tick_params(labelsize=7)
    ax.set(xlabel="kernel, largest norm first", ylabel="channel that comes in")
    title = f"{run.name}: {name}, {inputs} of {kernel.shape[2]} channels × " + (
        f"{len(order)} of {kernel.shape[3]} kernels"
    )
    ax.set_title(title)
    caption = (
        "A column is one kernel: what it adds up from each channel that comes in, red "
        "for what excites it and blue for what holds it down."
    )
    path = subject.name_file(folder, run, "kernels", name)
    return picture.save(figure, path, title, caption)


def _draw_growth(
    subject: Subject, run: NamedRun, name: str, folder: Path
) -> list[Picture]:
    """Draw a layer's kernels at each checkpoint of the run, where there are several."""
    steps = manifest.list_steps(run.directory / "checkpoints")
    steps = [steps[i] for i in _spread(len(steps), _MOST_STEPS)]
    if len(steps) < 2:
        subject.note(
            f"{run.name}: one checkpoint shows no change over training; keep more with "
            "--keep_checkpoints=10"
        )
        return []
    order = kernels.sort_by_size(kernels.as_images(run.kernels[name]))[:_SIDE]
    sheets = []
    for step in steps:
        loaded = load_run(run.directory, str(step)).kernels[name]
        sheets.append(kernels.as_images(loaded)[order])
    figure, ax = _show_table(np.concatenate(sheets), steps, order, 0.45)
    ax.set(xlabel="kernel, largest norm at the end first", ylabel="training step")
    title = f"{run.name}: {name} over training"
    ax.set_title(title)
    caption = (
        "Each column is one kernel at the checkpoints of the run, from top to bottom, "
        "all on one scale."
    )
    path = subject.name_file(folder, run, "kernels", "over_training")
    return [picture.save(figure, path, title, caption)]


def _show_table(
    images: np.ndarray, rows: Sequence[Any], columns: Sequence[Any], side: float
) -> tuple[Any, Any]:
    """Show images [rows · columns, H, W, C] with labels; returns figure and axes.

    Args:
        images: row by row, all on one scale.
        rows: their labels.
        columns: their labels.
        side: of an image, in inches.
    """
    width, height = side * len(columns) + 1.8, side * len(rows) + 1.3
    figure = picture.make_figure(max(4.5, width), max(2.6, height))
    ax, most = figure.subplots(), np.abs(images).max()
    shown = picture.show_signed_sheet(ax, images, most, len(columns))
    down, across = images.shape[1] + 1, images.shape[2] + 1
    ax.set_yticks([down * (i + 0.5) - 1 for i in range(len(rows))], rows)
    ax.set_xticks([across * (i + 0.5) - 1 for i in range(len(columns))], columns)
    ax.tick_params(length=0)
    figure.colorbar(shown, ax=ax, label="weight", shrink=0.8)
    return figure, ax


def _spread(total: int, count: int) -> list[int]:
    """Return `count` positions of `total`, or all, evenly spread, both ends among."""
    count = min(count, total)
    return [round(i * (total - 1) / max(1, count - 1)) for i in range(count)]
