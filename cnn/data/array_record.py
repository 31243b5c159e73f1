"""Random access to array_record files, whose checksums their reader verifies."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.data import shards
from cnn.errors import UserError
from cnn.runtime import own_files

# What the reader raises of files that are missing, cut off or damaged.
_DAMAGE = (OSError, RuntimeError, ValueError, IndexError, MemoryError)


def open_records(
    instructions: Sequence[Any],
) -> Callable[[np.ndarray], Sequence[bytes]]:
    """Open files and return the function that reads their records.

    Args:
        instructions: of `shards`.

    Returns:
        A function of positions [n] to n records; safe in threads. It raises `UserError`
        of a record that is damaged.

    Raises:
        UserError: a file is missing, damaged, or holds another number of records.
    """
    from array_record.python import array_record_data_source, array_record_module

    for instruction in instructions:
        try:
            own_files.check_kind(Path(instruction.filename))
            reader = array_record_module.ArrayRecordReader(str(instruction.filename))
            count = reader.num_records()
            reader.close()
        except _DAMAGE as error:
            raise UserError(
                f"{instruction.filename} cannot be read: {error}; {shards.REMEDY}"
            ) from error
        shards.check_count(instruction, count)
    source = array_record_data_source.ArrayRecordDataSource(instructions)

    def read(positions: np.ndarray) -> Sequence[bytes]:
        positions = np.asarray(positions).tolist()
        try:
            return source.__getitems__(positions)
        except _DAMAGE as error:
            for position in positions:
                try:
                    source[position]
                except _DAMAGE as own:
                    where = shards.locate(instructions, position)
                    raise UserError(f"{where}: {own}; {shards.REMEDY}") from own
            raise UserError(
                f"{instructions[0].filename}: {error}; {shards.REMEDY}"
            ) from error

    return read
