"""The form that JSON must have to be believed, and where a value has another.

A form is `str`, `int` (of at most 53 bits), `float` (any number), `bool`, `object`
(anything), a list with the form of each item, or a mapping of forms by name: `name?`
may be missing, `*` stands for all other names. Texts are such as a path may hold.
"""

import typing
from typing import Any

from cnn.text import is_sound

_MOST = 2**53  # as far as JSON's numbers are whole everywhere
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "a boolean"}


def find_problem(value: Any, form: Any, name: str = "") -> str:
    """Say where a value has not a form; empty where it has.

    Args:
        name: of the value, for the message; empty for the whole.
    """
    if isinstance(form, dict):
        return _find_in_mapping(value, form, name)
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{name or 'it'} is no list"
        found = (find_problem(x, form[0], f"{name}[{i}]") for i, x in enumerate(value))
        return next(filter(None, found), "")
    if options := typing.get_args(form):  # as `int | None`
        problems = [find_problem(value, each, name) for each in options]
        return "" if "" in problems else problems[0]
    if form is object or (form is type(None) and value is None) or _is(value, form):
        return ""
    return f"{name or 'it'} is not {_WORDS.get(form, 'null')}"


def _is(value: Any, form: type) -> bool:
    if form is float:
        return type(value) in (int, float)
    if form is str and isinstance(value, str):
        return is_sound(value)
    return type(value) is form and (form is not int or abs(value) <= _MOST)


def _find_in_mapping(value: Any, form: dict[str, Any], name: str) -> str:
    if not isinstance(value, dict):
        return f"{name or 'it'} is no object"
    prefix = f"{name}." if name else ""
    for key, inner in form.items():
        plain = key.removesuffix("?")
        if plain in value:
            problem = find_problem(value[plain], inner, f"{prefix}{plain}")
        else:
            is_missing = key == plain != "*"
            problem = f"{prefix}{plain} is missing" if is_missing else ""
        if problem:
            return problem
    known = {key.removesuffix("?") for key in form}
    for key, inner in value.items():
        if key in known and key != "*":
            continue
        if "*" not in form or not is_sound(key):
            return f"{prefix}{key[:60]!a} is unknown"
        if problem := find_problem(inner, form["*"], f"{prefix}{key[:60]}"):
            return problem
    return ""
