"""Top patches: what excites each channel most, stage by stage.

Beside each patch stands what in it does, by guided gradients; where the model has
activations other than ReLU, those keep their plain gradient.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.visualize.compute import patches
from cnn.visualize.compute.features import Stage, map_batches
from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

_TOP, _ACROSS, _COLUMNS = 9, 3, 4
_BLUE = (86, 180, 233)


def draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    """Draw, for channels of each stage, the nine patches that excite them most."""
    stages = {stage.name: stage for stage in subject.get_stages(run) if stage.is_map}
    names = subject.choose_layers(run, list(stages))
    if not stages:
        raise UserError(f"{run.trained.options['model']} has no channels with places")
    if not names:
        raise UserError("no stage with places is among --picture_layers")
    images, peaks = subject.searched.images, subject.searched.find_peaks(run)
    wanted = [_choose(subject, stages[name], peaks[name]) for name in names]
    which, index = (np.concatenate(parts) for parts in zip(*wanted, strict=True))
    counts = [len(found) for found, _ in wanted]
    order = sorted(stage.name for stage in subject.get_stages(run))
    numbers = [order.index(name) for name in names]
    projections = map_batches(
        lambda which, stage, index: patches.project(
            run.function, run.scale(images[np.asarray(which)]), stage, index
        ),
        which,
        np.repeat(np.asarray(numbers, np.int32), counts),
        index,
        pixels=images[0, :, :, 0].size,
        is_gradient=True,
    )
    pictures, ends = [], np.cumsum(counts)
    for name, count, end in zip(names, counts, ends, strict=True):
        part = slice(end - count, end)
        shown = images[which[part]], projections[part], index[part]
        pictures.append(_draw_stage(subject, run, stages[name], *shown, folder))
    return pictures


def _choose(
    subject: Subject, stage: Stage, peaks: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for nine patches of each channel shown, its image and its value's index.

    Channels that no image excites are left out.
    """
    (values, places), total = peaks, stage.shape[-1]
    alive = np.flatnonzero(values.max(axis=0) > 0)
    alive = alive if len(alive) else np.arange(total)
    channels = alive[subject.choose_channels(len(alive))]
    top = patches.choose_top(values[:, channels], _TOP).T
    columns = channels[:, None]
    index = places[top, columns] * total + columns
    return top.reshape(-1).astype(np.int32), index.reshape(-1).astype(np.int32)


def _draw_stage(
    subject: Subject,
    run: NamedRun,
    stage: Stage,
    images: np.ndarray,
    projections: np.ndarray,
    index: np.ndarray,
    folder: Path,
) -> Picture:
    """Draw pairs of sheets, patches and projections, one a channel."""
    _, width, total = stage.shape
    size = min(_TOP, len(subject.searched.images))
    places = [divmod(int(value) // total, width) for value in index]
    cut = [
        np.stack(
            [
                patches.cut_patch(image, stage.field, place, fill)
                for image, place in zip(whole, places, strict=True)
            ]
        )
        for whole, fill in ((images, 128), (projections, 0))
    ]
    channels = index[::size] % total
    columns = min(_COLUMNS, len(channels))
    rows = -(-len(channels) // columns)
    figure = picture.make_figure(2.9 * columns, 1.7 * rows + 0.6)
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for ax in axes.flat[2 * len(channels) :]:
        ax.set_axis_off()
    for number, channel in enumerate(channels):
        pairs = slice(number * size, (number + 1) * size)
        left, right = axes[number // columns, 2 * (number % columns) :][:2]
        shown = _show(left, right, cut[0][pairs], cut[1][pairs])
        left.set_title(f"channel {channel}", loc="left")
        right.set_title("projection", loc="left")
    label = "projection / its largest value"
    figure.colorbar(shown, ax=axes, label=label, shrink=min(1, 2 / rows), aspect=15)
    figure.suptitle(subject.describe(run, stage))
    title = subject.entitle(run, f"what excites {stage.name}")
    caption = (
        "For each channel, left the nine patches of the set that excite it most, "
        "strongest first, each as large as its receptive field (grey lies outside the "
        "image); right, what in each does, by guided gradients, on a scale of its own. "
        "Channels that no image excites are left out."
    )
    path = subject.name_file(folder, run, "patches", stage.name)
    return picture.save(figure, path, title, caption)


def _show(left: Any, right: Any, seen: np.ndarray, projections: np.ndarray) -> Any:
    """Show patches and their projections; returns what a colour bar is made of."""
    seen = np.broadcast_to(seen, (*seen.shape[:3], 3))
    gap = max(1, seen.shape[1] // 12)
    picture.show_image(left, picture.tile(seen, _ACROSS, gap, fill=_BLUE))
    each = projections.astype(np.float32)
    most = np.abs(each).max(axis=(1, 2, 3), keepdims=True)
    each = each / np.maximum(most, 1e-20)
    return picture.show_signed_sheet(right, each, 1, _ACROSS, gap)
