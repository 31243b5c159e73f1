"""Image files on disk: checked when the dataset is loaded, decoded when needed.

What is kept in memory is decoded at once, so every bad file is found at loading.
What is streamed has its header and its end checked then; damage in the middle of a
file shows when the file is read.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnn.data import decode, headers, images, pool, splits
from cnn.errors import UserError

if TYPE_CHECKING:
    from cnn.data import DataOptions

TEST_FRACTION = 0.2


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files and their classes, before any of them was opened.

    Attributes:
        name: what `--dataset` said.
        class_names: one for each label.
        paths: of the files [N], in a fixed order.
        labels: int32 [N].
        parts: `train`, `validation` or `test` for each file [N]; empty: a test set
            is split off.
        notes: what the person should be told.
    """

    name: str
    class_names: tuple[str, ...]
    paths: Sequence[pathlib.Path]
    labels: np.ndarray
    parts: np.ndarray | None
    notes: tuple[str, ...] = ()


def load_files(listing: Listing, options: "DataOptions") -> images.Dataset:
    """Check the files of a listing and split them into parts.

    Bad files that `--bad_images=skip` leaves out are gone before anything is split.

    Raises:
        UserError: a file cannot be read, files differ in size without
            `--image_size`, or a class has no file left.
    """
    found, problems = headers.read_headers(listing.paths, options)
    shape = headers.find_shape(listing.name, listing.paths, found, options)
    good = np.array([header is not None for header in found])
    listing = _keep(listing, good)
    sizes = [header.num_bytes for header in found if header is not None]
    threads = sum(sizes) > len(sizes) * pool.THREADS_PAY_BYTES
    layout = dataclasses.replace(options.layout, channels=shape[-1])
    if options.keeps_in_memory(len(sizes) * int(np.prod(shape))):
        pixels, good = _decode_all(
            listing.paths, layout, shape, threads, options, problems
        )
        listing = _keep(listing, good)
        examples = images.from_array(pixels, listing.labels)
    else:
        examples = _stream(listing, layout, shape, threads)
    notes = listing.notes
    if problems:
        shown = "; ".join(sorted(problems)[:3]) + ("; …" if len(problems) > 3 else "")
        notes += (f"left out {len(problems)} images that cannot be read: {shown}",)
    _check_classes(listing)
    return _split(dataclasses.replace(listing, notes=notes), examples, options)


def decode_files(
    paths: Sequence[str | pathlib.Path],
    shape: tuple[int, int, int],
    options: "DataOptions",
) -> tuple[list[str], np.ndarray]:
    """Decode image files to the shape that a model takes.

    Args:
        paths: of the files [N].
        shape: (H, W, C) of the model's images; files are resized to it when it is
            square and must have its size otherwise.
        options: the resizing and `bad_images` are used.

    Returns:
        The paths of the good files [n] and their images, uint8 [n, H, W, C].

    Raises:
        UserError: a file cannot be read, or has another size.
    """
    height, width, channels = shape
    layout = dataclasses.replace(
        options.layout,
        size=height if height == width else 0,
        resize_size=options.resize_size or options.stored_size,
        channels=channels,
    )
    if options.resize_mode != "crop":
        layout = dataclasses.replace(layout, resize_size=0)
    files = [pathlib.Path(path) for path in paths]
    pixels, good = _decode_all(files, layout, shape, True, options, [])
    return [str(path) for path, keep in zip(paths, good, strict=True) if keep], pixels


def _keep(listing: Listing, good: np.ndarray) -> Listing:
    return dataclasses.replace(
        listing,
        paths=[path for path, keep in zip(listing.paths, good, strict=True) if keep],
        labels=listing.labels[good],
        parts=None if listing.parts is None else listing.parts[good],
    )


def _decode_all(
    paths: Sequence[pathlib.Path],
    layout: decode.Layout,
    shape: tuple[int, int, int],
    threads: bool,
    options: "DataOptions",
    problems: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the good images [n, H, W, C] and which of the files [N] those are."""
    good = np.ones(len(paths), dtype=bool)

    def make(i: int) -> np.ndarray:
        try:
            image = decode.decode(paths[i].read_bytes(), layout)
            if image.shape != shape:
                raise decode.BadImage(
                    f"the image is {image.shape[1]}×{image.shape[0]} pixels instead "
                    f"of {shape[1]}×{shape[0]}"
                )
            return image
        except (decode.BadImage, OSError) as error:
            problems.append(headers.refuse(paths[i], error, options))
            good[i] = False
            return np.zeros(shape, dtype=np.uint8)

    pixels = pool.stack(make, len(paths), shape, threads)
    return (pixels if good.all() else pixels[good]), good


def _stream(
    listing: Listing,
    layout: decode.Layout,
    shape: tuple[int, int, int],
    threads: bool,
) -> images.Images:
    paths = listing.paths

    def read(positions: np.ndarray) -> np.ndarray:
        positions = np.asarray(positions)

        def make(i: int) -> np.ndarray:
            path = paths[positions[i]]
            try:
                return decode.decode(path.read_bytes(), layout)
            except (decode.BadImage, OSError) as error:
                raise UserError(
                    f"{path}: {error}; its header and end passed the check at "
                    "loading; mend or delete it"
                ) from error

        return pool.stack(make, len(positions), shape, threads)

    return images.Images(listing.labels, shape, read)


def _check_classes(listing: Listing) -> None:
    labels = listing.labels
    if listing.parts is not None:
        labels = labels[listing.parts == "train"]
    counts = np.bincount(labels, minlength=len(listing.class_names))
    if not counts.all():
        raise UserError(
            f"{listing.name}: class {listing.class_names[int(counts.argmin())]} has "
            "no training image that can be read"
        )


def _split(
    listing: Listing, examples: images.Images, options: "DataOptions"
) -> images.Dataset:
    """Share the examples out; a validation part without a test part is the test."""
    if listing.parts is None:
        taken = round(TEST_FRACTION * len(examples))
        if not 0 < taken < len(examples):
            raise UserError(
                f"{listing.name}: {len(examples)} images are too few to split a test "
                "set off; put them under train/ and test/"
            )
        train, test = splits.stratified_split(
            examples.labels, taken, options.split_seed
        )
        positions = {"train": np.sort(train), "test": np.sort(test)}
    else:
        positions = {
            part: np.flatnonzero(listing.parts == part)
            for part in ("train", "validation", "test")
        }
        if not len(positions["test"]):
            positions["test"] = positions.pop("validation")
    validation = positions.get("validation", ())
    return images.Dataset(
        name=listing.name,
        class_names=listing.class_names,
        train=examples.take(positions["train"]),
        validation=examples.take(validation) if len(validation) else None,
        test=examples.take(positions["test"]),
        notes=listing.notes,
    )
