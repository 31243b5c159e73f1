"""The space of a sweep: its text, parsed and checked value by value.

    learning_rate=log(1e-3,1,8); weight_decay=0,5e-4; model=mlp,resnet20; seed=0:4

An axis is one option with its values. A list axis has all of them from the start:
`a,b,c`, `linear(a,b,n)`, `log(a,b,n)`, whole numbers `a:b` (without b); a value that
is itself a list stands in parentheses: `widths=(32,64),(64,128)`. A drawn axis has a
value for each draw: `uniform(a,b)`, `loguniform(a,b)`, `choice(a,b,c)`. Whole numbers
and the ends of a grid are exactly as they are written; other numbers are rounded.
"""

import collections
import dataclasses
import fractions
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cnn import option
from cnn.errors import UserError, suggest

GRID = ("linear", "log")
DRAWN = ("uniform", "loguniform", "choice")
_DIGITS = 6
_ALL_DIGITS = 17
_MOST_VALUES = 100_000
_LARGEST_WHOLE = 2**53  # above it, floats have gaps between whole numbers


@dataclasses.dataclass(frozen=True)
class Axis:
    """One option of a space.

    Attributes:
        values: of a list axis or a `choice`; empty for an interval from low to high.
        kind: `list`, or how it is drawn: `uniform`, `loguniform`, `choice`.
        is_whole: whether numbers drawn from it, and its ends, are whole.
        note: what is to be said of its values.
    """

    name: str
    values: tuple = ()
    kind: str = "list"
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False
    note: str = ""

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw one value of a drawn axis."""
        if self.kind == "choice":
            return self.values[generator.integers(len(self.values))]
        if self.is_whole and self.kind == "uniform":
            return int(generator.integers(self.low, self.high + 1))
        share = generator.random()
        if self.kind == "uniform":
            return self.round(self.low + share * (self.high - self.low))
        # As Optuna draws: a whole number has the share of the interval around it.
        margin = 0.5 if self.is_whole else 0.0
        low, high = math.log(self.low - margin), math.log(self.high + margin)
        value = math.exp(low + share * (high - low))
        if self.is_whole:
            return min(max(round(value), self.low), self.high)
        return self.round(value)

    def round(self, value: float) -> float:
        """Round a number of an interval to few digits without leaving the interval."""
        value = min(max(value, self.low), self.high)
        digits = range(_DIGITS, _ALL_DIGITS)
        rounded = (round_value(value, count) for count in digits)
        return next((x for x in rounded if self.low <= x <= self.high), value)


@dataclasses.dataclass(frozen=True)
class Space:
    """The axes of a sweep, in the order of its text, `seed` last.

    A seed is not part of a setting: trials of one setting differ in the seed alone.
    """

    axes: tuple[Axis, ...]

    @property
    def drawn(self) -> list[Axis]:
        """Return the axes that are drawn."""
        return [axis for axis in self.axes if axis.kind != "list"]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds, empty when there is no seed axis."""
        return next((axis.values for axis in self.axes if axis.name == "seed"), ())

    @property
    def notes(self) -> list[str]:
        """Return what is to be said of the axes."""
        return [axis.note for axis in self.axes if axis.note]

    def count_points(self) -> int:
        """Count the points of the list axes."""
        return math.prod(len(axis.values) for axis in self.axes if axis.kind == "list")

    def sort(self) -> "Space":
        """Return it with axes by name, `seed` last, and each one's values in order."""
        axes = [
            dataclasses.replace(axis, values=tuple(sorted(axis.values)))
            for axis in sorted(self.axes, key=lambda axis: axis.name)
        ]
        return Space(tuple(sorted(axes, key=lambda axis: axis.name == "seed")))

    def iterate(self, draws: int, seed: int) -> Iterator[dict[str, Any]]:
        """Yield the options of every trial.

        Args:
            draws: how often the drawn axes are drawn; unused when there are none.
            seed: a draw depends on it and on the draw's number alone, so that more
                draws leave the first ones as they are.

        Yields:
            Values by flag name; every draw is combined with every point of the list
            axes, the last axis changing fastest.
        """
        for number in range(draws if self.drawn else 1):
            generator = np.random.default_rng([seed, number])
            draw = {axis.name: axis.draw(generator) for axis in self.drawn}
            lists = [
                [draw[axis.name]] if axis.name in draw else axis.values
                for axis in self.axes
            ]
            for values in itertools.product(*lists):
                yield {a.name: v for a, v in zip(self.axes, values, strict=True)}


def parse_space(text: str, fields: Mapping[str, dataclasses.Field]) -> Space:
    """Parse the text of --sweep.

    Args:
        fields: of the options that may be swept, by flag name.

    Raises:
        UserError: an option or a form is unknown, a value is not of the option's
            type, a list is empty, or a range has no numbers.
    """
    axes: dict[str, Axis] = {}
    for part in filter(str.strip, _split(text, ";")):
        name, equals, values = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UserError(f"--sweep: {part!r} is no axis; write option=values")
        if name not in fields:
            raise UserError(
                f"--sweep: {name} is no option that can be swept{suggest(name, fields)}"
            )
        if name in axes:
            raise UserError(f"--sweep: {name} is given twice; join its values")
        axes[name] = _parse_axis(fields[name], values)
    if not axes:
        raise UserError(
            "--mode=sweep needs --sweep='option=values; …', as "
            "--sweep='learning_rate=log(1e-3,1,8); seed=0:4'"
        )
    if "seed" in axes and axes["seed"].kind != "list":
        raise UserError(
            "--sweep: seed cannot be drawn; seeds are repetitions, as seed=0:4"
        )
    return Space(tuple(sorted(axes.values(), key=lambda axis: axis.name == "seed")))


