"""Image files on disk: checked when the dataset is loaded, decoded when needed.

Images kept in memory are decoded at once, so every bad file is found at loading. Of
streamed ones the header and the end are checked then; damage in the middle of a file
is found when it is read.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnn.data import choose, contents, decode, headers, images
from cnn.data.labels import count_classes
from cnn.data.names import check_class_names, count
from cnn.data.options import DataOptions
from cnn.data.stamps import Expected
from cnn.errors import UserError
from cnn.text import show_line

TEST_FRACTION = 0.2
# In place of a value of `--bad_images`: files are listed, and none is opened.
UNOPENED = "unopened"
_SHOWN = 3
# Of streamed images.
_CHECKED = "its header and end passed the check at loading"
_SKIPPED = ", and --bad_images=skip leaves out what fails there"
_MEND = "mend or delete it, or have all files decoded at loading with --resident=always"


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files and their classes, before any of them was opened.

    Attributes:
        name: the value of `--dataset`.
        class_names: one for each label.
        paths: of the files [N], in a fixed order.
        names: of the files [N], object array of texts that do not depend on where the
            data set lies.
        labels: int32 [N], or several an image, uint8 [N, K].
        parts: `train`, `validation` or `test` for each file [N]; None: a test set is
            split off.
        notes: lines to print.
        taken: what of the source was taken, as JSON; see `images.Dataset`.
    """

    name: str
    class_names: tuple[str, ...]
    paths: Sequence[pathlib.Path]
    names: np.ndarray
    labels: np.ndarray
    parts: np.ndarray | None
    notes: tuple[str, ...] = ()
    taken: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load_files(listing: Listing, options: DataOptions) -> images.Dataset:
    """Check the files of a listing and split them into parts.

    Bad files that `--bad_images=skip` leaves out are removed before the split.

    Raises:
        UserError: a file cannot be read, files differ in size without
            `--image_size`, or a class has no file left.
    """
    listing, examples, excluded = read_files(listing, options)
    is_trained = slice(None) if listing.parts is None else listing.parts == "train"
    counts = count_classes(listing.labels[is_trained], len(listing.class_names))
    if not counts.all():
        raise UserError(
            f"{listing.name}: class {listing.class_names[int(counts.argmin())]} has "
            "no training image that can be read"
        )
    dataset = _split(listing, examples, options)
    return dataclasses.replace(dataset, excluded=excluded)


def load_evaluated(
    listing: Listing, options: DataOptions, is_whole: bool
) -> images.Evaluated:
    """Check the files of a listing, which are to be evaluated.

    Args:
        is_whole: whether these are all images of the dataset.

    Raises:
        UserError: a file cannot be read, or files differ in size without
            `--image_size`.
    """
    listing, examples, excluded = read_files(listing, options)
    return images.Evaluated(
        name=listing.name,
        class_names=listing.class_names,
        images=examples,
        notes=listing.notes,
        excluded=excluded,
        is_whole=is_whole,
    )


