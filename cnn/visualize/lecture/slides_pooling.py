"""The lecture's slides of a convolution and what shrinks its answer, and of averages.

Each function draws numbers that were computed before; see `lines`.
"""

from collections.abc import Sequence

import jax
import numpy as np

from cnn.ops import rearrange
from cnn.visualize.lecture import sheet, slides_2d
from cnn.visualize.lecture.svg import Drawing, Shown, format_number

_CELL, _EDGE, _TOP, _GAP = 36, 16, 74, 34


def convolve_and_pool(
    x: jax.Array, kernel: jax.Array, y: jax.Array, z: jax.Array
) -> Drawing:
    """Draw a convolution and the max-pooling of what it answers.

    Args:
        x: [1, H, W, 1].
        kernel: [S, S, 1, 1].
        y: the convolution, [1, H', W', 1].
        z: the pooling of 3×3 at stride 2, [1, H'', W'', 1].
    """
    window, stride = 3, 2
    tables, sides = _follow(x, kernel, y), (window, window)
    pooled = np.asarray(z)[0, :, :, 0]
    pooled = slides_2d.follow_windows(pooled, tables[2], sides, stride, "max")
    title = f"Convolution, then max-pooling of {window}×{window}, stride {stride}"
    drawing, lefts = _start(title, tables, pooled.shape[1], pooled.size)
    drawing.text(lefts[3], _TOP - 16, "z", "left small")
    drawing.cells(lefts[3], _TOP, np.full(pooled.shape, np.nan), "empty", _CELL)
    for step, (i, j) in enumerate(np.ndindex(pooled.shape)):
        top, left = i * stride, j * stride
        _frame_both(drawing, lefts, (top, left), window, len(kernel), step)
        spot = (lefts[3] + j * _CELL, _TOP + i * _CELL)
        seen = range(step, pooled.size)
        drawing.cells(*spot, pooled[i, j, None, None], "output", _CELL, seen)
        drawing.rectangle(*spot, _CELL, _CELL, "new", range(step, step + 1))
        formula, bottom = Shown(pooled[i, j], "line"), drawing.height - 20
        drawing.text(_EDGE, bottom, formula, "left small", range(step, step + 1))
    return drawing


