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
from cnn.models.variables import flatten_paths
from cnn.visualize.compute import kernels
from cnn.visualize.compute.kernels import PixelWeights
from cnn.visualize.compute.layers import Layer
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.draw.shift import draw_shift
from cnn.visualize.named_run import NamedRun, load_run
from cnn.visualize.subject import Subject

_MOST_KERNELS, _COLUMNS, _BROAD, _CHANNELS = 64, 8, 12, 8
_DEEPER, _SIDE, _MOST_STEPS = 3, 16, 10


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
    first, pictures = run.layers[0], []
    weights = kernels.find_pixel_weights(run.layers, run.trained.image_shape)
    if weights:
        pictures.append(_draw_pixel_weights(subject, run, weights, folder))
    elif not first.is_convolution and not subject.config.visualize.picture_layers:
        pictures.append(_draw_places(subject, run, first, folder))
    if not run.kernels:
        model = run.trained.options["model"]
        subject.note(
            f"{run.name}: {model} shares no kernel among places, none is drawn"
        )
        return pictures
    if not chosen:
        raise UserError("no kernel is among --picture_layers")
    if first.name in chosen and not weights:
        pictures.append(_draw_first(subject, run, folder))
    layers = {layer.name: layer for layer in run.layers}
    deeper = [layers[name] for name in chosen if name != first.name]
    if not subject.config.visualize.picture_layers:
        deeper = [layer for layer in deeper if layer.kernel.shape[0] > 1] or deeper
        deeper = [deeper[i] for i in _spread(len(deeper), _DEEPER)]
    for layer in deeper:
        draw = _draw_depthwise if layer.kernel.shape[2] == 1 else _draw_deeper
        pictures.append(draw(subject, run, layer, folder))
    return pictures + _draw_growth(subject, run, folder)


def _draw_pixel_weights(
    subject: Subject, run: NamedRun, weights: PixelWeights, folder: Path
) -> Picture:
    """Draw the weights that each class, or hidden unit, has for each pixel."""
    images, of_classes = weights.images, weights.are_of_classes
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
    title = subject.entitle(run, describe_pixel_weights(weights, len(order)))
    figure.suptitle(title)
    of = "class" if of_classes else "hidden unit"
    caption = (
        f"Each image holds one {of}'s weight for each pixel, all on one scale: red "
        "(for RGB: bright) pixels speak for it, blue (dark) ones against it."
    )
    path = subject.name_file(folder, run, "kernels", "pixel_weights")
    return picture.save(figure, path, title, caption)


def describe_pixel_weights(weights: PixelWeights, shown: int) -> str:
    """Say whose weights so many images are."""
    total, is_part = len(weights.images), shown < len(weights.images)
    singular, plural = ("class", "classes")
    if not weights.are_of_classes:
        singular, plural = ("hidden unit", "hidden units")
    if is_part:
        return f"the weights of {shown} of {total} {plural}"
    return f"the weights of each {singular}"


