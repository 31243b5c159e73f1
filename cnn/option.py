"""How an option is declared, read from text and checked.

A module that has options declares one frozen dataclass of them just above the
function that they configure, each field made by `option`. Flag names are field
names; `--help`, the type, the range and what a change of it means follow from
the field alone, so that adding an option touches one file.
"""

import dataclasses
import math
import os
import re
import struct
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cnn import own_code
from cnn.errors import Problems, UserError, suggest
from cnn.text import is_sound

Kind = Literal["static", "traced", "traced_unless_zero", "traced_by_name"]

_SCHEMES = "s3a?|gs|gcs|hdfs|abfss?|az|https?|ftp|file|memory"
_ADDRESS = re.compile(rf"({_SCHEMES})://|(s3|gs):/", re.IGNORECASE)
_LARGEST_INT = 2**31 - 1
# The largest and the smallest normal float32.
_LARGEST, _SMALLEST = 3.4028234e38, 1.1754944e-38
# What the end of an interval may be, besides a number: how much there is of a run.
# `cnn.training.course` measures it: `schedule` are the epochs that a warm-up leaves,
# `epoch_steps` the steps of one, `images` those of training, `pixels` their side.
UNITS = ("epochs", "schedule", "evaluations", "checkpoints", "steps", "epoch_steps")
UNITS += ("images", "pixels")
# Python reads more: 1_0.5 as 10.5, and the digits of every script.
_NUMBERS = {
    int: re.compile(r"[+-]?[0-9]+"),
    float: re.compile(
        r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity|nan)", re.I
    ),
}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}


def option(
    default: Any,
    help: str,
    *,
    kind: Kind = "static",
    choices: Sequence[str] = (),
    within: str = "",
    only_for: str = "",
    modes: str = "",
    is_path: bool = False,
) -> Any:
    """Declare one option as a dataclass field.

    A run that is resumed with another value of it would be another run, and is refused;
    for the others there is `free_option`.

    Args:
        default: bool, int, float, str, or a tuple of ints, floats or strings.
        help: what it does, with its unit.
        kind: `static` shapes the compiled program; `traced` reaches it as an array,
            so that changing it never recompiles; `traced_unless_zero` likewise, and
            at 0 its code is absent from the program; `traced_by_name`, for texts
            `name=number`: the names shape it, the numbers reach it as one array.
        choices: the allowed values, for names.
        within: the allowed interval, as `[0, 1)` or `(0, inf)`; for tuples, of
            each element, or each element's number. Of a duration or a count that a run
            may be too short for it ends in one of `UNITS`, as `[0, epochs)`.
        only_for: the choices under which it is read, as of `cnn.condition`; empty:
            whatever the others are. Given where it is not read, it is refused.
        modes: that read it, separated by blanks; empty: those of its group, its class
            variable `modes`.
        is_path: whether it is a path of this machine, whose `~` is the home directory.
    """
    metadata = {
        "help": help,
        "kind": kind,
        "choices": tuple(choices),
        "within": within,
        "changes_run": True,
        "only_for": only_for,
        "modes": modes,
        "is_path": is_path,
        "names_code": False,
    }
    return dataclasses.field(default=default, metadata=metadata)


def free_option(default: Any, help: str, **rest: Any) -> Any:
    """Declare an option that may change when a run is resumed; see `option`."""
    metadata = option(default, help, **rest).metadata
    return dataclasses.field(
        default=default, metadata={**metadata, "changes_run": False}
    )


def code_option(default: str, help: str, **rest: Any) -> Any:
    """Declare an option that may name what a user's file defines; see `option`.

    Its value is then as of `cnn.own_code`, so that a changed file is another value.
    """
    metadata = option(default, help, **rest).metadata
    return dataclasses.field(default=default, metadata={**metadata, "names_code": True})


def strength(help: str, within: str, *, default: float = 0.0, **rest: Any) -> Any:
    """Declare a traced number that is absent from the program at 0.

    Args:
        help: as of `option`.
        within: as of `option`.
        default: 0.0, or 0 for whole numbers.
        **rest: as of `option`.
    """
    kind = "traced_unless_zero"
    return option(default, help, kind=kind, within=within, **rest)


def parse(field: dataclasses.Field, text: str) -> Any:
    """Read an option's value from command-line text.

    Args:
        field: a field made by `option`.
        text: the text behind `--name=`; tuples are separated by commas.

    Raises:
        UserError: the text is not of the option's type.
    """
    element = _element_type(field)
    if typing.get_origin(field.type) is tuple:
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        if "" in parts:
            raise _wrong_type(field, text)
        return tuple(_parse_one(field, element, part, text) for part in parts)
    return _parse_one(field, element, text, text)


def convert(field: dataclasses.Field, value: Any) -> Any:
    """Bring a value from a preset or JSON to the option's own type.

    Raises:
        UserError: the value is of another type.
    """
    element = _element_type(field)
    if typing.get_origin(field.type) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert_one(field, element, part, value) for part in value)
        raise _wrong_type(field, value)
    return _convert_one(field, element, value, value)


def read_group(group: type, values: Mapping[str, Any]) -> Any:
    """Make one group of options from a mapping that may hold others' too.

    Args:
        group: the dataclass.
        values: by flag name, as presets and JSON have them; what is absent takes
            its default.

    Raises:
        UserError: a value is of another type.
    """
    fields = dataclasses.fields(group)
    given = {f.name: convert(f, values[f.name]) for f in fields if f.name in values}
    return group(**given)


