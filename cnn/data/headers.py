"""What an image file says of itself, read without decoding its pixels."""

import dataclasses
import pathlib
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from cnn.data import decode, pool
from cnn.errors import UserError

if TYPE_CHECKING:
    from cnn.data import DataOptions

_TAIL_BYTES = 1024
_REMEDY = "mend or delete it, or leave such files out with --bad_images=skip"


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of a file that was not decoded.

    Attributes:
        size: (height, width) in pixels.
        grey: whether it has one channel, transparency aside.
        num_bytes: of the file.
    """

    size: tuple[int, int]
    grey: bool
    num_bytes: int


def _read_header(file: BinaryIO, upright: bool) -> Header:
    """Check what can be checked without decoding, and decode if in doubt.

    Args:
        file: open for reading, seekable.
        upright: whether the size must be that after the turn by EXIF; of a PNG this
            costs decoding it.

    Raises:
        BadImage: the file is empty, no image, oversized or truncated.
    """
    num_bytes = file.seek(0, 2)
    file.seek(0)
    if not num_bytes:
        raise decode.BadImage("the file is empty")
    image = decode.open_image(file)
    grey, kind = decode.is_grey(image), image.format
    size = decode.upright_size(image) if upright else (image.height, image.width)
    if not _looks_complete(file, kind, num_bytes):
        file.seek(0)
        decode.decode(file.read(), decode.Layout())
    return Header(size, grey, num_bytes)


def _looks_complete(file: BinaryIO, kind: str | None, num_bytes: int) -> bool:
    file.seek(0)
    head = file.read(8)
    file.seek(max(0, num_bytes - _TAIL_BYTES))
    tail = file.read()
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail
    if kind == "PNG":
        return b"IEND" in tail
    if kind == "WEBP":
        return struct.unpack("<I", head[4:])[0] + 8 <= num_bytes
    if kind == "BMP":
        return 0 < struct.unpack("<I", head[2:6])[0] <= num_bytes
    return False


def read_headers(
    paths: Sequence[pathlib.Path], options: "DataOptions"
) -> tuple[list[Header | None], list[str]]:
    """Return each file's header, None for a bad one, and what is bad."""
    problems: list[str] = []

    def read(path: pathlib.Path) -> Header | None:
        try:
            with path.open("rb") as file:
                return _read_header(file, upright=options.stored_size == 0)
        except (decode.BadImage, OSError) as error:
            problems.append(refuse(path, error, options))
        return None

    return pool.call_all(read, paths), problems


def refuse(path: pathlib.Path, error: Exception, options: "DataOptions") -> str:
    """Return what is wrong with a file that is skipped, or raise it."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    if options.bad_images == "error":
        raise UserError(f"{path}: {reason}; {_REMEDY}") from error
    return f"{path}: {reason}"


def find_shape(
    name: str,
    paths: Sequence[pathlib.Path],
    headers: list[Header | None],
    options: "DataOptions",
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
