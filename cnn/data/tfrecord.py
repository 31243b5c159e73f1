"""Random access to TFRecord files through an index of where their records lie.

A record is its length (uint64), a checksum of the length (uint32), the data, and a
checksum of the data (uint32), all little-endian. The checksums of all lengths are
verified when a file is opened, that of a record's data whenever it is read. A file is
opened at each reading and never mapped: one that is cut off meanwhile is an error, and
not the signal that ends a process.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import os
import pathlib
import struct
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

from cnn.data import crc32c, shards
from cnn.errors import UserError
from cnn.runtime import own_files

_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4


def open_records(instructions: Sequence[Any]) -> Callable[[np.ndarray], list[bytes]]:
    """Index files and return the function that reads their records.

    Args:
        instructions: of `shards`.

    Returns:
        A function of positions [n] to n records; safe in threads. It raises `UserError`
        of a record that is damaged.

    Raises:
        UserError: a file is missing, damaged, or holds another number of records.
    """
    paths = [pathlib.Path(instruction.filename) for instruction in instructions]
    file_of, number_of, start_of, length_of = [], [], [], []
    for i, (path, instruction) in enumerate(zip(paths, instructions, strict=True)):
        with _open(path) as file:
            starts, lengths = _index(file, path)
        shards.check_count(instruction, len(starts))
        numbers = np.arange(instruction.skip, instruction.skip + instruction.take)
        file_of.append(np.full(instruction.take, i))
        number_of.append(numbers)
        start_of.append(starts[numbers])
        length_of.append(lengths[numbers])
    file_of, number_of = np.concatenate(file_of), np.concatenate(number_of)
    start_of, length_of = np.concatenate(start_of), np.concatenate(length_of)

    def read(positions: np.ndarray) -> list[bytes]:
        positions = np.asarray(positions)
        records = [b""] * len(positions)
        for i in np.unique(file_of[positions]).tolist():
            (here,) = np.nonzero(file_of[positions] == i)
            chosen = positions[here]
            places = start_of[chosen], length_of[chosen]
            found = _read(paths[i], number_of[chosen], *places)
            for place, record in zip(here.tolist(), found, strict=True):
                records[place] = record
        return records

    return read


def _read(
    path: pathlib.Path, numbers: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> list[bytes]:
    """Read the data of records [n] of a file and verify their checksums."""
    ends = (lengths + _FOOTER_BYTES).tolist()
    with _open(path) as file:
        whole = [
            _read_at(file, start, end)
            for start, end in zip(starts.tolist(), ends, strict=True)
        ]
    records = [content[:-_FOOTER_BYTES] for content in whole]
    found = _mask(crc32c.compute(records)).astype("<u4").tobytes()
    for i, content in enumerate(whole):
        footer = found[i * _FOOTER_BYTES : (i + 1) * _FOOTER_BYTES]
        if len(content) < ends[i] or content[-_FOOTER_BYTES:] != footer:
            raise UserError(
                f"{path}, record {numbers[i]}: its data are damaged (they do not have "
                f"their checksum); {shards.REMEDY}"
            )
    return records


def _open(path: pathlib.Path) -> BinaryIO:
    try:
        own_files.check_kind(path)
        return path.open("rb", buffering=0)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; {shards.REMEDY}"
        ) from error


def _read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Read as `os.pread` does, which Windows has not: fewer bytes at the end."""
    file.seek(start)
    return file.read(count)


def _index(file: BinaryIO, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and lengths of the records' data, in bytes."""
    headers, starts, place = [], [], 0
    end = os.fstat(file.fileno()).st_size
    while place < end:
        header = _read_at(file, place, _HEADER.size)
        if len(header) < _HEADER.size:
            break
        headers.append(header)
        starts.append(place + _HEADER.size)
        place += _HEADER.size + _HEADER.unpack(header)[0] + _FOOTER_BYTES
    fields = np.frombuffer(b"".join(headers), [("length", "<u8"), ("sum", "<u4")])
    (wrong,) = np.nonzero(
        _mask(crc32c.compute([header[:8] for header in headers])) != fields["sum"]
    )
    if len(wrong):
        raise UserError(
            f"{path}, record {wrong[0]}: its length is damaged (it does not have its "
            f"checksum); {shards.REMEDY}"
        )
    if place != end:
        raise UserError(
            f"{path} is cut off after record {len(headers)}; {shards.REMEDY}"
        )
    return np.array(starts, np.int64), fields["length"].astype(np.int64)


def _mask(sums: np.ndarray) -> np.ndarray:
    """Return checksums [N] as TFRecord files store them: turned, and moved on."""
    return (sums >> 15 | sums << 17) + np.uint32(0xA282EAD8)
