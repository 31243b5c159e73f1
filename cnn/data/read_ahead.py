"""Image files read in batches, some batches ahead of whoever computes with them.

What is read and not yet taken is bounded by `AHEAD` batches, however many files there
are.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from cnn.data import contents, decode
from cnn.runtime import background

# Batches: the positions of files, and the shape (B, H, W, C) of their images.
Plan = list[tuple[np.ndarray, tuple[int, int, int, int]]]

AHEAD = 2
_SHARE = 4  # files that a thread reads at a time


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images of one size.

    Attributes:
        positions: of the files [n].
        images: uint8 [B, H, W, C], n of them at most; black are those behind, and those
            that cannot be read.
        problems: what is wrong with a file, by its position.
    """

    positions: np.ndarray
    images: np.ndarray
    problems: dict[int, str]


def read_ahead(
    plan: Plan,
    read: Callable[[int, tuple[int, ...]], np.ndarray],
) -> Iterator[Batch]:
    """Read batches in threads, in the order of the plan.

    Whoever stops before the end closes the iterator (`contextlib.closing`), lest what
    is planned is read nevertheless.

    Args:
        plan: the batches; at most B positions of each.
        read: from a position and a shape (H, W, C) to uint8 of that shape; raises
            `BadImage` or `OSError` of a file that cannot be read.

    Raises:
        Failed: a thread has failed otherwise, or is silent.
        Interrupted: a signal arrived while a batch was waited for.
    """
    with background.Pool("decodes images", decode.count_cores()) as pool:
        started: collections.deque[tuple[Batch, list[background.Job]]] = (
            collections.deque()
        )
        for positions, shape in plan:
            started.append(_start(pool, read, positions, shape))
            if len(started) > AHEAD:
                yield _finish(*started.popleft())
        while started:
            yield _finish(*started.popleft())


def _start(
    pool: background.Pool,
    read: Callable[[int, tuple[int, ...]], np.ndarray],
    positions: np.ndarray,
    shape: tuple[int, ...],
) -> tuple[Batch, list[background.Job]]:
    batch = Batch(positions, np.zeros(shape, np.uint8), {})

    def fill(start: int) -> None:
        for i, position in enumerate(positions[start : start + _SHARE], start):
            try:
                batch.images[i] = read(int(position), shape[1:])
            except (decode.BadImage, OSError) as error:
                batch.problems[int(position)] = contents.describe_error(error)

    starts = range(0, len(positions), _SHARE)
    return batch, [pool.start(fill, start) for start in starts]


def _finish(batch: Batch, jobs: list[background.Job]) -> Batch:
    for job in jobs:
        job.result()
    return batch


def measure_file(path: str) -> tuple[int, int] | str:
    """Return the (height, width) that an image file decodes to, or what is wrong."""
    try:
        with contents.open_file(path) as file:
            return decode.upright_size(decode.open_image(file))
    except (decode.BadImage, OSError) as error:
        return contents.describe_error(error)
