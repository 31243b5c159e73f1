"""Stamps: what tells the contents of one example from those of another, cheaply.

A stamp is the size in bytes and 64 bits of SHA-256, as `"1234-0123456789abcdef"`. Up
to 64 KiB the hash is of all bytes, beyond that of 16 KiB at the start, in the middle
and at the end, so that no large file is read in full before a run needs it. Where a
file lies, its name and its times are no part of it.
"""

import hashlib
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

_WHOLE, _PIECE = 2**16, 2**14


class Expected:
    """What examples that a run reads again and again have to be each time.

    Stamps of large ones leave bytes out. Of these a checksum of all bytes is taken when
    they are first read, which later readings in this process have to equal.
    """

    def __init__(self, stamps: np.ndarray) -> None:
        """Expect examples of these stamps [N]."""
        self._stamps = stamps
        self._checksums = np.full(len(stamps), -1, np.int64)  # -1: not read yet

    def is_met(self, position: int, content: bytes) -> bool:
        """Return whether these are the bytes of the example at a position."""
        if stamp_bytes(content) != self._stamps[position]:
            return False
        if len(content) <= _WHOLE:
            return True
        checksum, first = zlib.crc32(content), self._checksums[position]
        if first < 0:
            self._checksums[position] = checksum
        return first in (-1, checksum)


def stamp_bytes(content: bytes) -> str:
    """Return the stamp of an example's bytes."""
    pieces = [content[start : start + length] for start, length in _cut(len(content))]
    return _format(len(content), pieces)


def stamp_file(file: BinaryIO, num_bytes: int) -> str:
    """Return the stamp of an open file of that size, equal to that of its bytes."""
    pieces = []
    for start, length in _cut(num_bytes):
        file.seek(start)
        pieces.append(file.read(length))
    return _format(num_bytes, pieces)


def stamp_arrays(arrays: np.ndarray) -> np.ndarray:
    """Return the stamp of each array [N, …], an object array [N] of texts.

    They are in memory as a whole, so all bytes are hashed, however many.
    """
    stamps = np.empty(len(arrays), dtype=object)
    for i, array in enumerate(arrays):
        content = array.tobytes()
        stamps[i] = _format(len(content), [content])
    return stamps


def _cut(num_bytes: int) -> list[tuple[int, int]]:
    """Return the start and length of what is hashed of that many bytes."""
    if num_bytes <= _WHOLE:
        return [(0, num_bytes)]
    last = num_bytes - _PIECE
    return [(start, _PIECE) for start in (0, last // 2, last)]


def _format(num_bytes: int, pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256(b"".join(pieces)).hexdigest()
    return f"{num_bytes}-{digest[:16]}"
