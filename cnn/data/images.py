"""Labelled images as the rest of the code sees them, wherever they come from.

Images are uint8 [H, W, C] in 0..255 and labels int32 in 0..K-1. The order of a set
is fixed: position `i` is the same example in every run, and `read` may be called
with any positions, from any thread.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from cnn.errors import UserError

_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Images:
    """Labelled images in a fixed order, readable in any order.

    Attributes:
        labels: int32 [N].
        shape: (H, W, C) of every image.
        read: positions [n], whole numbers in 0..N-1, to uint8 [n, H, W, C]; pure
            and safe in threads.
        decoded: whether the images lie in memory, so that `read` only copies.
        itemsize: bytes of a number; 4 when what is read are features, float32.
    """

    labels: np.ndarray
    shape: tuple[int, int, int]
    read: Callable[[np.ndarray], np.ndarray]
    decoded: bool = False
    itemsize: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_bytes(self) -> int:
        """Size of all images when decoded, in bytes."""
        return len(self) * self.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def take(self, positions: np.ndarray) -> "Images":
        """Return the examples at `positions` [n], in that order, as a set of its own.

        Nothing is read until the new set is.
        """
        positions = np.asarray(positions, dtype=np.int64)
        read = self.read
        return dataclasses.replace(
            self,
            labels=self.labels[positions],
            read=lambda chosen: read(positions[chosen]),
        )

    def blacken(self, shape: tuple[int, int, int]) -> "Images":
        """Return the same examples as black images of a shape (H, W, C).

        For what depends on their number, labels and size alone.
        """
        return dataclasses.replace(
            self,
            shape=shape,
            read=lambda positions: np.zeros((len(positions), *shape), dtype=np.uint8),
            decoded=True,
        )

    def in_memory(self) -> "Images":
        """Read every image once and return a set that answers from memory."""
        images = np.empty((len(self), *self.shape), dtype=np.uint8)
        for start in range(0, len(self), _CHUNK):
            stop = min(start + _CHUNK, len(self))
            images[start:stop] = self.read(np.arange(start, stop))
        return from_array(images, self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A training set, perhaps a validation set, and a test set of the same classes.

    Attributes:
        name: the value of `--dataset`.
        class_names: one for each class, at the position of its label.
        notes: lines to print about the loading.
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    validation: Images | None
    test: Images
    notes: tuple[str, ...] = ()


def from_array(images: np.ndarray, labels: np.ndarray) -> Images:
    """Make a set of images that lie in memory.

    Args:
        images: uint8 [N, H, W, C].
        labels: whole numbers [N].
    """
    assert images.dtype == np.uint8 and images.ndim == 4, (images.dtype, images.shape)
    assert len(images) == len(labels), (len(images), len(labels))
    return Images(
        labels=np.asarray(labels, dtype=np.int32),
        shape=tuple(int(size) for size in images.shape[1:]),
        read=lambda positions: images[positions],
        decoded=True,
    )


def get_split(dataset: Dataset, split: str) -> Images:
    """Return the images of a split, refusing one that the dataset does not have."""
    images = getattr(dataset, split)
    if images is None:
        raise UserError(
            f"--split={split}: {dataset.name} has no such set; carve one out of train "
            "with --validation_fraction=0.1"
        )
    return images
