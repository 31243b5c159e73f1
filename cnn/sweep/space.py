"""The space of a sweep: its text, parsed and checked value by value.

    learning_rate=log(1e-3,1,8); weight_decay=0,5e-4; model=mlp,resnet20; seed=0:4

An axis is one option with its values. A list axis has all of them from the start:
`a,b,c`, `linear(a,b,n)`, `log(a,b,n)`, whole numbers `a:b` (without b); a value that
is itself a list stands in parentheses: `widths=(32,64),(64,128)`. A drawn axis has a
value for each draw: `uniform(a,b)`, `loguniform(a,b)`, `choice(a,b,c)`.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Axis:
    """One option of a space.

    Attributes:
        values: of a list axis or a `choice`; empty for an interval from low to high.
        kind: `list`, or how it is drawn: `uniform`, `loguniform`, `choice`.
        is_whole: whether numbers drawn from it are whole.
    """

    name: str
    values: tuple = ()
    kind: str = "list"
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw one value of a drawn axis."""
        if self.kind == "choice":
            return self.values[generator.integers(len(self.values))]
        if self.is_whole and self.kind == "uniform":
            return int(generator.integers(int(self.low), int(self.high) + 1))
        share = generator.random()
        if self.kind == "loguniform":
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + share * (high - low))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.is_whole else round_value(value)


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

    def count_points(self) -> int:
        """Count the points of the list axes."""
        return math.prod(len(axis.values) for axis in self.axes if axis.kind == "list")

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
        values = _make_grid(field, call[1], call[2])
    elif field.type is int and re.fullmatch(r"[+-]?\d+:[+-]?\d+", text):
        values = tuple(range(*(int(end) for end in text.split(":"))))
    else:
        values = _parse_list(field, call[2] if call else text)
    if not values:
        raise UserError(f"--sweep: {field.name}={text} has no values; give one or more")
    for value in values:
        if values.count(value) > 1:
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


def _make_grid(field: dataclasses.Field, kind: str, text: str) -> tuple:
    shown = f"{field.name}={kind}({text})"
    low, high, count = _parse_numbers(field, shown, text, 3)
    if count != int(count) or count < 2:
        raise UserError(f"--sweep: {shown} needs a whole number of points, at least 2")
    _check_positive(shown, kind == "log", low, high)
    make = np.geomspace if kind == "log" else np.linspace
    values = [round_value(float(value)) for value in make(low, high, int(count))]
    return tuple(round(v) for v in values) if field.type is int else tuple(values)


def _parse_interval(field: dataclasses.Field, kind: str, text: str) -> Axis:
    shown = f"{field.name}={kind}({text})"
    low, high = _parse_numbers(field, shown, text, 2)
    _check_positive(shown, kind == "loguniform", low, high)
    if not low < high:
        raise UserError(f"--sweep: {shown} is empty; the lower end comes first")
    is_whole = field.type is int
    if is_whole and (low % 1 or high % 1):
        raise UserError(f"--sweep: {shown}: --{field.name} is a whole number")
    return Axis(field.name, (), kind, low, high, is_whole)


def _parse_numbers(
    field: dataclasses.Field, shown: str, text: str, count: int
) -> list[float]:
    if field.type not in (int, float):
        raise UserError(f"--sweep: {shown}: --{field.name} is no number; give a list")
    try:
        numbers = [float(piece) for piece in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        points = " and how many points" if count == 3 else ""
        raise UserError(f"--sweep: {shown} needs {count} numbers: two ends{points}")
    return numbers


def _check_positive(shown: str, is_log: bool, *ends: float) -> None:
    if is_log and min(ends) <= 0:
        raise UserError(
            f"--sweep: {shown} goes through zero, where there is no logarithm; begin "
            "above 0, and give 0 in a list of its own"
        )


def round_value(value: float) -> float:
    """Round to six significant digits, few enough to be typed again."""
    return float(f"{value:.{_DIGITS}g}")


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
