"""Signed numbers as images: red above nothing, blue below it, white for nothing.

Numbers over RGB are shown as colours, on which grey is nothing.
"""

from typing import Any

import numpy as np

from cnn.visualize import picture


def show(ax: Any, image: np.ndarray, most: float) -> Any:
    """Show numbers [H, W, C] between -most and most.

    Args:
        ax: the axes.
        image: of three channels, colours; of others, their mean.
        most: what is as red, or as bright, as can be.

    Returns:
        What a colour bar is made of.
    """
    if image.shape[-1] == 3:
        picture.show_image(ax, np.clip(0.5 + 0.5 * image / most, 0, 1))
        # Each colour has its number; grey stands for the scale of all three.
        return picture.make_scale(-most, most, "gray")
    options = {"cmap": picture.SIGNED, "vmin": -most, "vmax": most}
    return picture.show_image(ax, image.mean(axis=-1), **options)


def show_sheet(
    ax: Any, images: np.ndarray, most: float, columns: int, gap: int = 1
) -> Any:
    """Show images [N, H, W, C] as one sheet, on one scale; see `show`."""
    if images.shape[-1] == 3:
        return show(ax, picture.tile(images, columns, gap, fill=most), most)
    ax.set_facecolor("0.8")
    sheet = picture.tile(images.mean(axis=-1), columns, gap, fill=np.nan)
    return show(ax, sheet[..., None], most)
