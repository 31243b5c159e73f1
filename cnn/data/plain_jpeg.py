"""Plain JPEG files decoded by simplejpeg, without what Pillow does around it.

Both call libjpeg-turbo, and the pixels are equal; whether they are with the versions
here is tried once. A file is plain that says it is JFIF, has 1 or 3 components of 8
bits and no other metadata than comments and colour profiles. Pillow reads all others,
and whatever simplejpeg has to say anything about, so that it alone judges damage.
"""

import functools
import io
from typing import Any

import numpy as np

try:
    import simplejpeg
except ImportError:  # as where there is no wheel of it
    simplejpeg: Any = None

_SOI, _JFIF, _PROFILE = b"\xff\xd8", b"JFIF\0", b"ICC_PROFILE\0"
_APP0, _APP2, _SOS = 0xE0, 0xE2, 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; Huffman-coded
_OTHERS = (0xC4, 0xDB, 0xDD, 0xFE)  # tables of both kinds, restarts, comments
_CANARY_SIZE = 45  # no multiple of 8 or 16: edges count too


def read_size(content: bytes) -> tuple[int, int, int] | None:
    """Read (height, width, components) of a plain JPEG file.

    Returns:
        None of any other, and where simplejpeg is not to be used.
    """
    if simplejpeg is None or not content.startswith(_SOI):
        return None
    size = _read_segments(content)
    return size if size and is_trusted() else None


def _read_segments(content: bytes) -> tuple[int, int, int] | None:
    """Read the size out of the segments before the pixels; None unless plain."""
    found, place, is_jfif = None, 2, False
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == _SOS:
            return found if is_jfif else None
        length = int.from_bytes(content[place + 2 : place + 4])
        body = content[place + 4 : place + 2 + length]
        if marker in _FRAMES and found is None and len(body) > 5:
            found = int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), body[5]
            if body[0] != 8 or body[5] not in (1, 3) or 0 in found:
                return None
        elif marker == _APP0:
            is_jfif = is_jfif or body.startswith(_JFIF)
        elif marker == _APP2:
            if not body.startswith(_PROFILE):
                return None
        elif marker not in _OTHERS:
            return None
        place += 2 + length
    return None


def decode(content: bytes, components: int) -> np.ndarray | None:
    """Decode a plain JPEG file.

    Args:
        components: of `read_size`.

    Returns:
        uint8 [H, W, components]; None where anything is wrong with the file.
    """
    try:
        return simplejpeg.decode_jpeg(content, "GRAY" if components == 1 else "RGB")
    except Exception:  # Pillow says what it is, or makes the best of it
        return None


@functools.cache
def is_trusted() -> bool:
    """Try whether simplejpeg gives Pillow's pixels here, once a process."""
    for content in _make_canaries():
        pixels = decode(content, _read_segments(content)[2])
        if pixels is None or not np.array_equal(pixels, _decode_by_pillow(content)):
            return False
    return True


def _make_canaries() -> list[bytes]:
    """Make small JPEG files of waves: colour, baseline and progressive, and grey."""
    from PIL import Image

    y, x = np.mgrid[:_CANARY_SIZE, :_CANARY_SIZE]
    waves = [np.sin(y * x / 30), np.cos(y / 3), np.sin((x + y) / 2)]
    image = Image.fromarray(np.uint8(128 + 120 * np.stack(waves, -1)))
    ways = [{"progressive": True}, {"subsampling": 0}, {"subsampling": 1}]
    made = []
    for number, options in enumerate([{}, *ways, {}]):
        file = io.BytesIO()
        source = image if number <= len(ways) else image.convert("L")
        source.save(file, "JPEG", quality=60, **options)
        made.append(file.getvalue())
    return made


def _decode_by_pillow(content: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
