"""The few images that are looked at one by one, as flags choose them."""

import dataclasses
import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cnn.data import DataOptions
from cnn.data.files import decode_files
from cnn.errors import UserError

_MOST = 10


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A few images that are looked at one by one.

    Attributes:
        images: uint8 [n, H, W, C].
        labels: int32 [n]; -1 where the class is not known.
        names: n texts that say which they are.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def choose_positions(
    given: Sequence[int], labels: np.ndarray, split: str
) -> np.ndarray:
    """Return positions that were given, else those of the first of each class.

    Args:
        given: positions in the split; may be empty.
        labels: int32 [N] of the split.
        split: its name.

    Raises:
        UserError: the split has no such position.
    """
    for position in given:
        if position >= len(labels):
            raise UserError(
                f"--picture_examples={position}: the {split} set has examples 0 to "
                f"{len(labels) - 1}"
            )
    if given:
        return np.asarray(given, np.int64)
    _, first = np.unique(labels, return_index=True)
    return first[:_MOST]


def choose_files(
    pattern: str,
    image_shape: tuple[int, int, int],
    options: DataOptions,
    note: Callable[[str], None],
) -> Chosen:
    """Read image files, the first ten of a pattern.

    Args:
        pattern: as `photos/*.jpg`.
        image_shape: (H, W, C) that they are brought to.
        options: how.
        note: told when there are more.

    Raises:
        UserError: no file is of the pattern, or one is no image.
    """
    files = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not files:
        raise UserError(f"--picture_files={pattern} matches no file")
    if len(files) > _MOST:
        note(
            f"--picture_files={pattern} matches {len(files)} files; the first {_MOST} "
            "are shown"
        )
    files, images = decode_files(files[:_MOST], image_shape, options)
    names = tuple(Path(file).name for file in files)
    return Chosen(images, np.full(len(files), -1, np.int32), names)
