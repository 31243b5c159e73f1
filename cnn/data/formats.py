"""The formats of image files: which are read, which are whole, what others are.

A file is what its first bytes say, whatever its name.
"""

import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

# Of names, in lower case: where a folder is searched.
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp")
ENDINGS += (".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif")
# As Pillow calls them.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM", "AVIF")

_HEAD_BYTES, _TAIL_BYTES = 512, 1024
_CONVERT = "convert it to JPEG or PNG"
# What files that are no readable image begin with.
_KINDS = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    b"%PDF-": f"a PDF document; {_CONVERT}",
    b"%!PS": f"a PostScript drawing; {_CONVERT}",
    b"8BPS": f"a Photoshop document; {_CONVERT}",
    b"\x00\x00\x01\x00": f"a Windows icon; {_CONVERT}",
    b"\x00\x00\x02\x00": f"a Windows cursor; {_CONVERT}",
    b"icns": f"an Apple icon; {_CONVERT}",
    b"\x00\x00\x00\x0cjP  ": f"a JPEG 2000 image; {_CONVERT}",
    b"\xff\x4f\xff\x51": f"a JPEG 2000 image; {_CONVERT}",
    b"\x00\x00\x00\x0cJXL ": f"a JPEG XL image; {_CONVERT}",
    b"\xff\x0a": f"a JPEG XL image; {_CONVERT}",
    b"v/1\x01": f"an OpenEXR image; {_CONVERT}",
    b"#?RADIANCE": f"a Radiance HDR image; {_CONVERT}",
    b"DDS ": f"a DDS texture; {_CONVERT}",
    b"qoif": f"a QOI image; {_CONVERT}",
    b"\x00\x05\x16\x07": "the resource fork of a macOS file, no image; delete it",
    b"\x93NUMPY": "a NumPy array; see --dataset=npz:FILE",
    b"\x89HDF": "an HDF5 file",
    b"\x1a\x45\xdf\xa3": "a video (Matroska or WebM)",
    b"FLV\x01": "a video (Flash)",
    b"\x00\x00\x01\xba": "a video (MPEG)",
    b"\x00\x00\x01\xb3": "a video (MPEG)",
    b"version https://git-lfs": "a Git LFS pointer; run `git lfs pull`",
}
_FIRST_BYTES = (b"\xff", b"\x89")  # of JPEG and PNG, and of no text
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def name_content(head: bytes) -> str:
    """Say what a file that is no image of `FORMATS` is, by its first bytes."""
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            return kind
    if head[4:8] == b"ftyp":
        return _name_boxes(head)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "a video (AVI)"
    if head[128:132] == b"DICM":
        return f"a DICOM image; {_CONVERT}"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<svg") or text.startswith(b"<?xml") and b"<svg" in text:
        return f"an SVG drawing; {_CONVERT}"
    if text.startswith((b"<!doctype html", b"<html")):
        return "text, an HTML page (of a download that failed?)"
    if not head.strip(b"\0"):
        return "zeros (of a download or a copy that failed?)"
    is_text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    is_text &= head[:1] not in _FIRST_BYTES
    return "text" if is_text else "damaged or of another kind"


def _name_boxes(head: bytes) -> str:
    """Say what a file of ISO's media boxes is: its brands are in the first one."""
    length = struct.unpack(">I", head[:4])[0]
    brands = [head[i : i + 4] for i in range(8, min(length, len(head)), 4) if i != 12]
    if b"avif" in brands or b"avis" in brands:
        from PIL import features

        if not features.check("avif"):
            return f"an AVIF image, and this Pillow was built without AVIF; {_CONVERT}"
        return "a damaged AVIF image"
    if any(brand in _HEIF for brand in brands):
        return f"a HEIC/HEIF photo; {_CONVERT}"
    return "a video (MP4 or QuickTime)"


def read_head(file: BinaryIO) -> bytes:
    """Read what `name_content` looks at."""
    file.seek(0)
    return file.read(_HEAD_BYTES)


def looks_complete(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    """Judge by its structure whether a file that was opened has all of its bytes.

    Args:
        file: from which the image was opened, and not yet decoded.

    Returns:
        False also where that cannot be said without decoding it.
    """
    try:
        check = _CHECKS.get(image.format or "")
        return check is not None and check(file, image, num_bytes)
    except (struct.error, TypeError, ValueError):
        return False


def _read_at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _read_tail(file: BinaryIO, num_bytes: int) -> bytes:
    return _read_at(file, max(0, num_bytes - _TAIL_BYTES), _TAIL_BYTES)


def _ends_jpeg(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    return b"\xff\xd9" in _read_tail(file, num_bytes)


def _ends_png(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    return b"IEND" in _read_tail(file, num_bytes)


def _ends_gif(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    # A block of no bytes ends the last frame, `;` the file.
    return _read_tail(file, num_bytes).rstrip(b"\0").endswith(b"\0;")


def _ends_riff(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    return struct.unpack("<I", _read_at(file, 4, 4))[0] + 8 <= num_bytes


def _ends_bmp(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    return 0 < struct.unpack("<I", _read_at(file, 2, 4))[0] <= num_bytes


def _ends_tiff(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    tags = image.tag_v2  # strips or tiles of the first page: offsets and sizes
    for offsets, sizes in ((273, 279), (324, 325)):
        if offsets in tags and sizes in tags and len(tags[offsets]) == len(tags[sizes]):
            pairs = zip(tags[offsets], tags[sizes], strict=True)
            return all(offset + size <= num_bytes for offset, size in pairs)
    return False


def _ends_ppm(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    kind = _read_at(file, 0, 2)
    if kind not in (b"P4", b"P5", b"P6"):  # in plain text
        return False
    start, is_wide = image.tile[0].offset, image.mode == "I"
    row = -(-image.width // 8) if kind == b"P4" else image.width * (1 + is_wide)
    return start + row * image.height * (3 if kind == b"P6" else 1) <= num_bytes


def _ends_boxes(file: BinaryIO, image: "Image.Image", num_bytes: int) -> bool:
    place = 0
    while place < num_bytes:
        length, _, long = struct.unpack(">I4sQ", _read_at(file, place, 16))
        length = long if length == 1 else length
        if length < 8:  # 0: up to the end of the file
            return False
        place += length
    return place == num_bytes


_CHECKS = {
    "JPEG": _ends_jpeg,
    "MPO": _ends_jpeg,
    "PNG": _ends_png,
    "GIF": _ends_gif,
    "WEBP": _ends_riff,
    "BMP": _ends_bmp,
    "TIFF": _ends_tiff,
    "PPM": _ends_ppm,
    "AVIF": _ends_boxes,
}
