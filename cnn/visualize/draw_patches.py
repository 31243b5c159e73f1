"""Top patches: what excites each channel most, stage by stage.

Beside each patch stands what in it does, by guided gradients; where the model has
activations other than ReLU, those keep their plain gradient.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.visualize import patches, picture, signed
from cnn.visualize.batches import map_batches
from cnn.visualize.features import Stage
from cnn.visualize.named_run import NamedRun
from cnn.visualize.picture import Picture
from cnn.visualize.subject import Subject

_TOP, _ACROSS, _COLUMNS = 9, 3, 4
_BLUE = (86, 180, 233)


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw, for channels of each stage, the nine patches that excite them most.

    Args:
        subject: the runs and the images; `picture_sample` of them are searched.
        folder: where the files go.

    Raises:
        UserError: no run takes the images.
    """
    return subject.draw_runs(
        lambda run: _draw_run(subject, run, folder), subject.fitting_runs
    )


def _draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    stages = {stage.name: stage for stage in subject.get_stages(run) if stage.is_map}
    names = subject.choose_layers(run, list(stages))
    if not stages:
        raise UserError(f"{run.trained.options['model']} has no channels with places")
    images, peaks = subject.searched.images, subject.searched.find_peaks(run)
    wanted = [_choose(subject, stages[name], peaks[name]) for name in names]
    found = [np.concatenate(parts) for parts in zip(*wanted, strict=True)]
    numbers = {name: i for i, name in enumerate(sorted(run.stage_names))}
    stage_of = [
        np.full(len(part[0]), numbers[name], np.int32)
        for name, part in zip(names, wanted, strict=True)
    ]
    projections = map_batches(
        lambda which, stage, index: patches.project(
            run.function, run.scale(images[np.asarray(which)]), stage, index
        ),
        found[0],
        np.concatenate(stage_of),
        found[1],
        pixels=images[0, :, :, 0].size,
    )
    pictures, start = [], 0
    for name, (which, index) in zip(names, wanted, strict=True):
        end = start + len(which)
        path = subject.name_file(folder, run, "patches", name)
        shown = (images[which], projections[start:end], index)
        pictures.append(_draw_stage(run, stages[name], *shown, path))
        start = end
    return pictures


def _choose(
    subject: Subject, stage: Stage, peaks: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for nine patches of each channel shown, its image and its value's index.

    Channels that no image excites are left out.
    """
    values, places = peaks
    total = stage.shape[-1]
    count = min(subject.config.visualize.picture_channels, total)
    alive = np.flatnonzero(values.max(axis=0) > 0)
    alive = alive if len(alive) else np.arange(total)
    channels = alive[np.arange(min(count, len(alive))) * len(alive) // count]
    top = patches.choose_top(values[:, channels], _TOP).T
    columns = channels[:, None]
    index = places[top, columns] * total + columns
    return top.reshape(-1).astype(np.int32), index.reshape(-1).astype(np.int32)


def _draw_stage(
    run: NamedRun,
    stage: Stage,
    images: np.ndarray,
    projections: np.ndarray,
    index: np.ndarray,
    path: Path,
) -> Picture:
    """Draw pairs of sheets, patches and projections, one a channel."""
    _, width, total = stage.shape
    cut = []
    for image, projection, place in zip(images, projections, index, strict=True):
        where = divmod(int(place) // total, width)
        cut.append(
            (
                patches.cut_patch(image, stage.field, where, fill=128),
                patches.cut_patch(projection, stage.field, where),
            )
        )
    channels = index[:: min(_TOP, len(images))] % total
    each = len(index) // len(channels)
    columns = min(_COLUMNS, len(channels))
    rows = -(-len(channels) // columns)
    figure = picture.make_figure(2.9 * columns, 1.7 * rows + 0.6)
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for ax in axes.flat[2 * len(channels) :]:
        ax.set_axis_off()
    for number, channel in enumerate(channels):
        pairs = cut[number * each : (number + 1) * each]
        left, right = axes[number // columns, 2 * (number % columns) :][:2]
        shown = _show(left, right, pairs)
        left.set_title(f"channel {channel}", loc="left")
        right.set_title("projection", loc="left")
    label = "projection / its largest value"
    figure.colorbar(shown, ax=axes, label=label, shrink=min(1, 2 / rows), aspect=15)
    figure.suptitle(f"{run.name}, {stage.describe()}")
    title = f"{run.name}: what excites {stage.name}"
    caption = (
        "For each channel, left the nine patches of the set that excite it most, "
        "strongest first, each as large as its receptive field (grey lies outside the "
        "image); right, what in each does, by guided gradients, on a scale of its own. "
        "Channels that no image excites are left out."
    )
    return picture.save(figure, path, title, caption)


def _show(left: Any, right: Any, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Any:
    """Show patches and their projections; returns what a colour bar is made of."""
    shown = np.stack([patch for patch, _ in pairs])
    shown = np.broadcast_to(shown, (*shown.shape[:3], 3))
    gap = max(1, shown.shape[1] // 12)
    picture.show_image(left, picture.tile(shown, _ACROSS, gap, fill=_BLUE))
    each = np.stack([projection for _, projection in pairs]).astype(np.float32)
    most = np.abs(each).max(axis=(1, 2, 3), keepdims=True)
    return signed.show_sheet(right, each / np.maximum(most, 1e-20), 1, _ACROSS, gap)
