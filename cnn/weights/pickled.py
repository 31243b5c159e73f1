"""A pickle of tensors, read without running anything of it.

This is Python's own unpickler, `pickle._Unpickler`, cut to the instructions that
`torch.save` writes; a name in the pickle is looked up in a table here, never imported.
Tensors come out as descriptions; their numbers are read later.

The faster `pickle.Unpickler`, in C, is decided against by the test
`test_no_file_takes_memory_it_does_not_cover[memo]`: ten bytes make it take 2 GB
(LONG_BINPUT, https://github.com/python/cpython/issues/115952), and no subclass can
leave out an instruction.
"""

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import ml_dtypes  # noqa: F401, it makes bfloat16 known to numpy
import numpy as np

from cnn.errors import UserError

_DTYPES = (
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 "
    "uint8 bool"
).split()
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "storage.UntypedStorage": "uint8",
}
_CODES = [
    getattr(pickle, name)[0]
    for name in (
        "PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG "
        "LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
        "BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES EMPTY_DICT EMPTY_LIST "
        "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 BINPUT LONG_BINPUT MEMOIZE BINGET "
        "LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BINPERSID APPEND APPENDS"
    ).split()
]


class Damaged(Exception):
    """The file does not hold what its form promises."""


@dataclass(frozen=True)
class Storage:
    """Numbers in the file that tensors share: their type, key and count."""

    dtype: np.dtype
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides in numbers of `dtype`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _whole(value: Any) -> int:
    # Without the value in the message: a few bytes can nest gigabytes of text.
    if type(value) is not int or not 0 <= value < 2**62:
        raise Damaged("a size that is no whole number, or too large a one")
    return value


def _rebuild(*arguments: Any) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    dtype = arguments[6] if len(arguments) > 6 else storage.dtype
    if not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
        raise Damaged("a tensor without a storage or a type")
    if len(shape) > 16 or len(shape) != len(strides):
        raise Damaged("a tensor of more than 16 dimensions, or without strides")
    sizes = [tuple(map(_whole, numbers)) for numbers in (shape, strides)]
    return Tensor(storage, dtype, _whole(offset), *sizes)


def _rebuild_parameter(tensor: Any, *rest: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise Damaged("a parameter that is no tensor")
    return tensor


def _make_dict(items: Any = ()) -> dict:
    """Make what Python 2 wrote as an OrderedDict of a list of pairs."""
    found: dict = {}
    for key, value in items:
        _set_item(found, key, value)
    if items:
        # Moved, not copied: a list given a thousand times would fill a thousand.
        items.clear()
    return found


def _set_item(target: Any, key: Any, value: Any) -> None:
    # A few bytes make a tuple whose hash takes days, or more of the stack than exists.
    if type(target) is not dict or isinstance(key, tuple):
        raise Damaged("items for what is no dictionary, or under a tuple")
    target[key] = value


_NAMES: dict[str, Callable[..., Any] | np.dtype] = {
    "collections.OrderedDict": _make_dict,
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    **{f"torch.{name}": np.dtype(name) for name in _DTYPES},
    **{f"torch.{name}": np.dtype(dtype) for name, dtype in _STORAGES.items()},
}


class _Methods(dict):
    """The method of each instruction, by its byte; every other byte is refused."""

    def __missing__(self, byte: int) -> Any:
        if byte not in pickle._Unpickler.dispatch:
            raise Damaged("it is no pickle")
        raise UserError(
            f"It uses the pickle instruction {chr(byte)!r}, which tensors do not need"
        )


class _Unpickler(pickle._Unpickler):
    """Makes tensors and plain containers, and nothing else."""

    dispatch = _Methods({code: pickle._Unpickler.dispatch[code] for code in _CODES})

    def find_class(self, module: str, name: str) -> Any:
        found = _NAMES.get(f"{module}.{name}")
        if found is None:
            raise UserError(f"It asks for {module}.{name}, which is no tensor")
        return found

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count, *view = pid
        is_known = kind == "storage" and isinstance(dtype, np.dtype)
        if not is_known or type(key) is not str or any(view):
            raise Damaged("a storage of unknown form")
        return Storage(dtype, key, _whole(count))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_item(self.stack[-1], key, value)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set_item(self.stack[-1], key, value)

    def load_build(self) -> None:
        # Attributes, such as a state dict's _metadata, are not wanted, and Python's
        # own method would set them on a dtype or a function of ours as well.
        self.stack.pop()

    dispatch |= {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.BUILD[0]: load_build,
    }


def read_pickle(file: BinaryIO, where: str) -> Any:
    """Read one pickle of tensors, containers, numbers and text.

    Args:
        file: at the pickle's first byte; left behind its last. Its `read` takes no
            memory for what the file does not hold, as that of BytesIO and mmap.
        where: what the file is called in messages.

    Raises:
        UserError: it asks for anything else, which is not run.
        Damaged: it is cut off or malformed.
    """
    malformed = (ValueError, TypeError, LookupError, AttributeError, EOFError)
    try:
        # Latin-1 has a letter for every byte that Python 2 wrote as text.
        return _Unpickler(file, encoding="latin-1").load()
    except UserError as error:
        raise UserError(
            f"{where}: {error}; nothing of it was run. Save the model's state_dict() "
            "alone, or give a .safetensors file"
        ) from None
    except (*malformed, struct.error, pickle.UnpicklingError) as error:
        name = type(error).__name__
        raise Damaged(f"its pickle is cut off or malformed ({name})") from None
