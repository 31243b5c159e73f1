"""Numbers that know how they follow from others, like the cells of a spreadsheet.

A number keeps the value that `cnn.ops` computed, and says what it was computed from and
by which operation, so that a page can compute it again from a reader's own numbers. The
operations, each of one list of numbers or of two of equal length, are `dot` (the sum of
the products), `sum`, `mean`, `max`, and `best`: 1 where the first of the second list is
above all of the first list and not below any of its own, else 0.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Number:
    """A number of a slide.

    Attributes:
        value: what it is for the slide's own numbers.
        operation: how it follows from what it reads; empty when it follows from none.
        reads: the lists of numbers that the operation takes.
    """

    value: float
    operation: str = ""
    reads: tuple[tuple["Number", ...], ...] = ()

    def __float__(self) -> float:
        """Return the value."""
        return self.value


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers that a reader may replace: a name, and [rows, columns] of `Number`."""

    name: str
    numbers: np.ndarray


def make_numbers(values: np.ndarray | Sequence) -> np.ndarray:
    """Make numbers that follow from no other: an array of `Number` of equal shape."""
    return np.vectorize(lambda value: Number(float(value)), otypes=[object])(values)


def follow(value: float, operation: str, *lists: np.ndarray) -> Number:
    """Make a number that follows from others.

    Args:
        value: what the operators of `cnn.ops` computed.
        operation: of those above.
        lists: arrays of `Number`, of any shape.
    """
    return Number(float(value), operation, tuple(tuple(x.flat) for x in lists))


def sort_numbers(tables: Iterable[Table], shown: Iterable[Number]) -> dict[Number, int]:
    """Number the numbers of a slide: those of its tables first, in their order.

    Args:
        tables: the numbers that a reader may replace.
        shown: the numbers that are written somewhere.

    Returns:
        The place of each number, and of all that it reads; each comes after these.
    """
    places: dict[Number, int] = {}

    def place(number: Number) -> None:
        if number not in places:
            for one in (one for read in number.reads for one in read):
                place(one)
            places[number] = len(places)

    for table in tables:
        for number in table.numbers.flat:
            place(number)
    for number in shown:
        place(number)
    return places


def describe(places: dict[Number, int]) -> list[float | list]:
    """Describe sorted numbers as JSON: the value, or the operation and what it reads.

    Returns:
        `[1, 4, -2, ["dot", [0, 1], [2, 2]]]`: the last one is the sum of the products
        of numbers 0 and 1 with number 2.
    """
    return [
        [number.operation, *([places[one] for one in read] for read in number.reads)]
        if number.operation
        else number.value
        for number in places
    ]
