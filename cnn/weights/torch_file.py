"""PyTorch's files (.pth, .th, .pt; zip and the older form) read without PyTorch.

Nothing in a file is run (see `pickled`), and no memory is taken that the file's own
length does not cover.
"""

import io
import mmap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.weights.pickled import Damaged, Storage, Tensor, read_pickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PREFIX = "module."

ReadStorage = Callable[[Storage], bytes]


def load_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Load a state dict.

    Args:
        path: of the file. The tensors may lie under `state_dict` or `model`, and
            their names may all begin with `module.`, as DataParallel leaves them.

    Returns:
        Arrays by name, bfloat16 as `ml_dtypes.bfloat16`.

    Raises:
        UserError: it is truncated or damaged, or asks for anything but tensors.
    """
    malformed = (OSError, RuntimeError, ValueError, OverflowError, EOFError)
    with open(path, "rb") as file:
        try:
            if file.read(4) == b"PK\x03\x04":
                return _read_zip(file, str(path), path.stat().st_size)
            # A map is cut at the file's end before memory is taken for what is asked.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read_legacy(content, str(path))
        except (Damaged, zipfile.BadZipFile, *malformed) as error:
            raise UserError(
                f"{path} is truncated or no PyTorch file: {error}; copy it again"
            ) from None


def _read_zip(file: io.BufferedReader, where: str, size: int) -> dict[str, np.ndarray]:
    archive = zipfile.ZipFile(file)
    infos = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in infos.values()) > size:
        raise Damaged("its records are longer than the file")
    if any(
        info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size
        for info in infos.values()
    ):
        raise Damaged("its records are compressed, which PyTorch's are not")
    pickles = [name for name in infos if name.endswith("data.pkl")]
    if len(pickles) != 1:
        raise Damaged("it holds no data.pkl (a TorchScript file, or another archive)")
    folder = pickles[0].removesuffix("data.pkl")
    order = archive.read(folder + "byteorder") if folder + "byteorder" in infos else b""
    found = read_pickle(io.BytesIO(archive.read(pickles[0])), where)

    def read_storage(storage: Storage) -> bytes:
        name = f"{folder}data/{storage.key}"
        if name not in infos:
            raise Damaged(f"{name} is missing")
        return archive.read(name)

    return _collect(found, read_storage, order == b"big", where)


def _read_legacy(file: mmap.mmap, where: str) -> dict[str, np.ndarray]:
    if read_pickle(file, where) != _LEGACY_MAGIC:
        raise Damaged("it does not begin as PyTorch's files do")
    if read_pickle(file, where) != _LEGACY_VERSION:
        raise Damaged("its version is unknown")
    system, found, keys = (read_pickle(file, where) for _ in range(3))
    if not isinstance(system, dict) or not isinstance(keys, list):
        raise Damaged("it does not say whose numbers it holds")
    is_big = not system.get("little_endian", True)
    itemsizes = {s.key: s.dtype.itemsize for s in _list_storages(found)}
    contents: dict[str, bytes] = {}
    for key in keys:
        if type(key) is not str:
            raise Damaged("a storage without a name")
        count = int.from_bytes(file.read(8), "big" if is_big else "little")
        length = count * itemsizes.get(key, 1)
        if length > len(file) - file.tell():
            raise Damaged(f"storage {key} is cut off")
        contents[key] = file.read(length)

    def read_storage(storage: Storage) -> bytes:
        if storage.key not in contents:
            raise Damaged(f"storage {storage.key} is missing")
        return contents[storage.key]

    return _collect(found, read_storage, is_big, where)


def _list_storages(found: Any) -> list[Storage]:
    """List every storage that is named anywhere in what a pickle holds."""
    storages, waiting, seen = [], [found], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            storages.append(value.storage)
        elif isinstance(value, Storage):
            storages.append(value)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    return storages


def _collect(
    found: Any, read_storage: ReadStorage, is_big: bool, where: str
) -> dict[str, np.ndarray]:
    """Read the tensors of the state dict in what a pickle holds."""
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{where} holds no state dict; save model.state_dict()")
    others = [str(name) for name, x in found.items() if not isinstance(x, Tensor)]
    if others:
        raise UserError(
            f"{where} holds what is no tensor: {', '.join(sorted(others)[:5])}; save "
            "model.state_dict() alone"
        )
    contents: dict[str, bytes] = {}
    arrays = {}
    for name, tensor in found.items():
        key = tensor.storage.key
        if key not in contents:
            contents[key] = read_storage(tensor.storage)
        arrays[str(name)] = _view(str(name), tensor, contents[key], is_big)
    if all(name.startswith(_PREFIX) for name in arrays):
        arrays = {name.removeprefix(_PREFIX): x for name, x in arrays.items()}
    return arrays


def _view(name: str, tensor: Tensor, content: bytes, is_big: bool) -> np.ndarray:
    """View a tensor in its storage; no number outside of it can be reached."""
    dtype = tensor.dtype
    if len(content) < tensor.storage.count * tensor.storage.dtype.itemsize:
        raise Damaged(f"{name}: its storage is cut off")
    last = tensor.offset
    for size, stride in zip(tensor.shape, tensor.strides, strict=True):
        last += (size - 1) * stride
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    if (last + 1) * dtype.itemsize > len(content):
        raise Damaged(f"{name} reaches beyond its storage")
    numbers = np.frombuffer(content, dtype, len(content) // dtype.itemsize)
    if is_big:
        numbers = numbers.byteswap()
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, strides, writeable=False
    )