def _parse_axis(field: dataclasses.Field, text: str) -> Axis:
    call = re.fullmatch(r"([a-z]+)\((.*)\)", text, re.DOTALL)
    if call and call[1] in ("uniform", "loguniform"):
        return _parse_interval(field, call[1], call[2])
    if call and call[1] not in GRID + DRAWN:
        known = GRID + DRAWN
        raise UserError(f"--sweep: {call[1]}(…) is unknown{suggest(call[1], known)}")
    if call and call[1] in GRID:
        return _make_grid(field, call[1], call[2])
    if field.type is int and re.fullmatch(r"[+-]?\d+:[+-]?\d+", text):
        first, end = (int(piece) for piece in text.split(":"))
        _check_count(f"{field.name}={text}", end - first)
        values = tuple(range(first, end))
    else:
        values = _parse_list(field, call[2] if call else text)
    if not values:
        raise UserError(f"--sweep: {field.name}={text} has no values; give one or more")
    value, count = collections.Counter(values).most_common(1)[0]
    if count > 1:
        shown = option.format_value(value)
        raise UserError(f"--sweep: {field.name}={text} has {shown} twice")
    return Axis(
        field.name, values, "choice" if call and call[1] == "choice" else "list"
    )


def _parse_list(field: dataclasses.Field, text: str) -> tuple:
    pieces = [piece.strip() for piece in _split(text, ",")]
    if pieces == [""]:
        return ()
    if "" in pieces:
        raise UserError(
            f"--sweep: {field.name}={text} has an empty value; a list that is empty "
            "is written ()"
        )
    inner = [p[1:-1] if p[0] == "(" and p[-1] == ")" else p for p in pieces]
    return tuple(option.parse(field, piece) for piece in inner)


def _make_grid(field: dataclasses.Field, kind: str, text: str) -> Axis:
    shown = f"{field.name}={kind}({text})"
    low, high, count = _parse_numbers(field, shown, text, 3)
    if count % 1 or count < 2:
        raise UserError(f"--sweep: {shown} needs a whole number of points, at least 2")
    _check_count(shown, int(count))
    _check_positive(shown, kind == "log", low, high)
    points = _space_evenly(kind, low, high, int(count))
    is_whole = field.type is int
    values = [round(x) for x in points] if is_whole else _round_grid(points)
    found = tuple(dict.fromkeys(values))
    fewer = f"{shown}: {len(found)} of {len(values)} values differ; equal ones are one"
    return Axis(field.name, found, note="" if len(found) == count else fewer)


def _check_count(shown: str, count: int) -> None:
    if count > _MOST_VALUES:
        raise UserError(f"--sweep: {shown} has {count} values; at most {_MOST_VALUES}")


def _space_evenly(
    kind: str, low: fractions.Fraction, high: fractions.Fraction, count: int
) -> list[fractions.Fraction | float]:
    """Space numbers evenly, by their logarithms for `log`; the ends are exact."""
    if kind == "linear":
        step = (high - low) / (count - 1)
        return [low + i * step for i in range(count)]
    inner = np.geomspace(float(low), float(high), count)[1:-1]
    return [low, *map(float, inner), high]


def _round_grid(values: list[fractions.Fraction | float]) -> tuple[float, ...]:
    """Round all but the ends to as few digits as keep the values apart."""
    low, *inner, high = map(float, values)
    for digits in range(_DIGITS, _ALL_DIGITS):
        rounded = (low, *(round_value(value, digits) for value in inner), high)
        if rounded in (tuple(sorted(set(rounded))), tuple(sorted(set(rounded)))[::-1]):
            return rounded
    return (low, *inner, high)


def _parse_interval(field: dataclasses.Field, kind: str, text: str) -> Axis:
    shown = f"{field.name}={kind}({text})"
    low, high = _parse_numbers(field, shown, text, 2)
    _check_positive(shown, kind == "loguniform", low, high)
    if not low < high:
        raise UserError(f"--sweep: {shown} is empty; the lower end comes first")
    if field.type is not int:
        return Axis(field.name, (), kind, float(low), float(high))
    if low % 1 or high % 1:
        raise UserError(f"--sweep: {shown}: --{field.name} is a whole number")
    if max(abs(low), abs(high)) > _LARGEST_WHOLE:
        raise UserError(f"--sweep: {shown} goes beyond {_LARGEST_WHOLE}; draw below it")
    return Axis(field.name, (), kind, int(low), int(high), True)


def _parse_numbers(
    field: dataclasses.Field, shown: str, text: str, count: int
) -> list[fractions.Fraction]:
    """Read numbers exactly as they are written."""
    if field.type not in (int, float):
        raise UserError(f"--sweep: {shown}: --{field.name} is no number; give a list")
    try:
        numbers = [float(piece) for piece in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        points = " and how many points" if count == 3 else ""
        raise UserError(f"--sweep: {shown} needs {count} numbers: two ends{points}")
    return [fractions.Fraction(piece.strip()) for piece in text.split(",")]


def _check_positive(shown: str, is_log: bool, *ends: fractions.Fraction) -> None:
    if is_log and min(ends) <= 0:
        raise UserError(
            f"--sweep: {shown} goes through zero, where there is no logarithm; begin "
            "above 0, and give 0 in a list of its own"
        )


def round_value(value: float, digits: int = _DIGITS) -> float:
    """Round to six significant digits, few enough to be typed again."""
    return float(f"{value:.{digits}g}")


def _split(text: str, separator: str) -> list[str]:
    """Split where no parenthesis is open."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
        if character == separator and not depth:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise UserError(f"--sweep: the parentheses of {text!r} do not match")
    return parts
