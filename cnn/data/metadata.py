"""What an image file says beside its pixels: EXIF's orientation, and damage in it.

Damaged metadata do not make an image bad: it is read without them. Damage in what the
pixels of a PNG depend on does, and its checksums show it.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112
# Bytes of a value, by its type; types that are not here are not looked at.
_SHORT, _LONG = 3, 4
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_PNG = b"\x89PNG\r\n\x1a\n"
# Of a PNG: what its pixels depend on. Of a JPEG file: what its pixels do not.
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_METADATA = (*range(0xE1, 0xEE), 0xEF, 0xFE)
_CODING, _START_OF_SCAN = (0xE0, 0xEE), 0xDA


def read_orientation(image: "Image.Image") -> int:
    """Return EXIF's orientation, 1 to 8; 1 where there is none or it is damaged."""
    block = image.info.get("exif")
    try:
        value = _parse(block) if isinstance(block, bytes) else None
        if value is None:  # other metadata may have it
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds
        return 1
    return value if value in range(1, 9) else 1


def has_damaged_exif(image: "Image.Image") -> bool:
    """Return whether an EXIF block is there whose first directory is damaged.

    Only what an opened file has read so far is looked at.
    """
    block = image.info.get("exif")
    try:
        return isinstance(block, bytes) and _parse(block) not in (None, *range(9))
    except (struct.error, KeyError, ValueError):
        return True


def find_damaged_chunk(content: bytes) -> str | None:
    """Return the name of a PNG's first chunk that does not have its checksum.

    Only those are looked at that the pixels depend on. Pillow does not verify those
    of the pixels themselves.
    """
    for chunk in _list_chunks(content) if content.startswith(_PNG) else ():
        if zlib.crc32(chunk[4:-4]).to_bytes(4) != chunk[-4:]:
            return chunk[4:8].decode("ascii")
    return None


def strip(content: bytes) -> bytes | None:
    """Leave out of a JPEG or PNG file what its pixels do not depend on.

    Returns:
        The file without EXIF, XMP, colour profiles and comments; None if it has none
        of these or is built otherwise.
    """
    try:
        if content.startswith(b"\xff\xd8"):
            kept = _strip_jpeg(content)
        elif content.startswith(_PNG):
            kept = _strip_png(content)
        else:
            return None
    except (struct.error, IndexError):  # cut before its pixels
        return None
    return None if kept is None or len(kept) == len(content) else kept


def _parse(block: bytes) -> int | None:
    """Return the orientation in an EXIF block; None where it has none.

    Raises:
        ValueError: its first directory is cut or points out of the block.
        struct.error: likewise.
        KeyError: it is no EXIF block, or the orientation has another type.
    """
    block = block.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")
    if not block:
        return None
    order = {b"II*\0": "<", b"MM\0*": ">"}[block[:4]]
    (start,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, start)
    found = None
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length, value = struct.unpack_from(order + "HHII", block, place)
        size = _BYTES.get(kind, 0) * length
        if size > 4 and value + size > len(block):
            raise ValueError(f"tag {tag} lies outside")
        if tag == _ORIENTATION:
            form = order + {_SHORT: "H", _LONG: "I"}[kind]
            (found,) = struct.unpack_from(form, block, place + 8)
            if length != 1:
                raise ValueError("more than one orientation")
    return found


def _strip_jpeg(content: bytes) -> bytes | None:
    kept, place = [content[:2]], 2
    while True:
        if content[place] != 0xFF:
            return None
        marker = content[place + 1]
        if marker == 0xFF:  # a byte that fills up
            place += 1
            continue
        if marker == _START_OF_SCAN:
            return b"".join([*kept, content[place:]])
        (length,) = struct.unpack_from(">H", content, place + 2)
        # What says how colours are coded is kept, if it is whole.
        if marker not in _JPEG_METADATA and (marker not in _CODING or length >= 14):
            kept.append(content[place : place + 2 + length])
        place += 2 + length


def _strip_png(content: bytes) -> bytes:
    return _PNG + b"".join(_list_chunks(content))


def _list_chunks(content: bytes) -> Iterator[bytes]:
    """List the chunks of a PNG that its pixels depend on, to the last one."""
    place, kind = len(_PNG), b""
    while place < len(content) and kind != b"IEND":
        (length,) = struct.unpack_from(">I", content, place)
        kind, stop = content[place + 4 : place + 8], place + 12 + length
        if kind in _PNG_CHUNKS:
            yield content[place:stop]
        place = stop
