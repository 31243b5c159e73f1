"""The sheet of a training batch: its images as the model sees them, by their loss."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture

_COLUMNS, _MOST, _SIDE = 10, 100, 0.8


def draw(
    images: np.ndarray, losses: np.ndarray, ids: Sequence[int], path: Path
) -> Picture:
    """Draw the images of a batch, the highest loss first, a hundred at most.

    Args:
        images: uint8 [N, H, W, C], in the order in which they are shown.
        losses: float [N], of these.
        ids: of these.
        path: of the PNG.
    """
    shown = images[:_MOST]
    if shown.shape[-1] not in (1, 3):
        shown = shown.mean(axis=-1, keepdims=True).astype(np.uint8)
    height, width = shown.shape[1:3]
    rows = -(-len(shown) // _COLUMNS)
    with picture.use_style():
        size = _SIDE * height / width
        figure = picture.make_figure(_SIDE * _COLUMNS, (size + 0.35) * rows + 0.3)
        axes = figure.subplots(rows, _COLUMNS, squeeze=False).reshape(-1)
        for ax in axes[len(shown) :]:
            ax.axis("off")
        for ax, image, loss, number in zip(axes, shown, losses, ids, strict=False):
            picture.show_image(ax, image)
            ax.set_title(f"{loss:.3g}\n{number}", fontsize=6)
        return picture.save(
            figure,
            path,
            "The batch of a training step, by loss",
            "Each image as the model is trained on it, with its loss in nats and the "
            "number of its example, the highest loss first.",
        )
