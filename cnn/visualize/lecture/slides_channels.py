"""The lecture's layers of several channels: a kernel for each pair, sums over inputs.

Each function draws numbers that were computed before; see `lines`. There is a step for
each output, place by place, the output channels of a place in turn.
"""

from collections.abc import Sequence

import jax
import numpy as np

from cnn.ops import convolution
from cnn.visualize.lecture import sheet
from cnn.visualize.lecture.svg import Drawing, Shown

_CELL, _EDGE, _TOP, _GAP = 38, 16, 74, 40


def convolve_1d(x: jax.Array, kernel: jax.Array, y: jax.Array) -> Drawing:
    """Draw a layer of one dimension.

    Args:
        x: [1, L, C].
        kernel: [S, C, O].
        y: [1, L', O].
    """
    return _draw(x[:, None], kernel[None], y[:, None], is_flat=True)


def convolve_2d(x: jax.Array, kernel: jax.Array, y: jax.Array) -> Drawing:
    """Draw a layer of two dimensions.

    Args:
        x: [1, H, W, C].
        kernel: [S, S, C, O].
        y: [1, H', W', O].
    """
    return _draw(x, kernel, y, is_flat=False)


def _draw(x: jax.Array, kernel: jax.Array, y: jax.Array, is_flat: bool) -> Drawing:
    """Draw the input channels below each other, the kernels and outputs beside them."""
    image, taps = (sheet.make_numbers(np.asarray(each)) for each in (x[0], kernel))
    outputs = _follow(image, taps, np.asarray(y)[0], _sum_by_channel(x, kernel))
    high, wide, channels, count = taps.shape
    gap = 0 if is_flat else 30
    pitch = image.shape[0] * _CELL + gap
    left = _EDGE + image.shape[1] * _CELL + _GAP
    kernels = [left + o * (wide * _CELL + 22) for o in range(count)]
    last = kernels[-1] + wide * _CELL + _GAP
    size = "×".join(map(str, taps.shape[is_flat:]))
    title = f"A layer of {channels} to {count} channels: kernel {size}"
    width = max(last + outputs.shape[1] * _CELL + _EDGE, 520)
    tops = [_TOP + c * pitch for c in range(channels)]
    height = tops[-1] + pitch + (46 if is_flat else 16)
    drawing = Drawing(width, height, title, outputs.size)
    drawing.text(_EDGE, 24, title, "title")
    _draw_inputs(drawing, image, taps, tops, kernels)
    out = [_TOP + o * (outputs.shape[0] * _CELL + gap) for o in range(count)]
    name = "y, 1 channel" if count == 1 else f"y, {count} channels"
    drawing.text(last, _TOP - 16, name, "left small")
    for top in out:
        drawing.cells(last, top, np.full(outputs.shape[:2], np.nan), "empty", _CELL)
    for step, (i, j, o) in enumerate(np.ndindex(outputs.shape)):
        now, later = range(step, step + 1), range(step, outputs.size)
        for top in tops:
            _frame(drawing, _EDGE + j * _CELL, top + i * _CELL, (high, wide), now)
            _frame(drawing, kernels[o], top, (high, wide), now)
        spot = (last + j * _CELL, out[o] + i * _CELL)
        drawing.cells(*spot, outputs[i, j, o, None, None], "output", _CELL, later)
        drawing.rectangle(*spot, _CELL, _CELL, "new", now)
        room = last - _EDGE - 8
        formula = Shown(outputs[i, j, o], "line", room)
        drawing.text(_EDGE, height - 18, formula, "left", now)
        if count > 1:
            note = f"with kernel {o}"
            drawing.text(last, height - 18, note, "left small", now)
    return drawing


def _draw_inputs(
    drawing: Drawing,
    image: np.ndarray,
    taps: np.ndarray,
    tops: Sequence[float],
    kernels: Sequence[float],
) -> None:
    """Draw the channels of the input and of each kernel, and offer them."""
    drawing.text(_EDGE, _TOP - 16, f"x, {len(tops)} channels", "left small")
    for c, top in enumerate(tops):
        drawing.cells(_EDGE, top, image[..., c], f"shade{c}", _CELL)
        drawing.offer(f"x, channel {c}", image[..., c])
    for o, here in enumerate(kernels):
        drawing.text(here, _TOP - 16, f"kernel {o}", "left small")
        for c, top in enumerate(tops):
            drawing.cells(here, top, taps[:, :, c, o], f"shade{c}", _CELL)
            drawing.offer(f"kernel {o}, channel {c}", taps[:, :, c, o])


def _follow(
    image: np.ndarray, taps: np.ndarray, values: np.ndarray, parts: np.ndarray
) -> np.ndarray:
    """Make the numbers of outputs [H', W', O]: sums over channels of sums of products.

    Args:
        image: numbers [H, W, C].
        taps: numbers [S, S, C, O].
        values: of the outputs.
        parts: what each channel adds to them, [H', W', C, O].
    """
    numbers = np.empty(values.shape, object)
    for (i, j, o), value in np.ndenumerate(values):
        inside = image[i:, j:][: taps.shape[0], : taps.shape[1]]
        each = [
            sheet.follow(part, "dot", inside[..., c], taps[:, :, c, o])
            for c, part in enumerate(parts[i, j, :, o])
        ]
        numbers[i, j, o] = sheet.follow(value, "sum", np.array(each))
    return numbers


def _sum_by_channel(x: jax.Array, kernel: jax.Array) -> np.ndarray:
    """Return what each input channel adds to each output: [H', W', C, O]."""
    channels, count = kernel.shape[2:]
    # With a group for each input channel, nothing is summed over them.
    apart = kernel.reshape(*kernel.shape[:2], 1, channels * count)
    parts = np.asarray(convolution.conv2d(x, apart, groups=channels))[0]
    return parts.reshape(*parts.shape[:2], channels, count)


def _frame(
    drawing: Drawing, left: float, top: float, window: tuple[int, int], during: range
) -> None:
    drawing.rectangle(left, top, window[1] * _CELL, window[0] * _CELL, "window", during)
