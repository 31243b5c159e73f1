"""The lecture's slides of images as numbers: scalings, channels and their layouts.

Each function draws numbers that were computed before; see `lines`.
"""

import jax
import numpy as np

from cnn.visualize.lecture.svg import Drawing, format_number

_CELL, _EDGE, _TOP, _GAP = 54, 16, 74, 40
_SPOT = (1, 2)  # the lecture's pixel of 192
_COLOURS = ("red", "green", "blue")
_PLANE, _PLACE = 42, 38
# Of red, green and blue light, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance
_LUMINANCES, _GAMMA, _DARK = (0.2126, 0.7152, 0.0722), 2.2, 0.18


def scale(
    image: np.ndarray, scaled: jax.Array, moments: tuple[jax.Array, jax.Array]
) -> Drawing:
    """Draw the whole numbers of an image, and its three scalings one after another.

    Args:
        image: uint8 [H, W, 1].
        scaled: [3, H, W]: to 0..1, to -1..1, and standardised.
        moments: mean and standard deviation of the scaling to 0..1.
    """
    image, scaled = image[..., 0], np.asarray(scaled)
    mean, deviation = (f"{float(x):.3f}" for x in moments)
    names = ("from 0 to 1", "from −1 to 1", "mean 0, standard deviation 1")
    value = image[_SPOT]
    formulas = (
        f"{value} / 255",
        f"({value} / 255 − 0.5) / 0.5",
        f"({value} / 255 − {mean}) / {deviation}",
    )
    (rows, columns), right = image.shape, _EDGE + image.shape[1] * _CELL + _GAP
    title = "An image is a table of numbers, scaled in three ways"
    width, height = right + columns * _CELL + _EDGE, _TOP + rows * _CELL + 52
    drawing = Drawing(width, height, title, len(names))
    drawing.text(_EDGE, 24, title, "title")
    drawing.text(_EDGE, _TOP - 16, "as stored, 0 to 255", "left small")
    drawing.pixels(_EDGE, _TOP, image / 255, _CELL)
    drawing.pixels(right, _TOP, image / 255, _CELL)
    for place, number in np.ndenumerate(image):
        style = _choose_ink((number / 255) ** _GAMMA)
        drawing.text(*_find_middle(_EDGE, place), str(number), style)
        for step in range(len(names)):
            written = _write(scaled[(step, *place)])
            middle = _find_middle(right, place)
            drawing.text(*middle, written, style, range(step, step + 1))
    for left in (_EDGE, right):
        corner = (left + _SPOT[1] * _CELL, _TOP + _SPOT[0] * _CELL)
        drawing.rectangle(*corner, _CELL, _CELL, "window")
    for step, (name, formula) in enumerate(zip(names, formulas, strict=True)):
        now = range(step, step + 1)
        drawing.text(right, _TOP - 16, name, "left small", now)
        result = f"{formula} = {_write(scaled[(step, *_SPOT)])}"
        drawing.text(_EDGE, height - 24, result, "left", now)
    return drawing


