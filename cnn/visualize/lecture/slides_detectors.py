"""The lecture's slide of feature detectors: kernels, a bias, and ReLU as threshold.

It draws numbers that were computed before; see `lines`.
"""

import jax
import numpy as np

from cnn.visualize.lecture.svg import Drawing, format_number

_CELL, _EDGE, _TOP, _GAP = 32, 16, 74, 30
_NAMES = ("kernels", "1. convolution", "2. + bias", "3. ReLU")


def detect(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    y: jax.Array,
    biased: jax.Array,
    detected: jax.Array,
) -> Drawing:
    """Draw what detectors answer, and what a bias and a ReLU leave of it.

    Args:
        x: [1, H, W, 1].
        kernel: [S, S, 1, O].
        bias: [O].
        y: the convolution [1, H', W', O].
        biased: it and the bias.
        detected: what the ReLU leaves.
    """
    image, taps = np.asarray(x)[0, :, :, 0], np.asarray(kernel)[:, :, 0]
    maps = [np.asarray(each)[0] for each in (y, biased, detected)]
    rows, count = maps[0].shape[0], taps.shape[-1]
    lefts = _place((image.shape[1], taps.shape[1], *[rows] * 3))
    pitch = rows * _CELL + _GAP
    title = "Feature detectors: convolution, bias, and ReLU as a threshold"
    width, height = lefts[-1] + rows * _CELL + _EDGE, _TOP + count * pitch + 30
    drawing = Drawing(width, height, title, len(maps))
    drawing.text(_EDGE, 24, title, "title")
    drawing.text(_EDGE, _TOP - 16, "image", "left small")
    drawing.cells(_EDGE, _TOP, image, "input", _CELL)
    for left, name in zip(lefts[1:], _NAMES, strict=True):
        drawing.text(left, _TOP - 16, name, "left small")
    for o in range(count):
        top = _TOP + o * pitch
        drawing.cells(lefts[1], top, taps[..., o], "kernel", _CELL)
        note = f"bias {format_number(float(bias[o]))}"
        drawing.text(lefts[1], top + 3.5 * _CELL, note, "left small")
        for step, (left, values) in enumerate(zip(lefts[2:], maps, strict=True)):
            seen = range(step, len(maps))
            for (i, j), value in np.ndenumerate(values[..., o]):
                spot = (left + j * _CELL, top + i * _CELL)
                style = "output" if value > 0 else "off"
                drawing.cells(*spot, [[value]], style, _CELL, seen)
    for step, text in enumerate(_explain(bias)):
        drawing.text(_EDGE, height - 20, text, "left", range(step, step + 1))
    return drawing


def _place(sizes: tuple[int, ...]) -> list[float]:
    """Return where tables of so many columns begin that stand side by side."""
    widths = [size * _CELL + _GAP for size in sizes]
    return [_EDGE + sum(widths[:place]) for place in range(len(widths))]


def _explain(bias: jax.Array) -> tuple[str, ...]:
    threshold = format_number(-float(bias[0]))
    return (
        "Green is above 0: both sides of each stroke answer, with either sign.",
        f"The bias lowers every answer by {threshold}.",
        f"Only what was above {threshold} is left: an edge of one direction and sign.",
    )
