"""Decoded images kept in files, so that no run decodes what one has decoded before.

A file holds the images of one set in one size. Its name is a hash of all that their
pixels depend on: names and stamps of the examples, the layout that they are brought to,
and the decoder. Where one of these is another, so is the file.

After `HEADER_BYTES` that say what it is, a file has for each image, in the order of the
set, a check of 8 bytes and its pixels. The check is 2**32 + CRC-32 of the pixels, in
little-endian order; where it does not agree, there is no image. So what a killed
process, a full disk or a damaged one leaves is decoded again and never taken. All
processes write the same bytes to the same places, so that they need no locks.

Files are read by position, not mapped: mapped pages count as the memory of a process,
and where a disk fails they end it without a message.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from cnn.data import decode, formats, metadata, plain_jpeg
from cnn.data.images import Images
from cnn.errors import UserError, explain
from cnn.runtime import background, own_files
from cnn.text import show_line

HEADER_BYTES = 4096
_CHECK_BYTES = 8
# Of disks that cannot take room ahead, as some in networks.
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_TITLE = "decoded images, 1"
# What is read or decoded at a time, so that little is lost or held.
_BLOCK_BYTES = 2**26
# Their text is part of what pixels depend on.
_DECODER = (decode, formats, metadata, plain_jpeg)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the images of a set are kept.

    Attributes:
        path: of the file.
        header: its first bytes.
        stride: bytes of an image with its check.
        num_bytes: of the whole file.
    """

    path: Path
    header: bytes
    stride: int
    num_bytes: int


def keep(
    parts: Mapping[str, Images], directory: Path, preview: bool = False
) -> dict[str, Images]:
    """Return sets that keep what they decode in files of a directory.

    The room for all images is taken at once, so that the disk cannot be full later.

    Args:
        parts: by name, images that are decoded when they are read.
        directory: of `--storage_cache`; made if need be.
        preview: whether to check alone: the same sets are returned, and nothing is
            written.

    Raises:
        UserError: the directory cannot be written or lacks room, or a file there is
            none of these. Reading raises it where a file cannot be read or written.
    """
    places = {name: _find_place(part, directory) for name, part in parts.items()}
    _check_directory(directory)
    _check_room(directory, list(places.values()))
    if preview:
        return dict(parts)
    kept = {}
    for name, part in parts.items():
        kept[name] = dataclasses.replace(part, read=_File(places[name], part).read)
    return kept


def _find_place(images: Images, directory: Path) -> _Place:
    lists = [None if x is None else list(x) for x in (images.names, images.stamps)]
    facts = [_describe_decoder(), images.layout, images.shape, lists]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    stride = _CHECK_BYTES + images.num_bytes // len(images)
    return _Place(
        path=directory / f"images-{digest[:32]}.bin",
        header=f"{_TITLE}\n{digest}\n".encode().ljust(HEADER_BYTES, b"\0"),
        stride=stride,
        num_bytes=HEADER_BYTES + len(images) * stride,
    )


def _describe_decoder() -> list[str | None]:
    """Return what tells one decoder from another: its code and Pillow's libraries."""
    from PIL import features

    names = [*features.codecs, *features.modules, "libjpeg_turbo"]
    versions = [features.version(name) for name in names if name != "tkinter"]
    sources = [Path(module.__file__).read_bytes() for module in _DECODER]
    return [hashlib.sha256(b"".join(sources)).hexdigest(), *versions]


def _find_existing(directory: Path) -> Path:
    wanted = directory.absolute()
    return next(path for path in (wanted, *wanted.parents) if path.exists())


def _check_directory(directory: Path) -> None:
    """Refuse a directory that cannot be made or written."""
    there = _find_existing(directory)
    reason = 0 if os.access(there, os.W_OK | os.X_OK) else errno.EACCES
    if not there.is_dir():
        reason = errno.ENOTDIR
    if reason:
        raise UserError(
            f"--storage_cache={show_line(str(directory))} cannot be made or written "
            f"({os.strerror(reason)}); give a directory that can be written"
        )


