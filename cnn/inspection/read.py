"""One pass over the images of a part: what each is, and what is summed over all.

Every image is read once, in threads, decoded as it lies (where training resizes it,
also as training does) and forgotten again: what is kept of it is a thumbnail and two
digests. A file that cannot be read is a `Look` with a problem. Digests are of 128 bits
of BLAKE2b: equal ones mean equal contents.
"""

import dataclasses
import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np

from cnn.data import contents, decode, images, metadata
from cnn.data.stamps import stamp_bytes
from cnn.inspection import likeness

if TYPE_CHECKING:
    from PIL import Image

_CHUNK = 256
_MODES = {1: "L", 3: "RGB"}  # of arrays, by channels


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen of one image.

    Attributes:
        problem: why it cannot be read; empty: it can, and the rest is known.
        size: (height, width) in pixels, as a viewer shows it.
        mode: of its colours in the file, as Pillow names it: `L`, `RGB`, `P`, ….
        format: of the file, `JPEG`, `PNG`, …; empty of an array.
        damaged: whether its metadata are, and are left out.
        stamp: of the file, as of `stamp_bytes`; empty of an array.
        content: digest of the file's bytes; empty of an array.
        pixels: digest of the decoded image; grey ones count as colour whose channels
            are equal.
        thumb: uint8 [32, 32], grey.
    """

    problem: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    format: str = ""
    damaged: bool = False
    stamp: str = ""
    content: bytes = b""
    pixels: bytes = b""
    thumb: np.ndarray | None = None


def read_part(
    part: images.Images, layout: decode.Layout
) -> tuple[list[Look], dict[int, np.ndarray]]:
    """Look at every image of a part.

    Args:
        layout: that training brings images to.

    Returns:
        What was seen of each, and how often each value of a pixel occurs in images in
        that layout: [C, 256], by their number of channels C.
    """
    share = max(1, min(_CHUNK, len(part) // (4 * decode.count_cores())))
    starts = range(0, len(part), share)

    def read_some(start: int) -> tuple[list[Look], dict[int, np.ndarray]]:
        positions = np.arange(start, min(start + share, len(part)))
        counts = {1: np.zeros((1, 256), np.int64), 3: np.zeros((3, 256), np.int64)}
        if part.contents is None:
            looks = [_look_at_array(pixels, counts) for pixels in part.read(positions)]
        else:
            files = part.contents(positions)
            looks = [_look_at_file(content, layout, counts) for content in files]
        return looks, counts

    found = decode.call_all(read_some, starts, 1)
    looks = [look for chunk, _ in found for look in chunk]
    sums = {n: sum(counts[n] for _, counts in found) for n in (1, 3)}
    return looks, {n: counts for n, counts in sums.items() if np.any(counts)}


def read_image(part: images.Images, position: int) -> np.ndarray:
    """Read one image again, as it lies: uint8 [H, W, C]."""
    if part.contents is None:
        return part.read(np.array([position]))[0]
    (content,) = part.contents(np.array([position]))
    return decode.decode(content, decode.Layout())


def _look_at_array(pixels: np.ndarray, counts: dict[int, np.ndarray]) -> Look:
    """Look at an image that is in the layout already."""
    _count_values(pixels, counts)
    return _look_at_pixels(pixels)


def _look_at_file(
    content: bytes | Exception, layout: decode.Layout, counts: dict[int, np.ndarray]
) -> Look:
    """Look at what is in a file, or at why it cannot be read."""
    try:
        if isinstance(content, Exception):
            raise content
        pixels = decode.decode(content, decode.Layout())
        is_same = not layout.size and layout.channels in (0, pixels.shape[2])
        trained = pixels if is_same else decode.decode(content, layout)
    except (decode.BadImage, OSError) as error:
        return Look(problem=contents.describe_error(error))
    _count_values(trained, counts)
    return dataclasses.replace(
        _look_at_header(_look_at_pixels(pixels), content),
        stamp=stamp_bytes(content),
        content=_digest(content),
    )


def _look_at_header(seen: Look, content: bytes) -> Look:
    """Add what the header says of an image that can be decoded."""
    try:
        image = decode.open_image(io.BytesIO(content))
    except decode.BadImage:  # it opens without its metadata alone
        return dataclasses.replace(seen, damaged=True)
    damaged = metadata.has_damaged_exif(image)
    return dataclasses.replace(
        seen, mode=image.mode, format=image.format, damaged=damaged
    )


def _look_at_pixels(pixels: np.ndarray) -> Look:
    from PIL import Image

    height, width, channels = pixels.shape
    image = _make_image(pixels)
    grey = image if channels == 1 else image.convert("L")
    size = (likeness.SIDE, likeness.SIDE)
    thumb = grey.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    if channels == 3 and np.all(pixels[0] == pixels[0, :, :1]):
        if np.all(pixels == pixels[..., :1]):
            pixels = pixels[..., :1]
    shape = np.array(pixels.shape, np.int64).tobytes()
    return Look(
        size=(height, width),
        mode=_MODES[channels],
        pixels=_digest(shape, np.ascontiguousarray(pixels)),
        thumb=np.asarray(thumb),
    )


def _count_values(pixels: np.ndarray, counts: dict[int, np.ndarray]) -> None:
    """Count the values of an image's pixels, channel by channel."""
    channels = pixels.shape[2]
    histogram = np.array(_make_image(pixels).histogram())
    counts[channels] += histogram.reshape(channels, 256)


def _make_image(pixels: np.ndarray) -> "Image.Image":
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _digest(*contents: bytes | np.ndarray) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for content in contents:
        digest.update(content)
    return digest.digest()
