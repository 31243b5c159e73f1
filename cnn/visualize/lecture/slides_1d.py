"""The lecture's slides of one dimension: a window that slides along a sequence.

The numbers in the cells are computed by the operators of `cnn.ops`; each function
returns a flip-book with a step for each output.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cnn.ops import convolution, geometry, pooling
from cnn.visualize.lecture import sheet
from cnn.visualize.lecture.sheet import Number
from cnn.visualize.lecture.svg import Drawing, Shown

_CELL, _LEFT, _WIDTH = 46, 150, 700
_INPUT, _KERNEL, _OUTPUT, _FORMULA, _HEIGHT = 52, 108, 186, 264, 296


@dataclasses.dataclass(frozen=True)
class _Window:
    """A window of `size` places, with a tap for each, or without for a maximum."""

    size: int
    stride: int
    taps: Sequence[float] | None = None


def convolve(
    x: Sequence[float], kernel: Sequence[float], padding: str = "valid", stride: int = 1
) -> Drawing:
    """Draw a kernel that slides along a sequence, as `convolution.conv1d` computes it.

    Args:
        x: L numbers.
        kernel: S numbers.
        padding: `valid`, `same` or `full`.
        stride: positions between windows.
    """
    values = convolution.conv1d(
        _column(x), _make_kernel(kernel), stride=stride, padding=padding
    )[0, :, 0]
    counted = _count_outputs(len(x), len(kernel), padding, stride)
    title = (
        f"{padding.title()} convolution, stride {stride}: "
        f"{counted} = {len(values)} outputs"
    )
    (padding_pair,) = geometry.resolve_padding(padding, (len(kernel),), (1,))
    window = _Window(len(kernel), stride, kernel)
    return _draw(title, x, padding_pair, window, values)[0]


def align(x: Sequence[float], weights: Sequence[float]) -> Drawing:
    """Draw how weights match an image at each place, and where they match most.

    Args:
        x: the image, L numbers.
        weights: S numbers.
    """
    values = convolution.conv1d(_column(x), _make_kernel(weights))[0, :, 0]
    title = "Alignment of weights with an image: where they match best"
    window = _Window(len(weights), 1, weights)
    names = ("image", "weights", "match")
    drawing, matches = _draw(title, x, (0, 0), window, values, names)
    best, at_last = int(np.argmax(values)), range(len(values) - 1, len(values))
    for place in range(len(matches)):
        left = _LEFT + (place + (len(weights) + 1) / 2) * _CELL + 12
        lists = matches[:place], matches[place:]
        mark = Shown(sheet.follow(place == best, "best", *lists), "best")
        drawing.text(left, _OUTPUT + _CELL / 2, mark, "left", at_last)
    return drawing


def max_pool(x: Sequence[float], window: int, stride: int) -> Drawing:
    """Draw a maximum that slides along a sequence, as `pooling.max_pool1d` takes it."""
    values = pooling.max_pool1d(_column(x), window, stride)[0, :, 0]
    title = f"Max-pooling, window {window}, stride {stride}: {len(values)} outputs"
    return _draw(title, x, (0, 0), _Window(window, stride), values)[0]


def differentiate(
    x: Sequence[float], kernel: Sequence[float], gradient: Sequence[float]
) -> Drawing:
    """Draw the gradient of a valid convolution with respect to its input.

    It is the full convolution of the output's gradient with the flipped kernel; the
    numbers are those of automatic differentiation.

    Args:
        x: the input, L numbers.
        kernel: S numbers.
        gradient: of the loss by the output, L - S + 1 numbers.
    """
    weights = _make_kernel(kernel)
    _, pull = jax.vjp(lambda x: convolution.conv1d(x, weights), _column(x))
    values = pull(_column(gradient))[0][0, :, 0]
    title = "Derivative of a valid convolution: full, with the flipped kernel"
    rim = len(kernel) - 1
    names = ("∂loss/∂y", "flipped kernel", "∂loss/∂x")
    flipped = _Window(len(kernel), 1, kernel[::-1])
    return _draw(title, gradient, (rim, rim), flipped, values, names)[0]


def _count_outputs(length: int, size: int, padding: str, stride: int) -> str:
    """Write the formula of how many windows fit."""
    if padding == "same":
        return f"{length} inputs"
    rim = f"{length} {'+' if padding == 'full' else '−'} ({size} − 1)"
    return rim if stride == 1 else f"⌈({rim}) / {stride}⌉"


def _column(values: Sequence[float]) -> jax.Array:
    return jnp.asarray(values, jnp.float32).reshape(1, -1, 1)


def _make_kernel(values: Sequence[float]) -> jax.Array:
    return _column(values)[0, :, :, None]


def _draw(
    title: str,
    x: Sequence[float],
    padding: tuple[int, int],
    window: _Window,
    values: jax.Array,
    names: tuple[str, str, str] = ("x", "kernel", "y"),
) -> tuple[Drawing, np.ndarray]:
    """Draw the padded input, the window at each step, and the output as it grows.

    Returns:
        The drawing, and the numbers of its output.
    """
    drawing = Drawing(_WIDTH, _HEIGHT, title, len(values))
    drawing.text(16, 24, title, "title")
    inputs = sheet.make_numbers(x)
    before, after = (sheet.make_numbers(np.zeros(rim)) for rim in padding)
    drawing.offer(names[0], inputs)
    taps = None if window.taps is None else sheet.make_numbers(window.taps)
    if taps is not None:
        drawing.offer(names[1], taps)
    rows = list(zip(names, (_INPUT, _KERNEL, _OUTPUT), strict=True))
    for name, top in rows if taps is not None else rows[::2]:
        drawing.text(16, top + _CELL / 2, name, "left")
    _put(drawing, 0, _INPUT, before, "padding")
    _put(drawing, len(before), _INPUT, inputs, "input")
    _put(drawing, len(before) + len(x), _INPUT, after, "padding")
    padded = np.concatenate([before, inputs, after])
    starts = range(0, len(values) * window.stride, window.stride)
    outputs = np.array(
        [
            _follow(value, padded[start:][: window.size], taps)
            for start, value in zip(starts, np.asarray(values), strict=True)
        ]
    )
    for step, output in enumerate(outputs):
        _draw_step(drawing, step, window, taps, output)
    return drawing, outputs


def _follow(value: float, inside: np.ndarray, taps: np.ndarray | None) -> Number:
    """Make the number of an output from those of its window."""
    if taps is None:
        return sheet.follow(value, "max", inside)
    return sheet.follow(value, "dot", inside, taps)


def _draw_step(
    drawing: Drawing,
    step: int,
    window: _Window,
    taps: np.ndarray | None,
    output: Number,
) -> None:
    """Draw the window of a step, its output, and how it is computed."""
    start, size = step * window.stride, window.size
    middle, left = start + (size - 1) / 2, _LEFT + start * _CELL
    now, later = range(step, step + 1), range(step, drawing.steps)
    if taps is not None:
        _put(drawing, start, _KERNEL, taps, "kernel", now)
    else:
        x1 = left + size * _CELL / 2
        drawing.text(x1, _KERNEL + _CELL / 2, "maximum", "", now)
    _put(drawing, middle, _OUTPUT, [np.nan], "empty")
    _put(drawing, middle, _OUTPUT, [output], "output", later)
    drawing.rectangle(left, _INPUT, size * _CELL, _CELL, "window", now)
    middle_left = _LEFT + middle * _CELL
    drawing.rectangle(middle_left, _OUTPUT, _CELL, _CELL, "new", now)
    drawing.text(_LEFT, _FORMULA, Shown(output, "line"), "left", now)


def _put(
    drawing: Drawing,
    place: float,
    top: float,
    values: Sequence[float | Number] | np.ndarray,
    style: str,
    during: range | None = None,
) -> None:
    left = _LEFT + place * _CELL
    drawing.cells(left, top, np.asarray([values]), style, _CELL, during)
