"""The lecture's layers of several channels: a kernel for each pair, sums over inputs.

Each function draws numbers that were computed before; see `lines`. There is a step for
each output, place by place, the output channels of a place in turn.
"""

import jax
import numpy as np

from cnn.ops import convolution
from cnn.visualize.lecture.svg import Drawing, format_sum

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
    image, taps, values = np.asarray(x)[0], np.asarray(kernel), np.asarray(y)[0]
    high, wide, channels, count = taps.shape
    gap = 0 if is_flat else 30
    pitch = image.shape[0] * _CELL + gap
    left = _EDGE + image.shape[1] * _CELL + _GAP
    kernels = [left + o * (wide * _CELL + 22) for o in range(count)]
    last = kernels[-1] + wide * _CELL + _GAP
    size = "×".join(map(str, taps.shape[is_flat:]))
    title = f"A layer of {channels} to {count} channels: kernel {size}"
    width = max(last + values.shape[1] * _CELL + _EDGE, 520)
    tops = [_TOP + c * pitch for c in range(channels)]
    height = tops[-1] + pitch + (46 if is_flat else 16)
    drawing = Drawing(width, height, title, values.size)
    drawing.text(_EDGE, 24, title, "title")
    drawing.text(_EDGE, _TOP - 16, f"x, {channels} channels", "left small")
    for c, top in enumerate(tops):
        drawing.cells(_EDGE, top, image[..., c], f"shade{c}", _CELL)
    for o, here in enumerate(kernels):
        drawing.text(here, _TOP - 16, f"kernel {o}", "left small")
        for c, top in enumerate(tops):
            drawing.cells(here, top, taps[:, :, c, o], f"shade{c}", _CELL)
    out = [_TOP + o * (values.shape[0] * _CELL + gap) for o in range(count)]
    name = "y, 1 channel" if count == 1 else f"y, {count} channels"
    drawing.text(last, _TOP - 16, name, "left small")
    for top in out:
        drawing.cells(last, top, np.full(values.shape[:2], np.nan), "empty", _CELL)
    parts = _sum_by_channel(x, kernel)
    for step, (i, j, o) in enumerate(np.ndindex(values.shape)):
        now, later = range(step, step + 1), range(step, values.size)
        for top in tops:
            _frame(drawing, _EDGE + j * _CELL, top + i * _CELL, (high, wide), now)
            _frame(drawing, kernels[o], top, (high, wide), now)
        spot = (last + j * _CELL, out[o] + i * _CELL)
        drawing.cells(*spot, [[values[i, j, o]]], "output", _CELL, later)
        drawing.rectangle(*spot, _CELL, _CELL, "new", now)
        formula = format_sum(parts[i, j, :, o], values[i, j, o])
        drawing.text(_EDGE, height - 18, formula, "left", now)
        if count > 1:
            note = f"with kernel {o}"
            drawing.text(last, height - 18, note, "left small", now)
    return drawing


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
