"""Which record of which file an example of a prepared split is.

Instructions are objects with `filename`, `skip`, `take` and `examples_in_shard`
(records of that file), in order, as tensorflow-datasets' `FileInstruction`.
"""

from collections.abc import Sequence
from typing import Any

from cnn.errors import UserError

REMEDY = "prepare the dataset again"


def check_count(instruction: Any, count: int) -> None:
    """Refuse a file that does not hold as many records as dataset_info.json says.

    Args:
        count: of the records of the file.
    """
    promised = instruction.examples_in_shard
    if count != promised:
        raise UserError(
            f"{instruction.filename} holds {count} records but dataset_info.json "
            f"promises {promised}; {REMEDY}"
        )


def locate(instructions: Sequence[Any], position: int) -> str:
    """Name the file and the record of an example, as messages do."""
    for instruction in instructions:
        if position < instruction.take:
            return f"{instruction.filename}, record {instruction.skip + position}"
        position -= instruction.take
    raise IndexError(position)
