import dataclasses
import math

import pytest

from cnn import option
from cnn.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class Group:
    """Options of every type."""

    count: int = option.option(3, "how many", within="[1, 10)")
    share: float = option.option(0.5, "how much", within="(0, 1]")
    fast: bool = option.option(False, "whether fast")
    shape: str = option.option("round", "which form", choices=("round", "square"))
    widths: tuple[int, ...] = option.option((1, 2), "how wide", within="[1, inf)")
    parts: tuple[float, ...] = option.option((), "how split")


FIELDS = {field.name: field for field in dataclasses.fields(Group)}


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("count", "7", 7),
        ("count", "-7", -7),
        ("share", "1e-3", 0.001),
        ("share", "2", 2.0),
        ("share", "+.5E+1", 5.0),
        ("share", "3.", 3.0),
        ("fast", "True", True),
        ("fast", "0", False),
        ("shape", "square", "square"),
        ("widths", "8, 16,32", (8, 16, 32)),
        ("widths", "8", (8,)),
        ("widths", "", ()),
        ("parts", "1,2.5", (1.0, 2.5)),
    ],
)
def test_parse_reads_what_format_value_writes(name, text, value):
    parsed = option.parse(FIELDS[name], text)
    assert parsed == value and type(parsed) is type(value)
    assert option.parse(FIELDS[name], option.format_value(value)) == value


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("count", "2.5", "a whole number"),
        ("count", "many", "a whole number"),
        ("count", "1_000", "a whole number"),
        ("count", "\u0663", "a whole number"),
        ("count", "", "a whole number"),
        ("share", "1_0.5", "a number"),
        ("share", "0x10", "a number"),
        ("share", "1e", "a number"),
        ("share", "half", "a number"),
        ("fast", "yes", "true or false"),
        ("widths", "8,x", "several separated by commas"),
        ("widths", "8,,16", "several separated by commas"),
        ("widths", "8,", "several separated by commas"),
    ],
)
def test_parse_refuses_another_type(name, text, words):
    with pytest.raises(UserError) as caught:
        option.parse(FIELDS[name], text)
    message = str(caught.value)
    assert f"--{name}={text}" in message and words in message
    assert FIELDS[name].metadata["help"] in message


@pytest.mark.parametrize(
    "name, value, converted",
    [
        ("share", 1, 1.0),
        ("count", 4, 4),
        ("widths", [4, 5], (4, 5)),
        ("parts", [1, 2.5], (1.0, 2.5)),
        ("fast", True, True),
    ],
)
def test_convert_brings_json_to_the_type(name, value, converted):
    found = option.convert(FIELDS[name], value)
    assert found == converted and type(found) is type(converted)


@pytest.mark.parametrize(
    "name, value",
    [
        ("count", 1.0),
        ("count", True),
        ("share", True),
        ("share", "0.5"),
        ("fast", 1),
        ("shape", None),
        ("widths", 4),
        ("widths", [4.5]),
    ],
)
def test_convert_refuses_another_type(name, value):
    with pytest.raises(UserError, match=f"--{name}="):
        option.convert(FIELDS[name], value)


def test_read_group_takes_its_own_names_alone():
    group = option.read_group(Group, {"count": 4, "elsewhere": 1, "widths": [9]})
    assert group == Group(count=4, widths=(9,))


@pytest.mark.parametrize(
    "changes",
    [{}, {"count": 1}, {"count": 9}, {"share": 1.0}, {"widths": ()}],
)
def test_check_accepts_the_ends_that_the_interval_holds(changes):
    option.check(Group(**changes))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"count": 0}, "--count=0 is outside [1, 10)"),
        ({"count": 10}, "--count=10 is outside"),
        ({"share": 0.0}, "--share=0.0 is outside (0, 1]"),
        ({"share": 1.5}, "--share=1.5 is outside"),
        ({"share": math.nan}, "--share=nan is outside"),
        ({"widths": (4, 0)}, "--widths=0 is outside"),
        ({"widths": (4, math.inf)}, "--widths=inf is outside"),
        ({"shape": "squar"}, "did you mean square?"),
    ],
)
def test_check_names_what_is_out_of_range(changes, words):
    with pytest.raises(UserError) as caught:
        option.check(Group(**changes))
    assert words in str(caught.value)


def test_suggest_names_the_nearest_or_all():
    assert suggest("resnet81", ["resnet18", "mlp"]) == "; did you mean resnet18?"
    assert suggest("zzz", ["b", "a"]) == "; known: a, b"


def test_numbers_by_name_are_split_at_the_last_sign():
    found = option.split_numbers("rates", ("stem=0.1", "a=b=2"))
    assert found == (("stem", "a=b"), (0.1, 2.0))


@pytest.mark.parametrize("text", ["stem", "stem=", "=1", "stem=much"])
def test_numbers_without_a_name_are_refused(text):
    with pytest.raises(UserError, match=f"--rates={text}: write name=number"):
        option.split_numbers("rates", (text,))
