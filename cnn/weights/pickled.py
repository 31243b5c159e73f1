"""A pickle of tensors, read without running anything of it.

This is Python's own unpickler, `pickle._Unpickler`. A name in the pickle is looked up
in a table here, never imported: those that make tensors are known, and whatever else
is named becomes a `Placeholder`, which does nothing. Tensors come out as descriptions;
their numbers are read later.

The faster `pickle.Unpickler`, in C, is decided against by the test
`test_no_file_takes_memory_it_does_not_cover[memo]`: ten bytes make it take 2 GB
(LONG_BINPUT, https://github.com/python/cpython/issues/115952), and no subclass can
leave out an instruction.
"""

import io
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from cnn.errors import UserError
from cnn.weights.described import (
    NoNumbers,
    PickledArray,
    Placeholder,
    Storage,
    Tensor,
    read_sizes,
    read_whole,
)
from cnn.weights.leaf import Damaged, get_dtype

_DTYPES = {
    name: get_dtype(name)
    for name in (
        "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 "
        "uint8 bool complex64 complex128 float8_e4m3fn float8_e4m3fnuz float8_e5m2 "
        "float8_e5m2fnuz"
    ).split()
}
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "QInt8": "int8",
    "QInt32": "int32",
    "QUInt8": "uint8",
    "Untyped": "uint8",
}
_REFUSED = "EXT1 EXT2 EXT4 NEXT_BUFFER READONLY_BUFFER".split()


def _rebuild(storage: Any, *rest: Any) -> Tensor | NoNumbers:
    if not isinstance(storage, Storage):
        raise Damaged("a tensor without a storage")
    return _make_tensor(storage, *rest[:3], storage.dtype, *rest[5:])


def _rebuild_with_dtype(storage: Any, *rest: Any) -> Tensor | NoNumbers:
    return _make_tensor(storage, *rest[:3], *rest[5:])


def _make_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any, metadata: Any = ()
) -> Tensor | NoNumbers:
    sizes = [read_sizes(numbers) for numbers in (shape, strides)]
    if len(sizes[0]) != len(sizes[1]):
        raise Damaged("a tensor without strides")
    if isinstance(dtype, Placeholder):
        return NoNumbers(dtype.name.removeprefix("torch."), sizes[0])
    if not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
        raise Damaged("a tensor without a storage or a type")
    if metadata:
        return NoNumbers("negated or conjugated", sizes[0])
    return Tensor(storage, dtype, storage.offset + read_whole(offset), *sizes)


def _rebuild_around(first: Any, *rest: Any) -> Any:
    """Return the tensor that a parameter, or a variable of old, is made around."""
    if not hasattr(first, "shape"):
        raise Damaged("a parameter that is no tensor")
    return first


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    return _call(function, arguments)


def _read_dumped_storage(content: Any) -> Storage:
    """Read a storage as `pickle.dump` writes it: a file of PyTorch's in the pickle."""
    if not isinstance(content, bytes):
        # Not decoded: a text given a thousand times would fill a thousand.
        raise UserError(
            "It was written by pickle with an old protocol; save it with torch.save"
        )
    file = io.BytesIO(content)
    unpickler = _StorageUnpickler(file, encoding="latin-1")
    unpickler.storages = {}
    _, _, system, found, _ = (unpickler.load() for _ in range(5))
    count = int.from_bytes(file.read(8), "little")
    numbers = memoryview(content)[file.tell() :]
    if not isinstance(found, Storage) or not isinstance(system, dict):
        raise Damaged("a storage of unknown form")
    length = count * found.dtype.itemsize
    if not system.get("little_endian", True) or length > len(numbers):
        raise Damaged("a storage of unknown form")
    return Storage(found.dtype, f"at {id(content)}", count, 0, numbers[:length])


def _make_array(*arguments: Any) -> PickledArray:
    return PickledArray("array", arguments)