def _draw_places(
    subject: Subject, run: NamedRun, layer: Layer, folder: Path
) -> Picture:
    """Draw kernels that differ from place to place, each where it lies."""
    rows, columns, *_, total = layer.kernel.shape
    order = kernels.sort_by_size(kernels.as_images(layer.kernel))[:_CHANNELS]
    images = kernels.as_images(layer.kernel)[order]
    figure = picture.make_figure(1.9 * len(order) / 2 + 1.2, 4.4)
    all_axes = figure.subplots(2, -(-len(order) // 2), squeeze=False).flatten()
    most = np.abs(images).max()
    for ax in all_axes[len(order) :]:
        ax.set_axis_off()
    for ax, channel, places in zip(all_axes, order, images, strict=False):
        sheet = places.reshape(rows * columns, *places.shape[2:])
        shown = picture.show_signed_sheet(ax, sheet, most, columns)
        ax.set_title(f"channel {channel}")
    figure.colorbar(shown, ax=all_axes, label="weight", shrink=0.8)
    size = "×".join(map(str, layer.kernel.shape[2:4]))
    title = subject.entitle(
        run,
        f"{layer.name}, {len(order)} of {total} channels: the {size} kernels of "
        f"{rows}×{columns} places",
    )
    figure.suptitle(title)
    caption = (
        "Each sheet is one channel, largest norm first, with the kernel of each place "
        "where it lies in the image; in a convolution they would all be the same."
    )
    path = subject.name_file(folder, run, "kernels", "places")
    return picture.save(figure, path, title, caption)


def _draw_first(subject: Subject, run: NamedRun, folder: Path) -> Picture:
    """Draw the first layer's kernels, on scales of their own and on one.

    Those that the next layer keeps apart stand apart.
    """
    images, weak = kernels.as_images(run.layers[0].kernel), []
    parts = kernels.sort_columns(images, kernels.find_columns(run.layers)[0])
    shown = [part[:_MOST_KERNELS] for part in parts]
    columns = min(_COLUMNS if len(parts) == 1 else _BROAD, len(shown[0]))
    rows = -(-len(shown[0]) // columns)
    height = len(parts) * max(2.7, 0.5 * rows + 1.1)
    figure = picture.make_figure(2 * 0.5 * columns + 2, height)
    most = np.abs(images[np.concatenate(shown)]).max()
    all_axes = figure.subplots(len(parts), 2, squeeze=False)
    for axes, order in zip(all_axes, shown, strict=True):
        is_weak = kernels.find_negligible(images)[order]
        _show_kernels(axes, images[order], order, is_weak, most, columns)
        weak += list(order[is_weak])
        if len(parts) > 1:
            axes[0].set_ylabel(f"channels {order.min()} to {order.max()}")
    title = subject.entitle(run, describe_first(run.layers, sum(map(len, shown))))
    figure.suptitle(title)
    caption = (
        "Each small image is one kernel, a feature detector, largest norm first: the "
        "patch of an image that excites it most looks like it; on the common scale "
        "weak kernels fade."
    )
    if images.shape[-1] not in (1, 3):
        caption += f" Shown is the mean over its {images.shape[-1]} channels."
    if weak:
        numbers = ", ".join(str(number) for number in sorted(weak))
        caption += (
            f" The kernels of channels {numbers}, ≈ 0, have less than 2 % of the "
            "largest norm and are not scaled up."
        )
    path = subject.name_file(folder, run, "kernels", "first")
    return picture.save(figure, path, title, caption)


def describe_first(layers: Sequence[Layer], shown: int) -> str:
    """Say which so many kernels of a model's first layer are."""
    first, (parts, keeper) = layers[0], kernels.find_columns(layers)
    total = first.kernel.shape[-1]
    which = "the" if shown == total else f"{shown} of the"
    size = "×".join(map(str, first.kernel.shape[:2]))
    text = f"{which} {total} kernels of {first.name}, {size}"
    if parts == 1:
        return text
    return f"{text}, in the {parts} groups that {keeper} keeps apart"


def _show_kernels(
    axes: Any,
    images: np.ndarray,
    order: np.ndarray,
    is_weak: np.ndarray,
    most: float,
    columns: int,
) -> None:
    """Show kernels [n, H, W, C] twice: on scales of their own, and up to `most`.

    Args:
        axes: two.
        order: [n], the kernels' channels.
        is_weak: bool [n], which are negligible.
    """
    own, common = axes
    scaled = kernels.scale_each(images, is_weak)
    shown = picture.show_signed_sheet(own, scaled, 1.0, columns)
    for place in np.flatnonzero(is_weak):
        row, column = divmod(place, columns)
        y, x = (
            at * (side + 1) + (side - 1) / 2
            for at, side in zip((row, column), images.shape[1:3], strict=True)
        )
        text = f"{order[place]}\n≈ 0"
        own.text(x, y, text, fontsize=7, ha="center", va="center")
    own.set_title("each on its own scale")
    own.figure.colorbar(shown, ax=own, label="weight / largest", shrink=0.8)
    shown = picture.show_signed_sheet(common, images, most, columns)
    common.set_title("all on one scale")
    common.figure.colorbar(shown, ax=common, label="weight", shrink=0.8)


def _draw_deeper(
    subject: Subject, run: NamedRun, layer: Layer, folder: Path
) -> Picture:
    """Draw a deeper layer: one row a channel that comes in, one column a kernel."""
    kernel, is_grouped = layer.kernel, layer.groups > 1
    order = kernels.sort_by_size(kernels.as_images(kernel))[:_SIDE]
    inputs = min(_SIDE, kernel.shape[2])
    slices = np.moveaxis(kernel[:, :, :inputs, order], (2, 3), (0, 1))
    sheet = slices.reshape(-1, *kernel.shape[:2], 1)
    figure, ax = _show_table(sheet, range(inputs), order, 0.34)
    ax.tick_params(labelsize=7)
    rows = "channel of its group" if is_grouped else "channel that comes in"
    ax.set(xlabel="kernel, largest norm first", ylabel=rows)
    title = subject.entitle(run, describe_deeper(layer, inputs, len(order)))
    ax.set_title(title)
    caption = (
        "A column is one kernel: what it adds up from each channel that comes in, red "
        "for what excites it and blue for what holds it down."
    )
    if is_grouped:
        caption += " It sees the channels of its own group alone."
    path = subject.name_file(folder, run, "kernels", layer.name)
    return picture.save(figure, path, title, caption)


def _draw_depthwise(
    subject: Subject, run: NamedRun, layer: Layer, folder: Path
) -> Picture:
    """Draw a deeper layer whose kernels see one channel each, as one sheet."""
    images = kernels.as_images(layer.kernel)
    images = images[kernels.sort_by_size(images)[:_MOST_KERNELS]]
    columns = min(_SIDE, len(images))
    rows = -(-len(images) // columns)
    figure = picture.make_figure(0.4 * columns + 1.8, max(2.6, 0.4 * rows + 1.2))
    ax = figure.subplots()
    shown = picture.show_signed_sheet(ax, images, np.abs(images).max(), columns)
    figure.colorbar(shown, ax=ax, label="weight", shrink=0.8)
    total = layer.kernel.shape[-1]
    title = subject.entitle(
        run, f"{layer.name}, {len(images)} of {total} kernels, each of one channel"
    )
    figure.suptitle(title)
    caption = (
        "Each small image is one kernel, largest norm first: it sees one of the "
        "channels that come in, red for what excites it, blue for what holds it down."
    )
    path = subject.name_file(folder, run, "kernels", layer.name)
    return picture.save(figure, path, title, caption)


def describe_deeper(layer: Layer, inputs: int, shown: int) -> str:
    """Say which of a deeper layer's channels and kernels so many are."""
    *_, channels, total = layer.kernel.shape
    of = f" in each of {layer.groups} groups" if layer.groups > 1 else ""
    seen = f"{inputs} of {channels} channels{of}"
    return f"{layer.name}, {seen} × {shown} of {total} kernels"


def _draw_growth(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    """Draw the first layer's kernels at each checkpoint, where there are several."""
    steps = manifest.list_steps(run.directory / "checkpoints")
    steps = [steps[i] for i in _spread(len(steps), _MOST_STEPS)]
    if len(steps) < 2:
        subject.note(
            f"{run.name}: one checkpoint shows no change over training; keep more with "
            "--keep_checkpoints=10"
        )
        return []
    layer = run.layers[0]
    order = kernels.sort_by_size(kernels.as_images(layer.kernel))[:_SIDE]
    sheets = []
    for step in steps:
        is_here = step == run.trained.step
        there = run if is_here else load_run(run.directory, str(step))
        kernel = flatten_paths(there.trained.variables)[layer.path]
        sheets.append(kernels.as_images(kernel)[order])
    figure, ax = _show_table(np.concatenate(sheets), steps, order, 0.45)
    ax.set(xlabel="kernel, largest norm at the end first", ylabel="training step")
    title = subject.entitle(run, f"{layer.name} over training")
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
