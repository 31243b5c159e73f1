"""The lecture's slides of two dimensions: windows over images, channels, shuffling.

The numbers in the cells are computed by the operators of `cnn.ops`; each function
returns a flip-book with a step for each output, row by row.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from cnn.ops import convolution, pooling, rearrange
from cnn.visualize.lecture import sheet
from cnn.visualize.lecture.svg import Drawing, Shown

_CELL, _SMALL, _EDGE, _TOP, _GAP = 42, 34, 16, 64, 44
_LEAST = 560  # room for a title


def convolve(
    x: Sequence[Sequence[float]], kernel: Sequence[Sequence[float]], stride: int = 1
) -> Drawing:
    """Draw a kernel that slides over an image, as `convolution.conv2d` computes it.

    Args:
        x: [H, W].
        kernel: [Sh, Sw]; its taps stand small in the window's cells.
        stride: pixels between windows.
    """
    image, taps = sheet.make_numbers(x), sheet.make_numbers(kernel)
    values = convolution.conv2d(
        jnp.asarray(x, jnp.float32)[None, :, :, None],
        jnp.asarray(kernel, jnp.float32)[:, :, None, None],
        stride=stride,
    )
    values = np.asarray(values)[0, :, :, 0]
    sizes = f"{_size(image)} → {_size(values)}"
    title = f"Convolution of an image, stride {stride}: {sizes}"
    return _draw_windows(title, image, values, taps.shape, stride, "dot", taps)


def max_pool(x: Sequence[Sequence[float]], window: int, stride: int) -> Drawing:
    """Draw a maximum that slides over an image, as `pooling.max_pool2d` takes it."""
    image, batch = sheet.make_numbers(x), jnp.asarray(x, jnp.float32)[None, ..., None]
    values = np.asarray(pooling.max_pool2d(batch, window, stride))[0, :, :, 0]
    title = (
        f"Max-pooling of {window}×{window} pixels, stride {stride}: "
        f"{_size(image)} → {_size(values)}"
    )
    return _draw_windows(title, image, values, (window, window), stride, "max")


def avg_pool(x: Sequence[Sequence[float]], window: int) -> Drawing:
    """Draw averages side by side, as `pooling.avg_pool2d` takes them."""
    image, batch = sheet.make_numbers(x), jnp.asarray(x, jnp.float32)[None, ..., None]
    values = np.asarray(pooling.avg_pool2d(batch, window))[0, :, :, 0]
    title = (
        f"Average pooling of {window}×{window} pixels: {_size(image)} → {_size(values)}"
    )
    return _draw_windows(title, image, values, (window, window), window, "mean")


def convolve_channels(x: np.ndarray, kernel: np.ndarray) -> Drawing:
    """Draw how a convolution sums over channels.

    Args:
        x: [H, W, C].
        kernel: [Sh, Sw, C], the kernel of one output channel.
    """
    image = jnp.asarray(x, jnp.float32)[None]
    taps = jnp.asarray(kernel, jnp.float32)
    (height, width, channels), window = x.shape, kernel.shape[:2]
    # With a group a channel, nothing is summed over channels yet.
    parts = convolution.conv2d(image, taps[:, :, None, :], groups=channels)[0]
    values = convolution.conv2d(image, taps[..., None])[0, :, :, 0]
    numbers, weights = sheet.make_numbers(x), sheet.make_numbers(kernel)
    parts = np.stack(
        [
            follow_windows(part, numbers[..., c], window, 1, "dot", weights[..., c])
            for c, part in enumerate(np.moveaxis(np.asarray(parts), -1, 0))
        ],
        axis=-1,
    )
    values = _sum_channels(np.asarray(values), parts)
    title = f"Convolution of {channels} channels: a kernel for each, one sum"
    pitch = height * _SMALL + 34
    middle = _EDGE + width * _SMALL + _GAP
    right = middle + window[1] * _SMALL + _GAP
    last = right + 60 + _GAP
    size = (last + values.shape[1] * _CELL + _EDGE, _TOP + channels * pitch + 24)
    drawing = Drawing(max(size[0], _LEAST), size[1], title, values.size)
    drawing.text(_EDGE, 24, title, "title")
    for c in range(channels):
        top = _TOP + c * pitch
        drawing.text(_EDGE, top - 10, f"x, channel {c}", "left small")
        drawing.cells(_EDGE, top, numbers[..., c], f"shade{c}", _SMALL)
        drawing.text(middle, top - 10, f"kernel, channel {c}", "left small")
        drawing.cells(middle, top, weights[..., c], f"shade{c}", _SMALL)
        drawing.offer(f"x, channel {c}", numbers[..., c])
        drawing.offer(f"kernel, channel {c}", weights[..., c])
    down = _TOP + (channels * pitch - values.shape[0] * _CELL) / 2
    drawing.text(last, down - 14, "y", "left small")
    drawing.cells(last, down, np.full(values.shape, np.nan), "empty", _CELL)
    for step, (i, j) in enumerate(np.ndindex(values.shape)):
        now, later = range(step, step + 1), range(step, values.size)
        for c in range(channels):
            top = _TOP + c * pitch
            _frame(drawing, _EDGE, top, (i, j), window, _SMALL, now)
            place = (right, top + _SMALL / 2)
            drawing.cells(*place, parts[i, j, c, None, None], f"shade{c}", 46, now)
        place = (last + j * _CELL, down + i * _CELL)
        drawing.cells(*place, values[i, j, None, None], "output", _CELL, later)
        drawing.rectangle(*place, _CELL, _CELL, "new", now)
        formula = Shown(values[i, j], "line")
        drawing.text(_EDGE, drawing.height - 16, formula, "left", now)
    return drawing


def _sum_channels(values: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Make the numbers of outputs [H, W] that are the sums of parts [H, W, C]."""
    numbers = np.empty(values.shape, object)
    for place, value in np.ndenumerate(values):
        numbers[place] = sheet.follow(value, "sum", parts[place])
    return numbers