def _make_filled_array(content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    array = PickledArray("array", ())
    array.fill((1, shape, dtype, order == "F", content))
    return array


def _describe(kind: str, place: int) -> Callable[..., NoNumbers]:
    """Return what makes a tensor that is not read; its shape is at this argument."""

    def make(*arguments: Any) -> NoNumbers:
        given = arguments[place : place + 1]
        is_shape = given and isinstance(given[0], tuple)
        return NoNumbers(kind, read_sizes(given[0]) if is_shape else ())

    return make


def _make_dict(items: Any = (), *rest: Any) -> dict:
    """Make what Python 2 wrote as an OrderedDict of a list of pairs."""
    found: dict = {}
    if isinstance(items, list):
        for key, value in items:
            _set_item(found, key, value)
        # Moved, not copied: a list given a thousand times would fill a thousand.
        items.clear()
    elif type(items) is dict and not rest:
        return items
    return found


def _set_item(target: Any, key: Any, value: Any) -> None:
    target = target.given if isinstance(target, Placeholder) else target
    if type(target) is not dict:
        raise Damaged("items for what is no dictionary")
    # A few bytes make a tuple whose hash takes days, or more of the stack than exists.
    if type(key) is str or (type(key) is int and abs(key) < 2**63):
        target[key] = value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _make_dict,
    "collections.defaultdict": lambda *factory: {},
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_with_dtype,
    "torch._utils._rebuild_parameter": _rebuild_around,
    "torch._utils._rebuild_parameter_with_state": _rebuild_around,
    "torch._utils._rebuild_device_tensor_from_numpy": _rebuild_around,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _rebuild_around,
    "torch._utils._rebuild_xla_tensor": _rebuild_around,
    "torch.nn.parameter.Parameter": _rebuild_around,
    "torch.storage._load_from_bytes": _read_dumped_storage,
    "torch.autograd.variable.Variable": _rebuild_around,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch._utils._rebuild_qtensor": _describe("quantised", 2),
    "torch._utils._rebuild_sparse_tensor": _describe("sparse", 9),
    "torch._utils._rebuild_nested_tensor": _describe("nested", 9),
    "torch._utils._rebuild_meta_tensor_no_storage": _describe("meta, no numbers", 1),
    "torch._utils._rebuild_wrapper_subclass": _describe("of a class of its own", 2),
}
for _core in ("numpy.core", "numpy._core"):
    _FUNCTIONS[f"{_core}.multiarray._reconstruct"] = _make_array
    _FUNCTIONS[f"{_core}.numeric._frombuffer"] = _make_filled_array
_NUMBERS = {f"torch.{name}": dtype for name, dtype in _DTYPES.items()}
_NUMBERS |= {
    f"torch.{inside}{kind}Storage": _DTYPES[dtype]
    for kind, dtype in _STORAGES.items()
    for inside in ("", "storage.", "cuda.")
}


def _call(function: Any, arguments: Any) -> Any:
    """Make what a known function makes of its arguments, else a placeholder."""
    name = function.name if isinstance(function, Placeholder) else "what is no function"
    if name in _FUNCTIONS and function.arguments is None and type(arguments) is tuple:
        return _FUNCTIONS[name](*arguments)
    return Placeholder(name, arguments if type(arguments) is tuple else ())


class _Methods(dict):
    """The method of each instruction, by its byte; every other byte is refused."""

    def __missing__(self, byte: int) -> Any:
        if byte not in pickle._Unpickler.dispatch:
            raise Damaged("it is no pickle")
        raise UserError(
            f"It uses the pickle instruction {chr(byte)!r}, which no file of weights "
            "needs; save model.state_dict()"
        )


