"""What every picture has in common: its place, its caption, its style and its saving.

Colours are those of Okabe and Ito and matplotlib's `viridis`, `cividis` and `RdBu`,
which readers with any colour vision can tell apart. Figures are made without pyplot,
so that no display is needed.

Source: Okabe and Ito 2008, Color Universal Design, https://jfly.uni-koeln.de/color/
"""

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import atomic
from cnn.errors import UserError
from cnn.visualize.draw import lettering

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
)
MARKERS = "osD^vPX*"
_SIGNED, _AMOUNT = "RdBu_r", "viridis"
_DOTS_PER_INCH, _MARGIN, _GAP, _WEBP_QUALITY = 110, 0.1, 0.03, 40
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.loc": "upper right",  # "best" searches, and warns where that is slow
    "figure.titlesize": 11,
    "image.cmap": _AMOUNT,
    "image.interpolation": "nearest",
    "svg.hashsalt": "pictures",
    "text.parse_math": False,  # names may hold dollars
    "text.usetex": False,
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that was drawn.

    Attributes:
        path: the PNG or GIF; line art has an SVG, a photograph a WebP of the same name
            beside it. Of a playground, the JSON that the page loads.
        lines: the lines of Python that compute it, where it shows them.
    """

    path: Path
    title: str
    caption: str
    lines: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """The pictures of one name of `--pictures`.

    Attributes:
        name: that name.
        title: what they are about, one line.
        pictures: in the order in which they are shown.
        notes: what could not be drawn, and why; a sentence each.
    """

    name: str
    title: str
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def use_style() -> Iterator[None]:
    """Draw in the shared style inside this context.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import cycler  # of matplotlib
        import matplotlib
    except ImportError:
        raise UserError("--mode=visualize needs: pip install matplotlib") from None
    colours = {"axes.prop_cycle": cycler.cycler(color=COLOURS)}
    with matplotlib.rc_context({**_STYLE, **colours}):
        yield


def make_figure(width: float, height: float) -> Any:
    """Make an empty figure of a size in inches; see `matplotlib.figure.Figure`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="compressed")


def save(
    figure: Any, path: Path, title: str, caption: str, *, is_line_art: bool = False
) -> Picture:
    """Write a figure as PNG, line art as SVG too, each whole or not at all.

    Args:
        figure: of `make_figure`.
        path: the PNG's.
        is_line_art: whether the figure is made of lines and text.
    """
    lettering.prepare(figure)
    if figure.axes:
        figure.get_layout_engine().execute(figure)
    # It would be laid out, and drawn to find its margins, again for each file.
    figure.set_layout_engine(None)
    figure.set_dpi(_DOTS_PER_INCH)
    margin = {"bbox_inches": figure.get_tightbbox().padded(_MARGIN)}
    drawings = {path: {"format": "png", "dpi": _DOTS_PER_INCH}}
    if is_line_art:
        about = {"format": "svg", "metadata": {"Date": None}}
        drawings[path.with_suffix(".svg")] = about
    for name, how in drawings.items():
        content = io.BytesIO()
        figure.savefig(content, **how, **margin)
        atomic.write_bytes(name, content.getvalue())
    return Picture(path, title, caption)


def save_photograph(figure: Any, path: Path, title: str, caption: str) -> Picture:
    """Write a figure of photographs as PNG, and small, with losses, as WebP.

    Args:
        figure: of `make_figure`.
        path: the PNG's.
    """
    from PIL import Image

    saved = save(figure, path, title, caption)
    with Image.open(path) as image:
        content = io.BytesIO()
        image.convert("RGB").save(content, "webp", quality=_WEBP_QUALITY, method=6)
    atomic.write_bytes(path.with_suffix(".webp"), content.getvalue())
    return saved


def read_pictures(sections: Sequence[Section]) -> dict[str, np.ndarray]:
    """Read every PNG: uint8 [H, W, 3] by `section/file`, without the ending."""
    from PIL import Image

    images = {}
    for section in sections:
        for drawn in section.pictures:
            if drawn.path.suffix == ".png":
                with Image.open(drawn.path) as image:
                    name = f"{section.name}/{drawn.path.stem}"
                    images[name] = np.asarray(image.convert("RGB"))
    return images


def style_line(place: int) -> dict[str, Any]:
    """Return the options of `Axes.plot` for the run at a place among several."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 4}


