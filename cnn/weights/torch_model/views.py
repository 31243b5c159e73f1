"""How a tensor of a state dict becomes an array of the graph, told by its numbers."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

_MOST_PIECES = 256  # that a tensor is looked through for


def list_views(
    text: str, array: np.ndarray, side: int
) -> Iterator[tuple[str, np.ndarray]]:
    """List a tensor of the state dict, and what it may be taken apart into."""
    if side:  # a dense kernel behind a flattening of C, H, W; ours is of H, W, C
        rows = array.shape[0]
        shape = (rows, -1, side, side)
        ordered = array.reshape(shape).transpose(0, 2, 3, 1).reshape(rows, -1)
        yield f"{text}.reshape{shape}.permute(0, 2, 3, 1).reshape({rows}, -1)", ordered
    yield text, array
    for first in range(array.ndim - 1):  # local kernels, a piece at a time
        places = array.shape[first : first + 2]
        if math.prod(places) <= _MOST_PIECES:
            for place in np.ndindex(places):
                index = (slice(None),) * first + place
                shown = ", ".join([*(":" * first), *map(str, place)])
                yield f"{text}[{shown}]", array[index]


def match(text: str, array: np.ndarray, wanted: np.ndarray) -> str:
    """Write how an array becomes another by a permutation and a reshape; "" if not."""
    for order in itertools.permutations(range(array.ndim)):
        turned = array.transpose(order)
        shape = wanted.shape
        if turned.dtype != wanted.dtype or not np.array_equal(
            turned.reshape(shape), wanted
        ):
            continue
        is_same = order == tuple(range(array.ndim))
        text = text if is_same else f"{text}.permute({order})"
        return text if turned.shape == shape else f"{text}.reshape({shape})"
    return ""
