"""Labelled images as the rest of the code sees them, wherever they come from.

Images are uint8 [H, W, C] in 0..255, labels as of `cnn.data.labels`. The order of a set
is fixed: position `i` is the same example in every run, and `read` may be called
with any positions, from any thread.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cnn.data.labels import as_stored
from cnn.data.options import DataOptions
from cnn.errors import UserError

_CHUNK = 1024
# Bytes: where an array begins that jax hands to a CPU device as it is.
_ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class Images:
    """Labelled images in a fixed order, readable in any order.

    Attributes:
        labels: int32 [N], or several an image, uint8 [N, K].
        shape: (H, W, C) of every image.
        read: positions [n], whole numbers in 0..N-1, to uint8 [n, H, W, C]; pure
            and safe in threads.
        decoded: whether the images lie in memory, so that `read` only copies.
        itemsize: bytes of a number; 4 when what is read are features, float32.
        names: of the examples in their source [N], texts: a file's path below the
            root, or a number; None where nobody asks for them.
        stamps: of their contents [N], as of `stamps.stamp_bytes`; None likewise.
        contents: positions to the bytes of their image files, encoded, in turn; for a
            file that cannot be read, the `BadImage` or `OSError`. None where images are
            arrays.
        paths: of their files [N], an object array of `Path`; None where they are not
            files, or lie in memory since.
        layout: what they are brought to when they are decoded, the values of a
            `decode.Layout`; empty where they lie in memory.
        refit: options to the same images in the size that these say, decoded when they
            are read; None where they have one size.
    """

    labels: np.ndarray
    shape: tuple[int, int, int]
    read: Callable[[np.ndarray], np.ndarray]
    decoded: bool = False
    itemsize: int = 1
    names: np.ndarray | None = None
    stamps: np.ndarray | None = None
    contents: Callable[[np.ndarray], Iterable[bytes | Exception]] | None = None
    paths: np.ndarray | None = None
    layout: tuple = ()
    refit: Callable[[DataOptions], "Images"] | None = None

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
        read, contents, refit = self.read, self.contents, self.refit
        return dataclasses.replace(
            self,
            labels=self.labels[positions],
            read=lambda chosen: read(positions[chosen]),
            contents=contents and (lambda chosen: contents(positions[chosen])),
            names=None if self.names is None else self.names[positions],
            stamps=None if self.stamps is None else self.stamps[positions],
            paths=None if self.paths is None else self.paths[positions],
            refit=refit and (lambda options: refit(options).take(positions)),
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
            refit=lambda options: self.blacken((*[options.stored_size] * 2, shape[2])),
        )

    def in_memory(self) -> "Images":
        """Read every image once and return a set that answers from memory."""
        return from_array(self.read_all(), self.labels, self.names, self.stamps)

    def read_all(self) -> np.ndarray:
        """Read every image, some at a time; a CPU device takes the array uncopied.

        Returns:
            [N, H, W, C], uint8 or, of features, float32.
        """
        kind = np.dtype(np.uint8 if self.itemsize == 1 else np.float32)
        flat = np.empty(self.num_bytes + _ALIGNMENT, np.uint8)
        start = -flat.ctypes.data % _ALIGNMENT
        images = flat[start : start + self.num_bytes].view(kind)
        images = images.reshape(len(self), *self.shape)
        for start in range(0, len(self), _CHUNK):
            stop = min(start + _CHUNK, len(self))
            images[start:stop] = self.read(np.arange(start, stop))
        return images


@dataclasses.dataclass(frozen=True)
class BadFile:
    """A file that cannot be read and was left out.

    Attributes:
        name: as of `Images.names`.
        path: of the file.
        part: `train`, `validation` or `test`; "" of a dataset without parts.
        reason: what is wrong with it.
    """

    name: str
    path: str
    part: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A training set, perhaps a validation set, and a test set of the same classes.

    Attributes:
        name: the value of `--dataset`.
        class_names: one for each class, at the position of its label.
        notes: lines to print about the loading.
        is_named: whether examples have names of their own, as files do: splits depend
            on these, and not on their number or order.
        excluded: files that cannot be read and were left out.
        taken: what of the source was taken, as JSON, `files` by part and class among
            it (`labels` where a file may have several); empty where a source has none.
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    validation: Images | None
    test: Images
    notes: tuple[str, ...] = ()
    is_named: bool = False
    excluded: tuple[BadFile, ...] = ()
    taken: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A part of a dataset, or all of it, to be evaluated.

    Attributes:
        name: the value of `--dataset`.
        class_names: of the data, one for each label.
        images: those of `--split`.
        notes: lines to print about the loading.
        excluded: files that cannot be read and were left out.
        is_whole: whether these are all images of the dataset.
    """

    name: str
    class_names: tuple[str, ...]
    images: Images
    notes: tuple[str, ...] = ()
    excluded: tuple[BadFile, ...] = ()
    is_whole: bool = False