def read_files(
    listing: Listing, options: DataOptions
) -> tuple[Listing, images.Images, tuple[images.BadFile, ...]]:
    """Check the files of a listing; those that stay in memory are decoded.

    Returns:
        The listing of the good files, their images, and the other files.

    Raises:
        UserError: a class has a name of `check_class_names`, a file cannot be read, or
            files differ in size without `--image_size`.
    """
    check_class_names(listing.name, listing.class_names)
    if options.bad_images == UNOPENED:
        return listing, _list_contents(listing), ()
    whole = listing
    found, problems = headers.read_headers(listing.paths, options)
    shape = headers.find_shape(listing.name, listing.paths, found, options)
    good = np.array([header is not None for header in found])
    listing = _keep(listing, good)
    sizes = [header.num_bytes for header in found if header is not None]
    stamps = np.array([h.stamp for h in found if h is not None], dtype=object)
    threads = sum(sizes) > len(sizes) * decode.THREADS_PAY_BYTES
    layout = dataclasses.replace(decode.make_layout(options), channels=shape[-1])
    if options.keeps_in_memory(len(sizes) * int(np.prod(shape))):
        pixels, good = _decode_all(
            listing.paths, layout, shape, threads, options, problems
        )
        listing, stamps = _keep(listing, good), stamps[good]
        examples = images.from_array(pixels, listing.labels, listing.names, stamps)
        paths = np.array(listing.paths, dtype=object)
        examples = dataclasses.replace(examples, paths=paths)
    else:
        examples = _stream(listing, stamps, layout, shape, threads, options)

    def refit(options: DataOptions) -> images.Images:
        size = options.stored_size
        layout = dataclasses.replace(decode.make_layout(options), channels=shape[-1])
        fitted = size, size, shape[-1]
        return _stream(listing, stamps, layout, fitted, threads, options)

    examples = dataclasses.replace(examples, refit=refit)
    excluded = _list_bad(whole, problems)
    notes = listing.notes
    damaged = [
        show_line(str(path))
        for path, header in zip(whole.paths, found, strict=True)
        if header is not None and header.damaged and path not in problems
    ]
    if damaged:
        notes += (
            f"{count(len(damaged), 'image')} with damaged metadata, read without them, "
            f"EXIF's rotation included: {_shorten(damaged, ', ')}",
        )
    return dataclasses.replace(listing, notes=notes), examples, excluded


def describe_bad(excluded: Sequence[images.BadFile]) -> tuple[str, ...]:
    """Return the note of files that were left out; none without such files."""
    if not excluded:
        return ()
    shown = _shorten([show_line(f"{bad.path}: {bad.reason}") for bad in excluded], "; ")
    number = count(len(excluded), "image")
    return (f"left out {number} that cannot be read: {shown}",)


def format_bad(source: str, excluded: Sequence[images.BadFile]) -> str:
    """Write `bad_images.txt`: a line for each file that was left out.

    Args:
        source: what they are files of.
        excluded: at least one.
    """
    lines = [f"# {len(excluded)} files of {source} were left out: path, tab, reason"]
    for bad in excluded:
        # A name may hold what ends a line, or bytes that are no UTF-8.
        cells = (bad.path.replace("\\", r"\\"), bad.reason)
        lines.append("\t".join(map(show_line, cells)))
    return "\n".join(lines) + "\n"


def _list_bad(
    listing: Listing, problems: Mapping[pathlib.Path, str]
) -> tuple[images.BadFile, ...]:
    """Return the files with a problem, each with its part ("" without parts)."""
    parts = [""] * len(listing.names)
    if listing.parts is not None:
        parts = listing.parts.tolist()
    if "test" not in parts:
        parts = ["test" if part == "validation" else part for part in parts]
    return tuple(
        images.BadFile(name, str(path), part, problems[path])
        for name, path, part in zip(listing.names, listing.paths, parts, strict=True)
        if path in problems
    )


def _shorten(texts: Sequence[str], separator: str) -> str:
    shown = separator.join(texts[:_SHOWN])
    return f"{shown}{separator}…" if len(texts) > _SHOWN else shown


def decode_files(
    paths: Sequence[str | pathlib.Path],
    shape: tuple[int, int, int],
    options: DataOptions,
    problems: dict[pathlib.Path, str],
) -> tuple[list[str], np.ndarray]:
    """Decode image files to images like those of a dataset.

    Args:
        paths: of the files [N].
        shape: (H, W, C), as the dataset was loaded by these options; files are resized
            to it when it is square and must have its size otherwise.
        problems: gets what is wrong with files that are left out.

    Returns:
        The paths of the good files [n] and their images, uint8 [n, H, W, C].

    Raises:
        UserError: a file cannot be read, or has another size.
    """
    height, width, channels = shape
    size = height if height == width else 0
    layout = decode.make_layout(options)
    layout = dataclasses.replace(layout, size=size, channels=channels)
    files = [pathlib.Path(path) for path in paths]
    pixels, good = _decode_all(files, layout, shape, True, options, problems)
    if options.shuffle_pixels:
        pixels = choose.permute_pixels(pixels, options.split_seed)
    return [str(path) for path, keep in zip(paths, good, strict=True) if keep], pixels


