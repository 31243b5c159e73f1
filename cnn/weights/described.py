"""What comes out of a pickle of tensors: descriptions, of which no number is read yet.

Storages and the tensors that view them, NumPy's arrays, and placeholders for whatever
else is named. A few bytes of a file describe what is larger than any memory, so nothing
here looks at more than a model could have.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn.weights.leaf import Damaged

MOST_DIMENSIONS = 16
_MOST_MODULES = 100_000


@dataclass(frozen=True)
class Storage:
    """Numbers in the file that tensors share: their type, key and count.

    `offset` is where they begin in what lies under the key, in numbers of `dtype`;
    `content` holds them where they lie in the pickle itself.
    """

    dtype: np.dtype
    key: str
    count: int
    offset: int = 0
    content: memoryview | None = None


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides in numbers of `dtype`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class NoNumbers:
    """A tensor that is read nowhere here; its `dtype` says why: `quantised`."""

    dtype: str
    shape: tuple[int, ...] = ()


class Placeholder(Mapping):
    """What a pickle asks for by name: it is neither imported nor called.

    Attributes:
        name: of the class or function.
        arguments: that it would be called with; None for the name alone.
        state: what would be its attributes.

    As a mapping it holds the items that it would be given, and what is a PyTorch
    module by its attributes the tensors of its state dict.
    """

    def __init__(self, name: str, arguments: Any = None) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None
        self.given: dict = {}

    def _hold(self) -> dict:
        return _list_state(self) if _is_module(self) else self.given

    def __getitem__(self, key: Any) -> Any:
        return self._hold()[key]

    def __iter__(self) -> Iterator:
        return iter(self._hold())

    def __len__(self) -> int:
        # Without a module's tensors, which would be listed at each `if` on one.
        return len(self.given)

    def items(self) -> Any:
        """Return the items that it would have, listed once for all of them."""
        return self._hold().items()

    def append(self, item: Any) -> None:
        """Take no notice of an element."""

    def extend(self, items: Any) -> None:
        """Take no notice of elements, but for a set's."""
        if self.name == "set":
            self.arguments[0].extend(items)


class PickledArray(Placeholder):
    """A NumPy array, whose numbers lie in the pickle; `shape` once it has any."""

    def fill(self, state: Any) -> None:
        """Take shape, type and numbers, where they belong together."""
        if not isinstance(state, tuple) or len(state) != 5:
            return
        _, shape, dtype, fortran, content = state
        found = _read_numpy_dtype(dtype)
        if found is None or not isinstance(shape, tuple):
            return
        shape = read_sizes(shape)
        if isinstance(content, Placeholder) and content.name.endswith("codecs.encode"):
            content = content.arguments[0] if content.arguments else b""
        if not isinstance(content, bytes | str):
            return
        if len(content) != math.prod(shape) * found.itemsize:
            return
        self.shape, self.dtype = shape, found.newbyteorder("=")
        self.content = content, found, "F" if fortran else "C"

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        content, found, order = self.content
        if isinstance(content, str):
            content = content.encode("latin-1")
        array = np.frombuffer(content, found).reshape(self.shape, order=order)
        return array.astype(dtype or self.dtype, copy=False)


def _read_numpy_dtype(value: Any) -> np.dtype | None:
    """Read a type of numbers, None for one that is none, as of records."""
    if isinstance(value, np.dtype):
        return value
    if not isinstance(value, Placeholder) or value.name != "numpy.dtype":
        return None
    code = value.arguments[0] if value.arguments else ""
    if code not in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1".split():
        return None
    is_big = isinstance(value.state, tuple) and value.state[1:2] == (">",)
    return np.dtype((">" if is_big else "<") + code)


def _is_module(value: Any) -> bool:
    state = value.state if isinstance(value, Placeholder) else None
    return type(state) is dict and {"_parameters", "_modules"} <= state.keys()


def list_modules(value: Placeholder) -> Iterator[tuple[str, Placeholder]]:
    """List a pickled module and those inside of it, by the beginning of their names."""
    waiting, count = [("", value)], 0
    while waiting:
        prefix, module = waiting.pop()
        count += 1
        if count > _MOST_MODULES or len(prefix) > 2000:
            raise Damaged("a module with more modules inside than any model")
        yield prefix, module
        inside = module.state["_modules"]
        if isinstance(inside, dict):
            found = [(f"{prefix}{k}.", x) for k, x in inside.items() if _is_module(x)]
            waiting += reversed(found)


def _list_state(value: Placeholder) -> dict[str, Any]:
    """List the tensors of a pickled module as its state dict would."""
    found = {}
    for prefix, module in list_modules(value):
        state = module.state
        left_out = state.get("_non_persistent_buffers_set", ())
        left_out = left_out.arguments if isinstance(left_out, Placeholder) else ()
        left_out = left_out[0] if left_out else ()
        for kind in ("_parameters", "_buffers"):
            inside = state.get(kind)
            for name, x in inside.items() if isinstance(inside, dict) else ():
                if kind == "_parameters" or name not in left_out:
                    found[f"{prefix}{name}"] = x
    return found


def read_whole(value: Any) -> int:
    """Read a size or a place.

    Raises:
        Damaged: it is no whole number, or too large a one.
    """
    # Without the value in the message: a few bytes can nest gigabytes of text.
    if type(value) is not int or not 0 <= value < 2**62:
        raise Damaged("a size that is no whole number, or too large a one")
    return value


def read_sizes(value: Any) -> tuple[int, ...]:
    """Read a shape or strides.

    Raises:
        Damaged: it is neither, or has too many dimensions.
    """
    if isinstance(value, Placeholder) and value.name == "torch.Size":
        value = value.arguments[0]
    if not isinstance(value, tuple) or len(value) > MOST_DIMENSIONS:
        raise Damaged(f"a tensor of more than {MOST_DIMENSIONS} dimensions")
    return tuple(map(read_whole, value))