def from_array(
    images: np.ndarray,
    labels: np.ndarray,
    names: np.ndarray | None = None,
    stamps: np.ndarray | None = None,
) -> Images:
    """Make a set of images that lie in memory.

    Args:
        images: uint8 [N, H, W, C].
        labels: whole numbers [N], or 0 and 1 [N, K].
        names: as of `Images`.
        stamps: as of `Images`.
    """
    assert images.dtype == np.uint8 and images.ndim == 4, (images.dtype, images.shape)
    assert len(images) == len(labels), (len(images), len(labels))
    return Images(
        labels=as_stored(labels),
        shape=tuple(int(size) for size in images.shape[1:]),
        read=lambda positions: images[positions],
        decoded=True,
        names=names,
        stamps=stamps,
    )


def number_examples(part: str, count: int, first: int = 0) -> np.ndarray:
    """Name the examples of a source that has no names: `part/0`, `part/1`, ….

    Returns:
        Texts [count], an object array, numbered from `first` on.
    """
    numbers = range(first, first + count)
    return np.array([f"{part}/{number}" for number in numbers], dtype=object)


def concatenate(parts: Sequence[Images]) -> Images:
    """Join sets of one shape, in their order."""
    ends = np.cumsum([len(part) for part in parts])
    starts = ends - [len(part) for part in parts]

    def read(positions: np.ndarray) -> np.ndarray:
        positions = np.asarray(positions)
        found = np.empty((len(positions), *parts[0].shape), np.uint8)
        owners = np.searchsorted(ends, positions, "right")
        for owner in np.unique(owners):
            chosen = owners == owner
            found[chosen] = parts[owner].read(positions[chosen] - starts[owner])
        return found

    named = all(part.names is not None for part in parts)
    stamped = all(part.stamps is not None for part in parts)
    return Images(
        labels=np.concatenate([part.labels for part in parts]),
        shape=parts[0].shape,
        read=read,
        decoded=all(part.decoded for part in parts),
        names=np.concatenate([part.names for part in parts]) if named else None,
        stamps=np.concatenate([part.stamps for part in parts]) if stamped else None,
    )


def choose_parts(name: str, parts: Collection[str], split: str) -> list[str]:
    """Choose which parts of a dataset `--split` evaluates.

    Args:
        name: of the dataset.
        parts: of `train`, `validation` and `test` those that it has; "" of a dataset
            that is not divided, all of which is a test set.

    Raises:
        UserError: it has no such part.
    """
    if split == "all":
        return list(parts)
    here = {part or "test": part for part in parts}
    if "validation" in here:  # without a test part, this is the test set
        here.setdefault("test", "validation")
    if split not in here:
        raise UserError(
            f"--split={split}: {name} has only {', '.join(here)}; give one of these, "
            "or --split=all"
        )
    return [here[split]]


def get_part(dataset: Dataset, split: str) -> Evaluated:
    """Return a part of a dataset to be evaluated, as `get_split` does."""
    return Evaluated(
        name=dataset.name,
        class_names=dataset.class_names,
        images=get_split(dataset, split),
        notes=dataset.notes,
        excluded=tuple(bad for bad in dataset.excluded if bad.part in ("", split)),
    )


def get_split(dataset: Dataset, split: str) -> Images:
    """Return the images of a split, refusing one that the dataset does not have."""
    images = getattr(dataset, split)
    if images is None:
        raise UserError(
            f"--split={split}: {dataset.name} has no such set, and the run was trained "
            "without one; give --split=train, test or all"
        )
    return images
