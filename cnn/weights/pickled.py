"""A pickle read by a machine that can build tensors and plain containers alone.

Nothing of Python's pickle runs: each instruction of the few that `torch.save` writes
is done here, and a name in the pickle is looked up in a table of our own, never
imported. Tensors come out as descriptions; their numbers are read later.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from cnn.errors import UserError

_STORAGES = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "Untyped": np.uint8,
}
_DTYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "bool": np.bool_,
}


class Damaged(Exception):
    """The file does not hold what its form promises."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers in the file that tensors share: their type, key and count."""

    dtype: np.dtype
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides in numbers of `dtype`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Type:
    """A storage's or a tensor's type, named in the pickle."""

    dtype: np.dtype


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise Damaged(f"{value!r} is no size")
    return value


def _rebuild(*arguments: Any) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    dtype = arguments[6].dtype if len(arguments) > 6 else None
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise Damaged("a tensor without storage or strides")
    if len(shape) > 16:
        raise Damaged("a tensor of more than 16 dimensions")
    return Tensor(
        storage,
        dtype or storage.dtype,
        _whole(offset),
        tuple(map(_whole, shape)),
        tuple(map(_whole, strides)),
    )


def _rebuild_parameter(tensor: Any, *rest: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise Damaged("a parameter that is no tensor")
    return tensor


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}
_TYPES = {
    **{f"torch.{name}Storage": _Type(np.dtype(t)) for name, t in _STORAGES.items()},
    "torch.storage.UntypedStorage": _Type(np.dtype(np.uint8)),
    **{f"torch.{name}": _Type(np.dtype(t)) for name, t in _DTYPES.items()},
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_VALUES = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES".split()
)
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack, the marks and the memory of one pickle."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise Damaged("its stack is empty")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def push_name(self, name: str) -> None:
        found = _TYPES.get(name) or _FUNCTIONS.get(name)
        if found is None:
            raise UserError(
                f"{self.where} asks for {name}, which is no tensor; nothing of it was "
                "run. Save the model's state_dict() alone, or give a .safetensors file"
            )
        self.stack.append(found)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        known = any(function is f for f in _FUNCTIONS.values())
        if not known or type(arguments) is not tuple:
            raise Damaged("it calls what is no function")
        self.stack.append(function(*arguments))

    def load_storage(self) -> None:
        kind, storage_type, key, _, count, *view = self.pop()
        if kind != "storage" or not isinstance(storage_type, _Type) or any(view):
            raise Damaged("a storage of unknown form")
        self.stack.append(Storage(storage_type.dtype, str(key), _whole(count)))

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise Damaged("items for what is no dictionary")
        target.update(zip(values[::2], values[1::2], strict=True))

    def extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Damaged("elements for what is no list")
        self.stack[-1].extend(values)

    def do(self, code: str, value: Any) -> None:
        """Do one instruction."""
        if code in _VALUES:
            self.stack.append(value)
        elif code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code])
        elif code in _EMPTY:
            self.stack.append(_EMPTY[code]())
        elif code == "MARK":
            self.marks.append(len(self.stack))
        elif code == "TUPLE":
            self.stack.append(tuple(self.pop_to_mark()))
        elif code in _SHORT_TUPLES:
            values = [self.pop() for _ in range(_SHORT_TUPLES[code])]
            self.stack.append(tuple(reversed(values)))
        elif code in ("BINPUT", "LONG_BINPUT"):
            self.memory[value] = self.stack[-1]
        elif code == "MEMOIZE":
            self.memory[len(self.memory)] = self.stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[value])
        elif code == "GLOBAL":
            self.push_name(value.replace(" ", "."))
        elif code == "STACK_GLOBAL":
            name = self.pop()
            self.push_name(f"{self.pop()}.{name}")
        elif code == "REDUCE":
            self.call()
        elif code == "BINPERSID":
            self.load_storage()
        elif code == "SETITEM":
            item = self.pop()
            self.set_items([self.pop(), item])
        elif code == "SETITEMS":
            self.set_items(self.pop_to_mark())
        elif code == "APPEND":
            self.extend([self.pop()])
        elif code == "APPENDS":
            self.extend(self.pop_to_mark())
        elif code == "BUILD":
            # Attributes, such as a state dict's _metadata: not wanted.
            self.pop()
        elif code not in ("PROTO", "FRAME"):
            raise UserError(
                f"{self.where} uses the pickle instruction {code}, which tensors do "
                "not need; nothing of it was run"
            )


def read_pickle(file: BinaryIO, where: str) -> Any:
    """Read one pickle of tensors, containers, numbers and text.

    Args:
        file: at the pickle's first byte; left behind its last.
        where: what the file is called in messages.

    Raises:
        UserError: it asks for anything else, which is not run.
        Damaged: it is cut off or malformed.
    """
    machine = _Machine(where)
    try:
        for opcode, value, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.pop()
            machine.do(opcode.name, value)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Damaged(f"its pickle is malformed ({error})") from None
    raise Damaged("its pickle has no end")
