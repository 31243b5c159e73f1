"""JSON as liars write it: still JSON mostly, but with other values, types and names."""

import copy
import json
import random
from typing import Any

# What stands in the place of a value; the numbers are sizes that no memory has, too.
_VALUES = (
    None, True, False, 0, -1, 1, 2.5, -0.0, 10**6, 10**12, 2**31, 2**63, 2**64, 10**40,
    -(10**12), 1e308, float("nan"), float("inf"), float("-inf"), "", "text", "1", "nan",
    "\0", "\ud800", "../..", "/", "é" * 300, [], {}, [0], [-1], [None], ["a", "a"],
    [10**6, 10**6], [10**12], [[1, 2], [3]], {"a": 1}, {"": None}, [1.5, "x", None],
)  # fmt: skip


def mutate_json(content: bytes, seed: int) -> bytes:
    """Return JSON that says something else, or nearly JSON.

    Args:
        content: JSON; of several lines, one object each, one of them is changed.
        seed: chooses how, and where; one seed always does the same.
    """
    draw = random.Random(seed)
    while True:
        changed = _mutate_lines(content, draw)
        if changed != content:
            return changed


def _mutate_lines(content: bytes, draw: random.Random) -> bytes:
    try:
        return _mutate(content, draw)
    except ValueError:
        lines = content.splitlines(keepends=True)
        place = draw.randrange(len(lines))
        lines[place] = _mutate(lines[place].rstrip(b"\n"), draw) + b"\n"
        return b"".join(lines)


def _mutate(content: bytes, draw: random.Random) -> bytes:
    tree = json.loads(content)
    if draw.random() < 0.15:
        return draw.choice(_TEXTS)(content, draw)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        tree = _change(tree, draw)
    return json.dumps(tree).encode()


def _change(tree: Any, draw: random.Random) -> Any:
    """Replace, remove, rename or add one value."""
    if not isinstance(tree, dict | list) or not tree or draw.random() < 0.03:
        return copy.deepcopy(draw.choice(_VALUES))
    parent, key = _draw_place(tree, draw)
    way = draw.random()
    if way < 0.12:
        del parent[key]
    elif way < 0.2 and isinstance(parent, dict):
        parent[draw.choice((f"{key}x", "", "\ud800", key.upper()))] = parent.pop(key)
    elif way < 0.28 and isinstance(parent, list):
        parent.insert(draw.randint(0, len(parent)), copy.deepcopy(parent[key]))
    elif way < 0.34:
        other, name = _draw_place(tree, draw)
        parent[key] = copy.deepcopy(other[name])
    elif way < 0.5 and isinstance(parent[key], int | float):
        parent[key] = draw.choice((-1, 2, 10**6, 10**12, 0.5)) * parent[key]
    else:
        parent[key] = copy.deepcopy(draw.choice(_VALUES))
    return tree


def _draw_place(tree: Any, draw: random.Random) -> tuple[Any, Any]:
    """Choose a value, at the top as often as deep inside: what holds it, its name."""
    while True:
        names = list(tree) if isinstance(tree, dict) else range(len(tree))
        name = draw.choice(names)
        inner = tree[name]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.3:
            return tree, name
        tree = inner


def _nest(content: bytes, draw: random.Random) -> bytes:
    depth = draw.choice((50, 2_000, 200_000))
    return draw.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"}" * depth))


def _name_twice(content: bytes, draw: random.Random) -> bytes:
    tree = json.loads(content)
    if not isinstance(tree, dict) or not tree:
        return content + content
    name = json.dumps(draw.choice(list(tree))).encode()
    return content.rstrip()[:-1] + b", " + name + b": null}"


_TEXTS = (
    _nest,
    _name_twice,
    lambda content, draw: b"\xef\xbb\xbf" + content,
    lambda content, draw: b"\xff\xfe" + content,
    lambda content, draw: content.decode().encode("utf-16"),
    lambda content, draw: content[: draw.randrange(len(content))],
    lambda content, draw: bytes(len(content)),
    lambda content, draw: content.replace(b"e", b"\xe9", 1),
    lambda content, draw: content.replace(b",", b",,", 1),
    lambda content, draw: b"1" + b"0" * 5_000,
    lambda content, draw: b"",
    lambda content, draw: b"null",
)