def check(group: Any) -> None:
    """Check every option of a group against its choices and its interval.

    Raises:
        UserError: naming each flag that is out of range, and what is allowed.
    """
    problems = Problems()
    for field in dataclasses.fields(group):
        with problems.note():
            _check_option(field, getattr(group, field.name))
    problems.check()


def _check_option(field: dataclasses.Field, value: Any) -> None:
    choices, within = field.metadata["choices"], field.metadata["within"]
    if choices and value not in choices:
        raise UserError(
            f"--{field.name}={value} is unknown{suggest(str(value), choices)}"
        )
    if field.metadata["kind"] == "traced_by_name":
        value = split_numbers(field.name, value)[1]
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, str):
            continue
        if field.metadata["kind"] != "static" or read_interval(within)[2]:
            _check_fits(field.name, number)
        if not _is_within(number, field):
            raise UserError(
                f"--{field.name}={number} is outside {within or '(-inf, inf)'}: "
                f"{field.metadata['help']}"
            )


def read_interval(text: str) -> tuple[float, float, str]:
    """Read the least and the greatest of an interval, and the unit that it ends in.

    Returns:
        Infinite ones without an interval; the greatest is infinite where a unit, else
        "", says it.
    """
    low, _, high = text.strip("[()]").partition(", ")
    if high in UNITS:
        return float(low), math.inf, high
    return float(low or "-inf"), float(high or "inf"), ""


def _check_fits(flag: str, number: float) -> None:
    """Refuse what the program's 32 bits would make infinite, or 0.

    Infinity and NaN are left to the option's interval.
    """
    size = abs(number)
    if isinstance(number, int) and size > _LARGEST_INT:
        raise UserError(f"--{flag}={number} is too large; give {_LARGEST_INT} or less")
    if _LARGEST < size < math.inf:
        raise UserError(f"--{flag}={number} is too large; give {_LARGEST:g} or less")
    if 0 < size < _SMALLEST:
        raise UserError(
            f"--{flag}={number} is too small; give {_SMALLEST:g} or more, or 0 where "
            "that is allowed"
        )


def split_numbers(
    flag: str, texts: Sequence[str]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Split the texts `name=number` of an option into names and numbers.

    Raises:
        UserError: one of them is not of that form.
    """
    names, numbers = [], []
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            numbers.append(float(number))
        except ValueError:
            name = ""
        if not name:
            raise UserError(f"--{flag}={text}: write name=number, as stem=0.1")
        names.append(name)
    return tuple(names), tuple(numbers)


def format_value(value: Any) -> str:
    """Write a value as the command line would take it."""
    if isinstance(value, tuple | list):
        return ",".join(format_value(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _element_type(field: dataclasses.Field) -> type:
    if typing.get_origin(field.type) is tuple:
        return typing.get_args(field.type)[0]
    return field.type


def expand_path(flag: str, text: str) -> str:
    """Replace `~` by the home directory.

    Args:
        flag: whose value it is.

    Raises:
        UserError: it is the address of a bucket or of a page.
    """
    scheme = _ADDRESS.match(text)
    if scheme:
        raise UserError(
            f"--{flag}={text}: {scheme[0]} is an address, and paths of this machine "
            "alone are read and written; mount it as a file system, or copy it"
        )
    return os.path.expanduser(text)


def _parse_one(field: dataclasses.Field, kind: type, text: str, whole: str) -> Any:
    if field.metadata["is_path"]:
        return expand_path(field.name, text)
    if field.metadata["names_code"]:
        return own_code.read_name(field.name, text)
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise _wrong_type(field, whole)
        return text.lower() in ("true", "1")
    if kind in _NUMBERS and not _NUMBERS[kind].fullmatch(text.strip()):
        raise _wrong_type(field, whole)
    try:
        return kind(text)
    except ValueError:  # thousands of digits
        raise _wrong_type(field, whole) from None


def _convert_one(field: dataclasses.Field, kind: type, value: Any, whole: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind or (kind is str and not is_sound(value)):
        raise _wrong_type(field, whole)
    if field.metadata["names_code"]:
        return own_code.read_name(field.name, value)
    return expand_path(field.name, value) if field.metadata["is_path"] else value


def _wrong_type(field: dataclasses.Field, value: Any) -> UserError:
    expected = _WORDS.get(_element_type(field), "a name")
    if typing.get_origin(field.type) is tuple:
        expected += ", or several separated by commas"
    return UserError(
        f"--{field.name}={format_value(value)}: expected {expected}; "
        f"{field.metadata['help']}"
    )


def _is_within(number: float, field: dataclasses.Field) -> bool:
    """Return whether a number is finite and within, as the program has it too."""
    if isinstance(number, float) and not math.isfinite(number):
        return False
    interval = field.metadata["within"]
    low, high, unit = read_interval(interval)
    numbers = [number]
    if isinstance(number, float) and field.metadata["kind"] != "static":
        numbers += struct.unpack("f", struct.pack("f", number))  # as 0.999999999: 1.0
    above = [x >= low if interval[:1] == "[" else x > low for x in numbers]
    below = [x <= high if interval[-1:] == "]" else x < high for x in numbers]
    return all(above) and (all(below) or bool(unit))
