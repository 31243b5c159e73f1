"""When an option is read: conditions on the other options, as text.

`only_for` of an option (see `cnn.option`) is terms joined by `and`, and these by `or`,
which binds less. `optimizer=sgd|muon*` is true where that option has one of the
values, `*` standing for anything, `optimizer!=lamb` where it has none of them;
`mixup_alpha` alone where that option is on: neither empty, 0, false, none nor off;
`not mixup_alpha` where it is off. A tuple has a value if one of its elements does.
`mode` is the mode of the program. A term is true only where its option is itself read.
"""

import dataclasses
import fnmatch
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from cnn.option import format_value

_OFF = ("", "none", "off")


@dataclasses.dataclass(frozen=True)
class Term:
    """One test of an option.

    Attributes:
        name: of the option, or `mode`.
        values: patterns of which one must match; empty: the option must be on.
        is_negated: whether none of them may match, or it must be off, instead.
    """

    name: str
    values: tuple[str, ...] = ()
    is_negated: bool = False

    def holds(self, value: Any) -> bool:
        """Return whether an option with this value passes."""
        parts = value if isinstance(value, tuple | list) else [value]
        return any(map(self._matches, parts)) != self.is_negated

    def _matches(self, value: Any) -> bool:
        if not self.values:
            return bool(value) and value not in _OFF
        return any(fnmatch.fnmatchcase(str(value), one) for one in self.values)

    def __str__(self) -> str:
        if not self.values:
            return f"{'no ' if self.is_negated else ''}--{self.name}"
        values = " | ".join(self.values)
        return f"--{self.name}{' other than ' if self.is_negated else '='}{values}"


@functools.cache
def parse(text: str) -> list[list[Term]]:
    """Read a condition as alternatives, each of terms that must all hold."""
    return [
        [_parse_term(term) for term in alternative.split(" and ")]
        for alternative in text.split(" or ")
    ]


def is_read(
    name: str, conditions: Mapping[str, Sequence[str]], flat: Mapping[str, Any]
) -> bool:
    """Return whether an option is read under these choices.

    Args:
        name: of the option.
        conditions: of every option, by name; all must hold.
        flat: every option's value by name, and `mode`.
    """
    return not _find_failing(name, conditions, flat)


def explain(
    name: str, conditions: Mapping[str, Sequence[str]], flat: Mapping[str, Any]
) -> str:
    """Say what an option that `is_read` finds unread is for, and what is here instead.

    Returns:
        The end of a sentence, such as `--optimizer=sgd | rmsprop; here --optimizer is
        adamw`.
    """
    text = _find_failing(name, conditions, flat)
    ending = ""
    for term in {term.name: term for one in parse(text) for term in one}.values():
        value = flat[term.name]
        if term.values and not term.holds(value):
            shown = format_value(value) or "empty"
            ending += f"; here --{term.name} is {shown}"
        elif term.holds(value) and not is_read(term.name, conditions, flat):
            why = explain(term.name, conditions, flat)
            ending += f"; --{term.name} has an effect itself only with {why}"
    return describe(text) + ending


def list_names(name: str, conditions: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the options on which it depends whether one is read, `mode` among them."""
    found, ahead = set(), [name]
    while ahead:
        texts = conditions.get(ahead.pop(), ())
        terms = [term for text in texts for one in parse(text) for term in one]
        new = {term.name for term in terms} - found
        found |= new
        ahead += new
    return found


def describe(text: str) -> str:
    """Write a condition as flags, as `--help` and errors have it."""
    return " or ".join(map(_describe_terms, parse(text)))


def _describe_terms(terms: Sequence[Term]) -> str:
    words = " with ".join(sorted(map(str, terms), key=lambda x: x.startswith("no ")))
    return f"commands with {words}" if words.startswith("no ") else words


def _find_failing(
    name: str, conditions: Mapping[str, Sequence[str]], flat: Mapping[str, Any]
) -> str:
    """Return the first condition of an option that does not hold; empty if all do."""

    def holds(term: Term) -> bool:
        return term.holds(flat[term.name]) and (
            term.is_negated or is_read(term.name, conditions, flat)
        )

    for text in conditions.get(name, ()):
        if not any(all(map(holds, terms)) for terms in parse(text)):
            return text
    return ""


def _parse_term(text: str) -> Term:
    name, _, values = text.strip().partition("=")
    patterns = tuple(values.split("|")) if values else ()
    is_negated = name.startswith("not ") or name.endswith("!")
    return Term(name.removeprefix("not ").removesuffix("!"), patterns, is_negated)
