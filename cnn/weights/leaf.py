"""Arrays of a foreign file: what they claim to be first, their numbers when asked for.

So that shapes and bytes are compared with a model before memory is taken for them.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from cnn.errors import UserError

_WIDTHS = (*(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),)
_NUMPY = ("bool", *_WIDTHS, "float16", "float32", "float64", "complex64", "complex128")
_MAX_RANK = 32
READABLE = (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)


class Damaged(Exception):
    """A file is not what it should be; whoever opened it says which file."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """An array that is not read yet.

    Attributes:
        shape: as the file claims.
        dtype: as the file claims; a text for what has none here: `quantised`.
        read: returns the array; raises UserError where the file holds another.
    """

    shape: tuple[int, ...]
    dtype: np.dtype | str
    read: Callable[[], np.ndarray]


def wrap(array: np.ndarray) -> Leaf:
    """Return an array that is in memory as a leaf."""
    return Leaf(array.shape, array.dtype, lambda: array)


def read(array: np.ndarray | Leaf) -> np.ndarray:
    """Return the numbers of an array, whether it is read yet or not."""
    return array.read() if isinstance(array, Leaf) else array


def is_readable(array: Any) -> bool:
    """Return whether it holds floating-point numbers that float32 stands for."""
    return array.dtype in READABLE


def widen(leaves: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Make float32 of floating-point numbers, once they are read.

    Returns:
        Leaves by name, and what is to be said.
    """
    others = [str(np.dtype(dtype)) for dtype in READABLE[1:]]
    found = Counter(str(x.dtype) for x in leaves.values())
    kinds = [f"{found[name]} arrays of {name}" for name in others if found[name]]
    notes = [f"converts {', '.join(kinds)} to float32"] if kinds else []
    return {name: _widen(x) for name, x in leaves.items()}, notes


def _widen(array: np.ndarray | Leaf) -> Leaf:
    if not is_readable(array):
        return array if isinstance(array, Leaf) else wrap(array)
    return Leaf(tuple(array.shape), np.dtype(np.float32), lambda: to_float32(array))


def to_float32(array: np.ndarray | Leaf) -> np.ndarray:
    """Return readable numbers as float32; those of float64 are rounded."""
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        found = read(array)
        # Not as a view of a file, which may be replaced while its numbers are used.
        return found.astype(np.float32, copy=not found.flags.owndata)


def transpose(array: np.ndarray | Leaf, order: tuple[int, ...]) -> np.ndarray | Leaf:
    """Return an array with its axes in another order."""
    if not isinstance(array, Leaf):
        return array.transpose(order)
    shape = tuple(array.shape[axis] for axis in order)
    return Leaf(shape, array.dtype, lambda: array.read().transpose(order))


def get_dtype(name: str) -> np.dtype:
    """Return the dtype of a name, those of `ml_dtypes` among them.

    Raises:
        Damaged: there is no such dtype of numbers.
    """
    if name in _NUMPY:
        return np.dtype(name)
    found = getattr(ml_dtypes, name, None) if name.isidentifier() else None
    if not isinstance(found, type) or not issubclass(found, np.generic):
        raise Damaged(f"its dtype {name[:40]} is unknown")
    return np.dtype(found)


def check_shape(shape: Any) -> tuple[int, ...]:
    """Return a shape that a file claims, if it is one.

    Raises:
        Damaged: it is none.
    """
    is_list = isinstance(shape, list | tuple) and len(shape) <= _MAX_RANK
    if not is_list or any(type(size) is not int or size < 0 for size in shape):
        raise Damaged(f"{str(shape)[:60]} is no shape")
    return tuple(shape)


def nest(arrays: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Nest what is named by paths.

    Raises:
        Damaged: a path leads through another's array.
    """
    tree: dict[str, Any] = {}
    for path, leaf in arrays.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise Damaged(f"{'/'.join(path)} lies inside another array")
        if path[-1] in node:
            raise Damaged(f"{'/'.join(path)} is there twice")
        node[path[-1]] = leaf
    return tree


def explain(path: Any, kind: str, problem: object) -> UserError:
    """Return the error for a file that is damaged."""
    text = " ".join(str(problem).split())[:300] or type(problem).__name__
    return UserError(f"{path} is truncated or no {kind}: {text}; copy it again")
