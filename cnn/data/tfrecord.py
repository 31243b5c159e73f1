"""Random access to TFRecord files through an index of where their records lie.

A record is its length (uint64), a checksum of the length (uint32), the data, and a
checksum of the data (uint32), all little-endian; the checksums are not verified.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import mmap
import pathlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnn.errors import UserError

_LENGTH = struct.Struct("<Q")
_HEADER_BYTES = 12
_FOOTER_BYTES = 4


def open_records(instructions: Sequence[Any]) -> Callable[[np.ndarray], list[bytes]]:
    """Index files and return the function that reads their records.

    Args:
        instructions: objects with `filename`, `skip` and `take` (records of that
            file), in order, as tensorflow-datasets' `FileInstruction`.

    Returns:
        A function of positions [n] to n records; safe in threads.

    Raises:
        UserError: a file is missing, cut off, or holds too few records.
    """
    files, file_of, start_of, length_of = [], [], [], []
    for number, instruction in enumerate(instructions):
        path = pathlib.Path(instruction.filename)
        content = _map_file(path)
        starts, lengths = _index(content, path)
        chosen = slice(instruction.skip, instruction.skip + instruction.take)
        if len(starts[chosen]) < instruction.take:
            raise UserError(
                f"{path} holds {len(starts)} records but dataset_info.json promises "
                f"{instruction.skip + instruction.take}; prepare the dataset again"
            )
        files.append(content)
        start_of.append(starts[chosen])
        length_of.append(lengths[chosen])
        file_of.append(np.full(instruction.take, number))
    file_of, start_of, length_of = map(np.concatenate, (file_of, start_of, length_of))

    def read(positions: np.ndarray) -> list[bytes]:
        places = zip(
            file_of[positions].tolist(),
            start_of[positions].tolist(),
            length_of[positions].tolist(),
            strict=True,
        )
        return [files[file][start : start + length] for file, start, length in places]

    return read


def _map_file(path: pathlib.Path) -> mmap.mmap | bytes:
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; prepare the dataset again"
        ) from error


def _index(
    content: mmap.mmap | bytes, path: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and lengths of the records' data, in bytes."""
    starts, lengths, place, end = [], [], 0, len(content)
    while place < end:
        if place + _HEADER_BYTES > end:
            break
        (length,) = _LENGTH.unpack_from(content, place)
        starts.append(place + _HEADER_BYTES)
        lengths.append(length)
        place += _HEADER_BYTES + length + _FOOTER_BYTES
    if place != end:
        raise UserError(f"{path} is cut off or damaged; prepare the dataset again")
    return np.array(starts, dtype=np.int64), np.array(lengths, dtype=np.int64)
