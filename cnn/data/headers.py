"""The headers of image files: what is known of them before they are decoded."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import BinaryIO

from cnn.data import contents, decode, formats, metadata
from cnn.data.options import DataOptions
from cnn.data.stamps import stamp_file
from cnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of a file that was not decoded.

    Attributes:
        size: (height, width) in pixels.
        grey: whether it has one channel, transparency aside.
        stamp: of its contents, as of `stamps.stamp_file`.
        damaged: whether metadata are damaged, and left out when it is read.
    """

    size: tuple[int, int]
    grey: bool
    num_bytes: int
    stamp: str
    damaged: bool = False


def _read_header(file: BinaryIO, upright: bool) -> Header:
    """Check what can be checked without decoding, and decode if in doubt.

    Args:
        upright: whether the size must be that after EXIF's rotation, for which a PNG
            is decoded.

    Raises:
        BadImage: the file is empty, no image, oversized or truncated.
    """
    num_bytes = file.seek(0, 2)
    file.seek(0)
    stamp = stamp_file(file, num_bytes)
    file.seek(0)
    try:
        image = decode.open_image(file)
        size = decode.upright_size(image) if upright else (image.height, image.width)
        damaged, is_grey = metadata.has_damaged_exif(image), decode.is_grey(image)
        is_whole = formats.looks_complete(file, image, num_bytes)
    except decode.BadImage:  # perhaps for its metadata alone, without which it is read
        damaged, is_whole = True, False
    if not is_whole:
        file.seek(0)
        pixels = decode.decode(file.read(), decode.Layout())
        size, is_grey = pixels.shape[:2], pixels.shape[2] == 1
    return Header(size, is_grey, num_bytes, stamp, damaged)


def read_headers(
    paths: Sequence[pathlib.Path], options: DataOptions
) -> tuple[list[Header | None], dict[pathlib.Path, str]]:
    """Return each file's header, None for a bad one, and what is wrong with those."""
    problems: dict[pathlib.Path, str] = {}

    def read(path: pathlib.Path) -> Header | None:
        try:
            with contents.open_file(path) as file:
                return _read_header(file, upright=options.stored_size == 0)
        except (decode.BadImage, OSError) as error:
            problems[path] = contents.refuse(path, error, options)
        return None

    return decode.call_all(read, paths), problems


def find_shape(
    name: str,
    paths: Sequence[pathlib.Path],
    headers: list[Header | None],
    options: DataOptions,
) -> tuple[int, int, int]:
    """Return the shape (H, W, C) that all files are decoded to.

    Raises:
        UserError: they differ in size and `--image_size` is not set.
    """
    found = [i for i, header in enumerate(headers) if header is not None]
    if not found:
        raise UserError(f"{name} holds no image that can be read")
    grey = all(headers[i].grey for i in found)
    channels = options.channels or (1 if grey else 3)
    if options.stored_size:
        return options.stored_size, options.stored_size, channels
    first = headers[found[0]].size
    for i in found:
        if headers[i].size != first:
            other = headers[i].size
            raise UserError(
                f"{name}: images differ in size: {paths[found[0]]} is "
                f"{first[1]}×{first[0]} pixels, {paths[i]} is "
                f"{other[1]}×{other[0]}; set --image_size to the height and width in "
                "pixels to bring all to"
            )
    return *first, channels