def shuffle(x: Sequence[Sequence[float]], inverse: bool = False) -> Drawing:
    """Draw how blocks of 2×2 pixels become four channels, or the way back.

    What is read stands left, what is made of it right.

    Args:
        x: [H, W], both even.
        inverse: draw `rearrange.depth_to_space` in place of `space_to_depth`.
    """
    flat = sheet.make_numbers(x)
    deep = move_numbers(rearrange.space_to_depth, flat[..., None])
    if inverse:
        flat = move_numbers(rearrange.depth_to_space, deep)[..., 0]
    rows, columns, channels = deep.shape
    names = [f"{_size(flat)}×1", f"{rows}×{columns}×{channels}"]
    names = names[::-1] if inverse else names
    kind = "Depth to space" if inverse else "Pixel shuffle, space to depth"
    title = f"{kind}: {names[0]} → {names[1]}"
    pitches = (columns * _CELL + 34, rows * _CELL + 34)
    whole, parts = flat.shape[1] * _CELL, 2 * pitches[0] - 34
    at = _EDGE + (parts + 2 * _GAP if inverse else 0)
    aside = _EDGE + (0 if inverse else whole + 2 * _GAP)
    width, height = whole + parts + 2 * _GAP + 2 * _EDGE, _TOP + 2 * pitches[1]
    drawing = Drawing(max(width, _LEAST), height, title, rows * columns)
    drawing.text(_EDGE, 24, title, "title")
    of_image, of_channels = ("y", "x") if inverse else ("x", "y")
    spots = [
        (aside + c % 2 * pitches[0], _TOP + c // 2 * pitches[1])
        for c in range(channels)
    ]
    for c, (left, top) in enumerate(spots):
        drawing.text(left, top - 10, f"{of_channels}, channel {c}", "left small")
        drawing.cells(left, top, np.full((rows, columns), np.nan), "empty", _CELL)
        if inverse:
            drawing.offer(f"x, channel {c}", deep[..., c])
    if not inverse:
        drawing.offer("x", flat)
    drawing.text(at, _TOP - 10, of_image, "left small")
    drawing.cells(at, _TOP, np.full(flat.shape, np.nan), "empty", _CELL)
    for step, (i, j) in enumerate(np.ndindex(rows, columns)):
        later = range(step, rows * columns)
        for c, (left, top) in enumerate(spots):
            a, b = divmod(c, 2)
            there = (left + j * _CELL, top + i * _CELL)
            here = (at + (2 * j + b) * _CELL, _TOP + (2 * i + a) * _CELL)
            style = f"shade{c}"
            seen = (later, None) if inverse else (None, later)
            pixel = flat[2 * i + a, 2 * j + b, None, None]
            drawing.cells(*here, pixel, style, _CELL, seen[0])
            drawing.cells(*there, deep[i, j, c, None, None], style, _CELL, seen[1])
    frames = ("new", "window") if inverse else ("window", "new")
    for step, (i, j) in enumerate(np.ndindex(rows, columns)):
        now = range(step, step + 1)
        for left, top in spots:
            _frame(drawing, left, top, (i, j), (1, 1), _CELL, now, frames[1])
        _frame(drawing, at, _TOP, (2 * i, 2 * j), (2, 2), _CELL, now, frames[0])
    return drawing


def move_numbers(operator: Callable, numbers: np.ndarray) -> np.ndarray:
    """Move numbers [H, W, C] as an operator of `rearrange` does with blocks of 2×2."""
    places = jnp.arange(numbers.size).reshape(1, *numbers.shape)
    return numbers.ravel()[np.asarray(operator(places, 2))[0]]


def follow_windows(
    values: np.ndarray,
    image: np.ndarray,
    window: tuple[int, int],
    stride: int,
    operation: str,
    taps: np.ndarray | None = None,
) -> np.ndarray:
    """Make the numbers of outputs [H, W] from the windows of an image's numbers."""
    numbers = np.empty(values.shape, object)
    for (i, j), value in np.ndenumerate(values):
        inside = image[i * stride :, j * stride :][: window[0], : window[1]]
        lists = (inside,) if taps is None else (inside, taps)
        numbers[i, j] = sheet.follow(value, operation, *lists)
    return numbers


def _draw_windows(
    title: str,
    image: np.ndarray,
    values: np.ndarray,
    window: tuple[int, int],
    stride: int,
    operation: str,
    taps: np.ndarray | None = None,
) -> Drawing:
    """Draw input and output, and at each step the window, its taps and the formula."""
    outputs = follow_windows(values, image, window, stride, operation, taps)
    free = _EDGE + image.shape[1] * _CELL + _GAP
    right = free if taps is None else free + taps.shape[1] * _CELL + _GAP
    width = max(right + values.shape[1] * _CELL + _EDGE, _LEAST)
    height = _TOP + image.shape[0] * _CELL + 44
    drawing = Drawing(width, height, title, values.size)
    drawing.text(_EDGE, 24, title, "title")
    drawing.text(_EDGE, _TOP - 14, "x", "left small")
    drawing.text(right, _TOP - 14, "y", "left small")
    drawing.cells(_EDGE, _TOP, image, "input", _CELL)
    drawing.cells(right, _TOP, np.full(values.shape, np.nan), "empty", _CELL)
    drawing.offer("x", image)
    if taps is not None:
        drawing.offer("kernel", taps)
        drawing.text(free, _TOP - 14, "kernel", "left small")
        drawing.cells(free, _TOP, taps, "kernel", _CELL)
    for step, (i, j) in enumerate(np.ndindex(values.shape)):
        now, later = range(step, step + 1), range(step, values.size)
        top, left = i * stride, j * stride
        _frame(drawing, _EDGE, _TOP, (top, left), window, _CELL, now)
        for (a, b), tap in np.ndenumerate(taps if taps is not None else ()):
            x1 = _EDGE + (left + b + 1) * _CELL - 3
            y1 = _TOP + (top + a + 1) * _CELL - 8
            drawing.text(x1, y1, Shown(tap, "tap", _CELL - 6), "tap", now)
        spot = (right + j * _CELL, _TOP + i * _CELL)
        drawing.cells(*spot, outputs[i, j, None, None], "output", _CELL, later)
        drawing.rectangle(*spot, _CELL, _CELL, "new", now)
        formula = Shown(outputs[i, j], "line")
        drawing.text(_EDGE, height - 20, formula, "left small", now)
    return drawing


def _frame(
    drawing: Drawing,
    left: float,
    top: float,
    place: tuple[int, int],
    window: tuple[int, int],
    cell: float,
    during: range,
    style: str = "window",
) -> None:
    """Frame a window at (row, column) of a table."""
    x, y = left + place[1] * cell, top + place[0] * cell
    drawing.rectangle(x, y, window[1] * cell, window[0] * cell, style, during)


def _size(values: np.ndarray) -> str:
    return "×".join(map(str, values.shape))