def convolve_and_shuffle(
    x: jax.Array, kernel: jax.Array, y: jax.Array, z: jax.Array
) -> Drawing:
    """Draw a convolution and the pixel shuffle of what it answers.

    Args:
        x: [1, H, W, 1].
        kernel: [S, S, 1, 1].
        y: the convolution, [1, H', W', 1].
        z: its blocks of 2×2 as channels, [1, H' / 2, W' / 2, 4].
    """
    tables = _follow(x, kernel, y)
    deep = slides_2d.move_numbers(rearrange.space_to_depth, tables[2][..., None])
    rows, columns, channels = z.shape[1:]
    title = "Convolution, then pixel shuffle: pixels become channels"
    drawing, lefts = _start(title, tables, 2 * columns + 1, rows * columns)
    pitches = (columns * _CELL + _GAP, rows * _CELL + _GAP)
    spots = [
        (lefts[3] + c % 2 * pitches[0], _TOP + c // 2 * pitches[1])
        for c in range(channels)
    ]
    for c, (left, top) in enumerate(spots):
        drawing.text(left, top - 14, f"z, channel {c}", "left small")
        drawing.cells(left, top, np.full((rows, columns), np.nan), "empty", _CELL)
    for step, (i, j) in enumerate(np.ndindex(rows, columns)):
        now, seen = range(step, step + 1), range(step, rows * columns)
        for c, (left, top) in enumerate(spots):
            a, b = divmod(c, 2)
            here = (lefts[2] + (2 * j + b) * _CELL, _TOP + (2 * i + a) * _CELL)
            there = (left + j * _CELL, top + i * _CELL)
            number = tables[2][2 * i + a, 2 * j + b, None, None]
            drawing.cells(*here, number, f"shade{c}", _CELL, seen)
            number = deep[i, j, c, None, None]
            drawing.cells(*there, number, f"shade{c}", _CELL, seen)
            drawing.rectangle(*there, _CELL, _CELL, "new", now)
        _frame_both(drawing, lefts, (2 * i, 2 * j), 2, len(kernel), step)
        text = f"block at row {i}, column {j}: 4 pixels become 1 pixel of 4 channels"
        drawing.text(_EDGE, drawing.height - 20, text, "left small", now)
    return drawing


def average_globally(
    images: tuple[jax.Array, ...],
    layer: tuple[jax.Array, jax.Array],
    logits: jax.Array,
    averages: jax.Array,
) -> Drawing:
    """Draw how images of several sizes are classified with the same weights.

    Args:
        images: each [1, H, W, 1].
        layer: weights [1, K] and bias [K] of a dense layer.
        logits: [images, 1, K].
        averages: [images, 1, 1].
    """
    weights, bias = (np.asarray(each) for each in layer)
    right = _EDGE + max(x.shape[2] for x in images) * _CELL + _GAP
    title = "Global average pooling: any size, the same weights"
    width, height = right + 340, _TOP + max(x.shape[1] for x in images) * _CELL + 30
    drawing = Drawing(width, height, title, len(images))
    drawing.text(_EDGE, 24, title, "title")
    classes = [np.r_[one, x] for one, x in zip(weights.T, bias, strict=True)]
    drawing.text(right, _TOP + 70, "a dense layer, the same for both", "left small")
    for step, x in enumerate(images):
        now, image = range(step, step + 1), np.asarray(x)[0, :, :, 0]
        average = float(averages[step, 0, 0])
        size = f"x, {image.shape[0]}×{image.shape[1]}"
        drawing.text(_EDGE, _TOP - 16, size, "left small", now)
        drawing.cells(_EDGE, _TOP, image, "input", _CELL, now)
        total = f"{format_number(image.sum())} / {image.size} = {average:.4f}"
        drawing.text(right, _TOP + 12, "average of all pixels", "left small", now)
        drawing.text(right, _TOP + 36, total, "left", now)
        for k, (weight, offset) in enumerate(classes):
            formula = _explain_logit(average, weight, offset, logits[step, 0, k])
            where = (right, _TOP + 100 + 30 * k)
            drawing.text(*where, f"class {k}:  {formula}", "left", now)
    return drawing


def _explain_logit(average: float, weight: float, bias: float, logit: float) -> str:
    one, two = (
        f"({x})" if x[0] == "−" else x for x in map(format_number, (weight, bias))
    )
    return f"{average:.4f}·{one} + {two} = {format_number(float(logit))}"


def _follow(x: jax.Array, kernel: jax.Array, y: jax.Array) -> list[np.ndarray]:
    """Make the numbers of an image, of a kernel, and of their convolution."""
    image, taps = np.asarray(x)[0, :, :, 0], np.asarray(kernel)[:, :, 0, 0]
    tables = [sheet.make_numbers(each) for each in (image, taps)]
    values = np.asarray(y)[0, :, :, 0]
    answers = slides_2d.follow_windows(
        values, tables[0], taps.shape, 1, "dot", tables[1]
    )
    return [*tables, answers]


def _start(
    title: str, tables: Sequence[np.ndarray], columns: int, steps: int
) -> tuple[Drawing, list[float]]:
    """Draw the image, the kernel and the convolution; return where each begins."""
    lefts = _place([*(each.shape[1] for each in tables), columns])
    width = max(lefts[-1] + columns * _CELL + _EDGE, 16 + 10 * len(title))
    drawing = Drawing(width, _TOP + len(tables[0]) * _CELL + 44, title, steps)
    drawing.text(_EDGE, 24, title, "title")
    for name, style, left, each in zip(
        ("x", "kernel", "y"), ("input", "kernel", "input"), lefts, tables, strict=False
    ):
        drawing.text(left, _TOP - 16, name, "left small")
        drawing.cells(left, _TOP, each, style, _CELL)
    for name, each in zip(("x", "kernel"), tables, strict=False):
        drawing.offer(name, each)
    return drawing, lefts


def _place(columns: Sequence[int]) -> list[float]:
    """Return where tables of so many columns begin that stand side by side."""
    widths = [count * _CELL + _GAP for count in columns]
    return [_EDGE + sum(widths[:place]) for place in range(len(widths))]


def _frame_both(
    drawing: Drawing,
    lefts: Sequence[float],
    place: tuple[int, int],
    window: int,
    kernel: int,
    step: int,
) -> None:
    """Frame a window of the convolution, and all that it sees of the image."""
    for left, side in ((lefts[0], window + kernel - 1), (lefts[2], window)):
        corner = (left + place[1] * _CELL, _TOP + place[0] * _CELL)
        now = range(step, step + 1)
        drawing.rectangle(*corner, side * _CELL, side * _CELL, "window", now)