def _check_room(directory: Path, places: list[_Place]) -> None:
    """Refuse a directory on whose disk the files do not fit."""
    missing = 0
    for place in set(places):
        try:
            status = os.lstat(place.path)
        except OSError:
            taken = 0
        else:  # Windows does not say how much of it lies on the disk
            blocks = getattr(status, "st_blocks", status.st_size // 512)
            taken = blocks * 512
        missing += max(0, place.num_bytes - taken)
    free = shutil.disk_usage(_find_existing(directory)).free
    if missing > free:
        raise UserError(
            f"--storage_cache={show_line(str(directory))}: the decoded images take "
            f"{missing / 1e9:.3g} GB more, and the disk has {free / 1e9:.3g} GB; make "
            "room there, give a directory on another disk, or leave the flag out"
        )


class _File:
    """The file of a set, with the images that it lacks at hand."""

    def __init__(self, place: _Place, images: Images) -> None:
        self._place, self._images = place, images
        self._row = np.empty(place.stride, np.uint8)
        self._lock = threading.Lock()
        with _explain(place.path):
            self._file = _open(place)
        weakref.finalize(self, self._file.close)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Read images, as of `Images.read`; what is not there is decoded and kept."""
        positions = np.asarray(positions)
        found = np.empty((len(positions), *self._images.shape), np.uint8)
        step = max(1, _BLOCK_BYTES // self._place.stride)
        for start in range(0, len(positions), step):
            self._fill(found[start : start + step], positions[start : start + step])
        return found

    def _fill(self, found: np.ndarray, positions: np.ndarray) -> None:
        pairs = zip(found, positions.tolist(), strict=True)
        is_absent = ~np.array([self._load(*pair) for pair in pairs], bool)
        if not is_absent.any():
            return
        wanted, places = np.unique(positions[is_absent], return_inverse=True)
        pixels = self._images.read(wanted)
        for image, position in zip(pixels, wanted.tolist(), strict=True):
            self._store(image, position)
        found[is_absent] = pixels[places]

    def _load(self, image: np.ndarray, position: int) -> bool:
        """Fill an image from the file; returns whether it is there."""
        background.note()
        with self._lock, _explain(self._place.path):
            self._file.seek(HEADER_BYTES + position * self._place.stride)
            count = self._file.readinto(self._row)
            check = self._row[:_CHECK_BYTES].tobytes()
            pixels = self._row[_CHECK_BYTES:]
            if count < len(self._row) or check != _compute_check(pixels):
                return False
            image[...] = pixels.reshape(image.shape)
            return True

    def _store(self, image: np.ndarray, position: int) -> None:
        pixels = image.tobytes()
        with self._lock, _explain(self._place.path):
            start = HEADER_BYTES + position * self._place.stride
            _write(self._file, start, _compute_check(pixels) + pixels)


def _compute_check(pixels: bytes | np.ndarray) -> bytes:
    return (2**32 + zlib.crc32(pixels)).to_bytes(_CHECK_BYTES, "little")


@contextlib.contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Say which file the system refuses, and what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{show_line(str(path))} of --storage_cache cannot be read or written "
            f"({explain(error)}); or leave the flag out"
        ) from None


def _open(place: _Place) -> IO[bytes]:
    """Open a file that has room for all of its images; it is made if need be.

    Raises:
        UserError: it is a link, has another name too, or is no file of these images.
        OSError: it cannot be opened or written, or the disk is full.
    """
    place.path.parent.mkdir(parents=True, exist_ok=True)
    own_files.open_own(place.path, "ab").close()
    file = own_files.open_own(place.path, "r+b", 0)
    try:
        begins, size = file.read(HEADER_BYTES), file.seek(0, os.SEEK_END)
        # What was killed or cut off has but the first bytes of its header, or none.
        is_own = place.header.startswith(begins.rstrip(b"\0"))
        if not is_own or size > place.num_bytes:
            raise UserError(
                f"{show_line(str(place.path))} in --storage_cache holds something "
                "else than the decoded images of this name; move it away"
            )
        try:
            _take_room(file, place.num_bytes)
            _write(file, 0, place.header)
        except OSError:
            if begins != place.header:
                place.path.unlink(missing_ok=True)
            raise
    except BaseException:
        file.close()
        raise
    return file


def _take_room(file: IO[bytes], num_bytes: int) -> None:
    """Make a file as large as that, of zeros; what is in it stays."""
    try:
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    except AttributeError:  # macOS and Windows have none
        pass
    except OSError as error:
        if error.errno not in _NO_FALLOCATE:
            raise
    if file.seek(0, os.SEEK_END) < num_bytes:
        file.truncate(num_bytes)


def _write(file: IO[bytes], start: int, content: bytes) -> None:
    file.seek(start)
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
