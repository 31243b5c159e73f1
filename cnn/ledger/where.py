"""Conditions of --where: which entries are listed.

`NAME=PATTERN|PATTERN`, `NAME!=PATTERN` and `NAME<NUMBER` with `<`, `<=`, `>`, `>=`,
separated by blanks, all of which must hold; quotes keep blanks together. A pattern with
`*` and `?` is matched with the value as the command line would have it, and a number
with numbers. Of an entry without that value `!=` holds, and nothing else.
"""

import dataclasses
import fnmatch
import operator
import re
import shlex
from collections.abc import Callable, Collection
from typing import Any

from cnn.errors import UserError, suggest
from cnn.option import format_value

_TERM = re.compile(r"(\w+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclasses.dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        name: of an option or a column.
        sign: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        wanted: patterns, or one number as text.
    """

    name: str
    sign: str
    wanted: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Return whether a value fulfils it; None where an entry has none."""
        if self.sign in _ORDERS:
            is_number = isinstance(value, int | float)
            return is_number and _ORDERS[self.sign](value, float(self.wanted[0]))
        is_equal = value is not None and any(_matches(value, x) for x in self.wanted)
        return is_equal == (self.sign == "=")


def _matches(value: Any, pattern: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = _read_number(pattern)
        if number is not None:
            return value == number
    return fnmatch.fnmatchcase(format_value(value), pattern)


def _read_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def parse_where(text: str, known: Collection[str]) -> list[Condition]:
    """Read conditions.

    Args:
        known: the names of options and columns.

    Raises:
        UserError: one is not of that form, or of an unknown name.
    """
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--where={text}: {error}; close the quotes") from None
    found = []
    for part in parts:
        match = _TERM.fullmatch(part)
        if match is None:
            raise UserError(
                f"--where={text}: {part} is no condition; write NAME=PATTERN, "
                "NAME!=PATTERN or NAME>NUMBER, with blanks between conditions alone"
            )
        name, sign, wanted = match.groups()
        if name not in known:
            raise UserError(f"--where={text}: {name} is unknown{suggest(name, known)}")
        if sign in _ORDERS and _read_number(wanted) is None:
            raise UserError(f"--where={text}: {wanted} is no number")
        patterns = (wanted,) if sign in _ORDERS else tuple(wanted.split("|"))
        found.append(Condition(name, sign, patterns))
    return found