def show_image(ax: Any, image: np.ndarray, **options: Any) -> Any:
    """Show an image, grey or RGB, without ticks.

    Args:
        image: [H, W, 1] or [H, W, 3], uint8 or floats in 0..1; or [H, W], numbers
            that `options` (`cmap`, `vmin`, `vmax`) say how to colour.
        **options: of `Axes.imshow`.

    Returns:
        What a colour bar is made of.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        top = 255 if image.dtype == np.uint8 else 1
        image = image[..., 0]
        options = options | {"cmap": "gray", "vmin": 0, "vmax": top}
    shown = ax.imshow(image, **options)
    ax.set_xticks([])
    ax.set_yticks([])
    return shown


def show_grid(
    ax: Any,
    grid: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    **options: Any,
) -> Any:
    """Show rows of images of one shape on one pair of axes, which has units of cells.

    Args:
        grid: rows of images, each as `show_image` takes it, of any number of pixels.
        columns: labels above the columns.
        rows: labels to the left of the rows.
        **options: of `Axes.imshow`, for images [H, W].

    Returns:
        What a colour bar of the images [H, W] is made of; None where there is none.
    """
    mappable, width = None, max(len(row) for row in grid)
    for top, row in enumerate(grid):
        for left, image in enumerate(row):
            edges = (left + _GAP, left + 1 - _GAP, top + 1 - _GAP, top + _GAP)
            shown = show_image(ax, image, extent=edges, **options)
            mappable = shown if image.ndim == 2 else mappable
    height, across = grid[0][0].shape[:2]
    ax.set(xlim=(0, width), ylim=(len(grid), 0), aspect=height / across)
    ax.set_facecolor("0.85")
    ax.set_xticks(np.arange(len(columns)) + 0.5, columns)
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.xaxis.set_label_position("top")
    ax.spines[:].set_visible(False)
    return mappable


def show_signed(ax: Any, image: np.ndarray, most: float) -> Any:
    """Show numbers: red above 0, blue below it, white for 0.

    Numbers over RGB are shown as colours, on which grey is 0.

    Args:
        image: [H, W, C], between -most and most; of three channels, colours; of
            others, their mean.
        most: what is as red, or as bright, as can be.

    Returns:
        What a colour bar is made of.
    """
    if image.shape[-1] == 3:
        from matplotlib import cm, colors

        show_image(ax, np.clip(0.5 + 0.5 * image / most, 0, 1))
        # Each colour has its number; grey stands for the scale of all three.
        return cm.ScalarMappable(colors.Normalize(-most, most), "gray")
    return show_image(ax, image.mean(axis=-1), **scale_signed(most))


def show_signed_sheet(
    ax: Any, images: np.ndarray, most: float, columns: int, gap: int = 1
) -> Any:
    """Show images [N, H, W, C] as one sheet, on one scale; see `show_signed`."""
    if images.shape[-1] == 3:
        return show_signed(ax, tile(images, columns, gap, fill=most), most)
    ax.set_facecolor("0.8")
    sheet = tile(images.mean(axis=-1), columns, gap, fill=np.nan)
    return show_signed(ax, sheet[..., None], most)


def scale_signed(most: float) -> dict[str, Any]:
    """Return the options of `Axes.imshow` for numbers between -most and most."""
    return {"cmap": _SIGNED, "vmin": -most, "vmax": most}


def tile(
    images: np.ndarray,
    columns: int,
    gap: int = 1,
    fill: float | tuple[float, ...] = 1,
) -> np.ndarray:
    """Lay images out as one, row by row.

    Args:
        images: [N, H, W] or [N, H, W, C].
        columns: images in a row.
        gap: pixels between them.
        fill: the value of gaps and of places without an image, or one a channel.

    Returns:
        One image of ⌈N / columns⌉ rows.
    """
    images = np.asarray(images)
    rows = -(-len(images) // columns)
    height, width = images.shape[1] + gap, images.shape[2] + gap
    shape = (rows * height - gap, columns * width - gap, *images.shape[3:])
    sheet = np.full(shape, fill, images.dtype)
    for number, image in enumerate(images):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height - gap, left : left + width - gap] = image
    return sheet
