"""Which pixels of a strided convolution's input meet the same taps of its kernel.

At stride 2 an even pixel meets every other tap and an odd pixel the rest. So the input
gradient is `stride` convolutions of stride 1 along an axis, each with its own taps.
"""

import math
from typing import NamedTuple


class Phase(NamedTuple):
    """What the pixels of an axis see that have the same remainder by the stride."""

    taps: slice  # of the kernel, in its order
    dilation: int  # between these taps, in pixels of the gradient
    padding: tuple[int, int]  # zeros around the gradient
    cut: tuple[int, int, int]  # what no tap meets, as `lax.pad` takes it
    place: tuple[int, int, int]  # of the results among all pixels, as `lax.pad` takes


def list_phases(
    length: int,
    taps: int,
    pixels: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
) -> list[Phase]:
    """List the phases of an axis in which a tap meets a pixel, at most `stride` many.

    Tap a leads pixel i of x to pixel (i + low − a · dilation) / stride of the gradient
    where that is whole: for a phase with every `step`th tap.

    Args:
        length: pixels of x.
        taps: of the kernel.
        pixels: of the gradient.
        stride: of the convolution, like the next two.
        padding: zeros around x, (low, high).
        dilation: pixels between taps.
    """
    common = math.gcd(stride, dilation)
    step, apart = stride // common, dilation // common
    phases = []
    for start in range(min(stride, length)):
        reached = [start + padding[0] - a * dilation for a in range(min(step, taps))]
        first = next((a for a, i in enumerate(reached) if i % stride == 0), None)
        if first is None:
            continue
        count = -(-(length - start) // stride)
        reach = (len(range(first, taps, step)) - 1) * apart
        low = reach - reached[first] // stride
        high = count + reach - pixels - low
        cut = min(low, 0), min(high, 0)
        if pixels + sum(cut) <= 0:
            continue
        phases.append(
            Phase(
                taps=slice(first, None, step),
                dilation=apart,
                padding=(max(low, 0), max(high, 0)),
                cut=(*cut, 0),
                place=(start, length - start - (count - 1) * stride - 1, stride - 1),
            )
        )
    return phases
