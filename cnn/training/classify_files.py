"""Image files classified by a trained model, batch by batch.

However many files there are, a few batches of them are in memory. Where images are
taken as they are, files of one size make a batch, so that nothing is cut or stretched.
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Generator, Sequence

import numpy as np

from cnn.data import check_options, contents, decode
from cnn.data.options import DataOptions
from cnn.data.read_ahead import Plan, measure_file, read_ahead
from cnn.errors import UserError
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.training.trained import (
    Trained,
    check_image_shape,
    make_classifier,
    takes_any_size,
)

_MEASURED = 1024  # files between two looks at signals


@dataclasses.dataclass(frozen=True)
class Intake:
    """How files become images of a run.

    Attributes:
        layout: what they are brought to.
        shape: their (H, W, C); None: files of any size are taken as they are.
    """

    layout: decode.Layout
    shape: tuple[int, int, int] | None


@dataclasses.dataclass(frozen=True)
class Classified:
    """Some of the files.

    Attributes:
        positions: of the files in their list [n].
        probabilities: float32 [n, K]; of a file with a problem they mean nothing.
        problems: what is wrong with a file, by its position.
    """

    positions: np.ndarray
    probabilities: np.ndarray
    problems: dict[int, str]


def choose_intake(trained: Trained, options: DataOptions) -> Intake:
    """Choose how files become images: as those that are evaluated.

    With an `--image_size` they get the layout of a dataset. Without it they are taken
    as they are where the model takes any size; else they are brought to the one size
    that it takes, if that is square, and others are refused.

    Raises:
        UserError: sizes contradict each other, or the run does not take such images.
    """
    height, width, channels = trained.image_shape
    check_options(options)
    if channels not in (1, 3):
        raise UserError(
            f"the run takes images of {channels} channels, and image files have 1 or 3"
        )
    channels, size = options.channels or channels, options.image_size
    layout = dataclasses.replace(decode.make_layout(options), channels=channels)
    check_image_shape(trained, (size or height, size or width, channels))
    if size:
        return Intake(layout, (layout.size, layout.size, channels))
    if takes_any_size(trained):
        return Intake(layout, None)
    layout = dataclasses.replace(layout, size=height if height == width else 0)
    return Intake(layout, trained.image_shape)


def classify_files(
    trained: Trained,
    intake: Intake,
    paths: Sequence[str],
    batch_size: int,
    most_pixels: float,
    terminal: Terminal,
    stop: Stop,
) -> Generator[Classified]:
    """Classify files, and say how far that is.

    Args:
        trained: the model, with the views that it sees of each image.
        intake: of `choose_intake`.
        paths: N files.
        batch_size: how many at a time, at most.
        most_pixels: of these together, unless one alone has more.
        terminal: gets progress, and how many sizes the images have.
        stop: is looked at between batches.

    Yields:
        Each file once, in any order.

    Raises:
        UserError: a batch needs more memory than there is.
        Interrupted: `stop` says so.
    """
    if intake.shape:
        plan = _divide(np.arange(len(paths)), intake.shape, batch_size, most_pixels)
    else:
        sizes, problems = _measure(paths, terminal, stop)
        bad = np.array(sorted(problems), np.int64)
        num_classes = trained.structure.num_classes
        yield Classified(bad, np.zeros((len(bad), num_classes), np.float32), problems)
        plan = _group(sizes, intake.layout.channels, batch_size, most_pixels)
        _say_sizes(trained, [shape[1:3] for _, shape in plan], terminal)
    counts = collections.Counter()
    for positions, shape in plan:
        counts[shape[1:]] += len(positions)
    classify = make_classifier(trained, counts)

    def read(position: int, shape: tuple[int, ...]) -> np.ndarray:
        return _read(paths[position], intake.layout, shape)

    done = len(paths) - sum(len(positions) for positions, _ in plan)
    with (
        terminal.count(len(paths), "files") as note,
        contextlib.closing(read_ahead(plan, read)) as batches,
    ):
        for batch in batches:
            stop.check()
            probabilities = classify(batch.images)[: len(batch.positions)]
            yield Classified(batch.positions, probabilities, batch.problems)
            note(done := done + len(batch.positions))
    stop.check()


def _measure(
    paths: Sequence[str], terminal: Terminal, stop: Stop
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the (height, width) of each file [N, 2], 0 of those with a problem."""
    sizes, problems = np.zeros((len(paths), 2), np.int64), {}
    with terminal.count(len(paths), "files measured") as note:
        for start in range(0, len(paths), _MEASURED):
            stop.check()
            some = paths[start : start + _MEASURED]
            for i, found in enumerate(decode.call_all(measure_file, some), start):
                if isinstance(found, str):
                    problems[i] = found
                else:
                    sizes[i] = found
            note(start + len(some))
    return sizes, problems


def _group(
    sizes: np.ndarray, channels: int, batch_size: int, most_pixels: float
) -> Plan:
    """Divide files into batches of one size; those of size 0 are in none."""
    plan = []
    for size in np.unique(sizes[sizes[:, 0] > 0], axis=0):
        positions = np.flatnonzero((sizes == size).all(axis=1))
        plan += _divide(positions, (*size.tolist(), channels), batch_size, most_pixels)
    return plan


def _divide(
    positions: np.ndarray,
    shape: tuple[int, int, int],
    batch_size: int,
    most_pixels: float,
) -> Plan:
    """Divide files of one shape into batches of nearly the same number."""
    most = min(batch_size, most_pixels // math.prod(shape[:2]))
    count = max(math.ceil(len(positions) / max(most, 1)), 1)
    size = max(math.ceil(len(positions) / count), 1)
    starts = range(0, len(positions), size)
    return [(positions[i : i + size], (size, *shape)) for i in starts]


def _say_sizes(
    trained: Trained, sizes: Sequence[tuple[int, ...]], terminal: Terminal
) -> None:
    height, width, _ = trained.image_shape
    different = set(sizes)
    if different - {(height, width)}:
        terminal.say(
            f"images are taken as they are, in {len(different)} sizes, for each of "
            f"which a program is compiled; the run was trained on {width}×{height} "
            "pixels; --image_size=N brings all to one size"
        )


def _read(path: str, layout: decode.Layout, shape: tuple[int, ...]) -> np.ndarray:
    """Read a file as an image of a shape (H, W, C)."""
    image = decode.decode(contents.read_file(path), layout)
    if image.shape != shape:
        raise decode.BadImage(
            f"the image is {image.shape[1]}×{image.shape[0]} pixels, and the run "
            f"takes {shape[1]}×{shape[0]} alone; bring it to these, or train with "
            "--image_size=N, to which files are brought"
        )
    return image