class _Unpickler(pickle._Unpickler):
    """Makes tensors, plain containers and placeholders, and nothing else."""

    dispatch = _Methods(pickle._Unpickler.dispatch)
    for _name in _REFUSED:
        del dispatch[getattr(pickle, _name)[0]]

    objects: Mapping[int, Any] | None = None
    storages: dict[str, Storage]

    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module}.{name}"
        return _NUMBERS[whole] if whole in _NUMBERS else Placeholder(whole)

    def persistent_load(self, pid: Any) -> Any:
        if self.objects is not None:
            # A container was written with what it is made of behind it.
            return self.objects[int(pid)] if type(pid) in (int, str) else pid[0]
        if pid[0] == "module":  # with its source code, which whole models of old have
            return pid[1]
        kind, dtype, key, _, count, *view = pid
        if isinstance(key, int) and 0 <= key < 2**63:
            key = str(key)
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(key) is not str:
            raise Damaged("a storage of unknown form")
        offset = read_whole(view[0][1]) if view and view[0] is not None else 0
        found = Storage(dtype, key, read_whole(count), offset)
        self.storages[key] = found
        return found

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_item(self.stack[-1], key, value)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set_item(self.stack[-1], key, value)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set_item(self.stack[-1], key, value)

    def load_build(self) -> None:
        # Python's own method would set attributes on a type or a function of ours.
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, PickledArray):
            target.fill(state)
        elif isinstance(target, Placeholder) and target.arguments is not None:
            target.state = state

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_reduce()

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.append(_call(self.find_class(module, name), tuple(self.pop_mark())))

    def load_obj(self) -> None:
        arguments = self.pop_mark()
        self.append(_call(arguments.pop(0), tuple(arguments)))

    def load_empty_set(self) -> None:
        self.append(Placeholder("set", ([],)))

    def load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].extend(items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(Placeholder("set", (items,)))

    def load_bytearray8(self) -> None:
        # Python's own method takes the memory before it looks for the bytes.
        self.append(self.read(struct.unpack("<Q", self.read(8))[0]))

    dispatch |= {
        getattr(pickle, name)[0]: method
        for name, method in {
            "SETITEM": load_setitem,
            "SETITEMS": load_setitems,
            "DICT": load_dict,
            "BUILD": load_build,
            "REDUCE": load_reduce,
            "NEWOBJ": load_reduce,
            "NEWOBJ_EX": load_newobj_ex,
            "INST": load_inst,
            "OBJ": load_obj,
            "EMPTY_SET": load_empty_set,
            "ADDITEMS": load_additems,
            "FROZENSET": load_frozenset,
            "BYTEARRAY8": load_bytearray8,
        }.items()
    }


class _StorageUnpickler(_Unpickler):
    """Calls nothing: no storage is read in a storage in a storage."""

    def find_class(self, module: str, name: str) -> Any:
        return _NUMBERS.get(f"{module}.{name}", Placeholder("unknown"))


def read_pickle(
    file: BinaryIO,
    objects: Mapping[int, Any] | None = None,
    storages: dict[str, Storage] | None = None,
) -> Any:
    """Read one pickle of tensors, containers, numbers and text.

    Args:
        file: at the pickle's first byte; left behind its last. Its `read` takes no
            memory for what the file does not hold, as that of BytesIO and mmap.
        objects: what lies outside of the pickle, by number, in PyTorch's oldest form;
            else storages do.
        storages: gets every storage that is named, by key, also those of tensors that
            are not read.

    Raises:
        UserError: it uses what no file of weights needs.
        Damaged: it is cut off or malformed.
    """
    malformed = (ValueError, TypeError, LookupError, AttributeError, EOFError)
    try:
        # Latin-1 has a letter for every byte that Python 2 wrote as text.
        unpickler = _Unpickler(file, encoding="latin-1")
        unpickler.objects = objects
        unpickler.storages = {} if storages is None else storages
        return unpickler.load()
    except (*malformed, struct.error, pickle.UnpicklingError, RecursionError) as error:
        name = type(error).__name__
        raise Damaged(f"its pickle is cut off or malformed ({name})") from None