def _keep(listing: Listing, good: np.ndarray) -> Listing:
    return dataclasses.replace(
        listing,
        paths=[path for path, keep in zip(listing.paths, good, strict=True) if keep],
        names=listing.names[good],
        labels=listing.labels[good],
        parts=None if listing.parts is None else listing.parts[good],
    )


def _decode_all(
    paths: Sequence[pathlib.Path],
    layout: decode.Layout,
    shape: tuple[int, int, int],
    threads: bool,
    options: DataOptions,
    problems: dict[pathlib.Path, str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the good images [n, H, W, C] and which of the files [N] those are.

    Args:
        problems: gets what is wrong with the others.
    """
    good = np.ones(len(paths), dtype=bool)

    def make(i: int) -> np.ndarray:
        try:
            image = decode.decode(contents.read_file(paths[i]), layout)
            if image.shape != shape:
                raise decode.BadImage(
                    f"the image is {image.shape[1]}×{image.shape[0]} pixels instead "
                    f"of {shape[1]}×{shape[0]}"
                )
            return image
        except (decode.BadImage, OSError) as error:
            problems[paths[i]] = contents.refuse(paths[i], error, options)
            good[i] = False
            return np.zeros(shape, dtype=np.uint8)

    pixels = decode.stack(make, len(paths), shape, threads)
    return (pixels if good.all() else pixels[good]), good


def _stream(
    listing: Listing,
    stamps: np.ndarray,
    layout: decode.Layout,
    shape: tuple[int, int, int],
    threads: bool,
    options: DataOptions,
) -> images.Images:
    paths, expected = listing.paths, Expected(stamps)

    def read(positions: np.ndarray) -> np.ndarray:
        positions = np.asarray(positions)

        def make(i: int) -> np.ndarray:
            path = paths[positions[i]]
            try:
                content = contents.read_file(path)
                if not expected.is_met(positions[i], content):
                    raise UserError(
                        f"{path} has changed since the start of this run; put it back "
                        "and resume"
                    )
                return decode.decode(content, layout)
            except FileNotFoundError:
                raise UserError(
                    f"{path} is gone since the start of this run; put it back and "
                    "resume"
                ) from None
            except (decode.BadImage, OSError) as error:
                raise UserError(
                    f"{path}: {contents.describe_error(error)}; {_CHECKED}"
                    f"{_SKIPPED if options.bad_images == 'skip' else ''}; {_MEND}"
                ) from error

        return decode.stack(make, len(positions), shape, threads)

    return images.Images(
        listing.labels,
        shape,
        read,
        names=listing.names,
        stamps=stamps,
        layout=dataclasses.astuple(layout),
        paths=np.array(paths, dtype=object),
    )


def _list_contents(listing: Listing) -> images.Images:
    """Return the images of files that nobody has looked into: `contents` alone."""

    def read(positions: np.ndarray) -> np.ndarray:
        raise NotImplementedError("files of unknown size have contents alone")

    def read_contents(position: int) -> bytes | Exception:
        try:
            return contents.read_file(listing.paths[position])
        except (decode.BadImage, OSError) as error:
            return error

    return images.Images(
        listing.labels,
        (0, 0, 0),
        read,
        names=listing.names,
        contents=lambda positions: map(read_contents, positions),
        paths=np.array(listing.paths, dtype=object),
    )


def _split(
    listing: Listing, examples: images.Images, options: DataOptions
) -> images.Dataset:
    """Split the examples; a validation part without a test part becomes the test."""
    notes = listing.notes
    if listing.parts is None:
        rest, test = choose.split_by_name(
            examples, TEST_FRACTION, options.split_seed, "test", every_class=True
        )
        if not len(test):
            raise UserError(
                f"{listing.name}: {len(examples)} images are too few to split a test "
                "set off; put them under train/ and test/"
            )
        positions = {"train": rest, "test": test}
        notes += (choose.describe_split("test", examples.labels, test),)
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
        notes=notes,
        is_named=True,
        taken=listing.taken,
    )