def separate(image: np.ndarray, planes: tuple[np.ndarray, ...]) -> Drawing:
    """Draw a colour image beside its three channels, pixel by pixel.

    Args:
        image: uint8 [H, W, 3].
        planes: its channels, each [H, W].
    """
    rows, columns = image.shape[:2]
    pitches = (columns * _PLANE + _GAP, rows * _PLANE + 46)
    title = "A colour image has three channels"
    width, height = 2 * pitches[0] + 2 * _EDGE - _GAP, _TOP + 2 * pitches[1] + 14
    drawing = Drawing(max(width, 480), height, title, rows * columns)
    drawing.text(_EDGE, 24, title, "title")
    spots = [
        (_EDGE + i * pitches[0], _TOP + j * pitches[1]) for j, i in np.ndindex(2, 2)
    ]
    drawing.text(_EDGE, _TOP - 14, "the image", "left small")
    drawing.pixels(*spots[0], image / 255, _PLANE)
    for c, plane in enumerate(planes):
        left, top = spots[c + 1]
        drawing.text(left, top - 14, f"channel {c}: {_COLOURS[c]}", "left small")
        shown = np.zeros(image.shape)
        shown[..., c] = plane / 255
        drawing.pixels(left, top, shown, _PLANE)
        for (i, j), number in np.ndenumerate(plane):
            middle = (left + (j + 0.5) * _PLANE, top + (i + 0.5) * _PLANE)
            style = _choose_ink(_LUMINANCES[c] * (number / 255) ** _GAMMA)
            drawing.text(*middle, str(number), style)
    for step, (i, j) in enumerate(np.ndindex(rows, columns)):
        now = range(step, step + 1)
        for left, top in spots:
            corner = (left + j * _PLANE, top + i * _PLANE)
            drawing.rectangle(*corner, _PLANE, _PLANE, "window", now)
        parts = [f"{x} {name}" for x, name in zip(image[i, j], _COLOURS, strict=True)]
        text = f"row {i}, column {j}: {', '.join(parts)}"
        drawing.text(_EDGE, height - 20, text, "left", now)
    return drawing


def lay_out(nhwc: np.ndarray, nchw: np.ndarray) -> Drawing:
    """Draw where the numbers of each pixel stand in memory in both layouts.

    Args:
        nhwc: uint8 [1, H, W, 3].
        nchw: the same image, [1, 3, H, W].
    """
    image = nhwc[0]
    rows, columns, channels = image.shape
    title = "One image, two layouts: NHWC and NCHW"
    width, below = 2 * _EDGE + image.size * _PLACE, _TOP + rows * _CELL + 60
    tops = (below, below + _PLACE + 56)
    drawing = Drawing(width, tops[1] + _PLACE + 50, title, rows * columns)
    drawing.text(_EDGE, 24, title, "title")
    drawing.text(_EDGE, _TOP - 16, "the image", "left small")
    drawing.pixels(_EDGE, _TOP, image / 255, _CELL)
    whole = range(image.size)
    places = np.stack([whole, np.reshape(whole, (-1, channels)).T.ravel()])
    shapes = ("NHWC, pixel after pixel: ", "NCHW, channel after channel: ")
    for row, (array, name) in enumerate(zip((nhwc, nchw), shapes, strict=True)):
        size = "×".join(map(str, array.shape))
        drawing.text(_EDGE, tops[row] - 16, name + size, "left small")
        for place, (number, origin) in enumerate(
            zip(array.ravel(), places[row], strict=True)
        ):
            left = _EDGE + place * _PLACE
            style = f"channel{origin % channels}"
            drawing.rectangle(left, tops[row], _PLACE, _PLACE, style)
            middle = (left + _PLACE / 2, tops[row] + _PLACE / 2)
            drawing.text(*middle, str(number), "small")
    for step, (i, j) in enumerate(np.ndindex(rows, columns)):
        now, found = range(step, step + 1), []
        corner = (_EDGE + j * _CELL, _TOP + i * _CELL)
        drawing.rectangle(*corner, _CELL, _CELL, "window", now)
        for row, top in enumerate(tops):
            mine = np.flatnonzero(places[row] // channels == step)
            for place in mine:
                left = _EDGE + place * _PLACE
                drawing.rectangle(left, top, _PLACE, _PLACE, "window", now)
            found.append(", ".join(map(str, mine)))
        text = (
            f"row {i}, column {j} is at places {found[0]} of NHWC, {found[1]} of NCHW"
        )
        drawing.text(_EDGE, drawing.height - 20, text, "left", now)
    return drawing


def _find_middle(left: float, place: tuple[int, int]) -> tuple[float, float]:
    return left + (place[1] + 0.5) * _CELL, _TOP + (place[0] + 0.5) * _CELL


def _choose_ink(luminance: float) -> str:
    """Choose black or white text for a pixel."""
    return "small light" if luminance < _DARK else "small"


def _write(value: float) -> str:
    """Write a number with three decimals and a true minus sign."""
    sign = "" if value >= 0 else format_number(-1.0)[0]
    return f"{sign}{abs(value):.3f}"
