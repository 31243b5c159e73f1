"""PyTorch's files in all three forms (zip, pickle, tar), read without PyTorch.

Nothing in a file is run (see `pickled`). Its numbers stay in the file, which is mapped,
until they are used: no memory is taken that the file's own length does not cover.
"""

import io
import math
import mmap
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.weights import nested
from cnn.weights.chosen_set import choose_set
from cnn.weights.described import (
    MOST_DIMENSIONS,
    NoNumbers,
    Placeholder,
    Storage,
    Tensor,
    list_modules,
)
from cnn.weights.leaf import Damaged, Leaf
from cnn.weights.pickled import read_pickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_CHUNK = 2**24
# How often over a file's numbers may occur in its tensors: shared, or repeated.
_MOST_REPEATS = 8
# What a checkpoint says of the architecture, at its top or in its arguments.
_ARCHITECTURE = ("arch", "architecture", "model", "model_name", "backbone")
_ARGUMENTS = ("args", "hyper_parameters", "hparams", "config", "cfg", "opt")

_MALFORMED = (
    Damaged,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)

ReadStorage = Callable[[Storage], memoryview | bytes]


class TorchFile:
    """What a file holds, of which the numbers are not read yet.

    Attributes:
        tree: mappings and lists of descriptions of tensors, and of what is none.
        says: what the file says of its architecture, by where it says it.
        others: names of what is in it beside its tensors, and was not run.
    """

    def __init__(self, path: Path) -> None:
        """Read everything but the numbers.

        Raises:
            UserError: the file is truncated or damaged.
        """
        self.path, self.is_big = path, False
        self.size = path.stat().st_size
        with _naming(path), open(path, "rb") as file:
            # A map is cut at the file's end before memory is taken for what is asked.
            self.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if self.content[:4] == b"PK\x03\x04":
                self.tree, self.read_storage = _open_zip(self)
            elif self.content[257:262] == b"ustar":
                self.tree, self.read_storage = _open_tar(self)
            else:
                self.tree, self.read_storage = _open_pickles(self)
            self.says = dict(_find_sayings(self.tree))
            self.others = sorted({x.name for x in _list_all(self.tree, Placeholder)})

    def read(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Return tensors as arrays, views of the file where they can be.

        Tensors that cannot be read (quantised, sparse) become leaves that say so where
        they are needed.

        Raises:
            UserError: one is damaged, or all are larger than the file accounts for.
        """
        with _naming(self.path):
            claimed = sum(_count_bytes(leaf) for leaf in leaves.values())
            if claimed > _MOST_REPEATS * self.size + 2**20:
                raise Damaged(f"its tensors claim {claimed:,} bytes of {self.size:,}")
            contents: dict[str, memoryview | bytes] = {}
            return {name: self._view(name, x, contents) for name, x in leaves.items()}

    def _view(self, name: str, leaf: Any, contents: dict[str, Any]) -> Any:
        if not isinstance(leaf, Tensor):
            is_refused = isinstance(leaf, NoNumbers)
            return _refuse(name, leaf) if is_refused else np.asarray(leaf)
        key = leaf.storage.key
        if key not in contents:
            held = leaf.storage.content
            contents[key] = self.read_storage(leaf.storage) if held is None else held
        return _view(name[:80], leaf, contents[key], self.is_big)


def take_set(
    path: Path, init_key: str, where: str
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Take the state dict of a file, or the one that `init_key` names.

    Args:
        where: what the file is called in messages.

    Returns:
        As of `TorchFile.read` by name, bfloat16 as `ml_dtypes.bfloat16`; what is to be
        said of them; and what the file says of its architecture.

    Raises:
        UserError: it is truncated or damaged, or holds none or several.
    """
    file = TorchFile(path)
    sets = nested.find_sets(file.tree, where)
    if not sets and file.others:
        named = ", ".join(name[:80] for name in file.others[:4])
        raise UserError(
            f"{where} holds no weights, only what asks for {named}; nothing of it was "
            "run. Save model.state_dict()"
        )
    _, leaves, notes = choose_set(sets, init_key, where)
    return file.read(leaves), notes, file.says


class _naming:
    """Turns what is wrong inside of a file into an error that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, UserError):
            raise UserError(f"{self.path}: {error}") from None
        if isinstance(error, _MALFORMED):
            raise UserError(
                f"{self.path} is truncated or no PyTorch file: {error}; copy it again"
            ) from None


def _open_zip(file: TorchFile) -> tuple[Any, ReadStorage]:
    content = file.content  # without the file in what `read` holds: a cycle keeps both
    archive = zipfile.ZipFile(io.BufferedReader(_Raw(content)))
    infos = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in infos.values()) > file.size:
        raise Damaged("its records are longer than the file")
    if any(
        info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size
        for info in infos.values()
    ):
        raise Damaged("its records are compressed, which PyTorch's are not")
    pickles = [name for name in infos if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise Damaged("it holds no data.pkl (a TorchScript file, or another archive)")
    folder = pickles[0].removesuffix("data.pkl")

    def read(name: str) -> memoryview:
        if name not in infos:
            raise Damaged(f"{name} is missing")
        info = infos[name]
        head = content[info.header_offset : info.header_offset + 30]
        if head[:4] != b"PK\x03\x04" or len(head) < 30:
            raise Damaged(f"{name} has no header")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
        found = memoryview(content)[start : start + info.file_size]
        # PyTorch writes 0 where it was told to compute no checksums.
        if len(found) < info.file_size or (
            info.CRC and info.CRC != _compute_checksum(content, start, len(found))
        ):
            raise Damaged(f"{name} has changed since it was written")
        return found

    file.is_big = f"{folder}byteorder" in infos and read(f"{folder}byteorder") == b"big"
    found = read_pickle(io.BytesIO(read(pickles[0])))
    return found, lambda storage: read(f"{folder}data/{storage.key}")


def _compute_checksum(content: mmap.mmap, start: int, length: int) -> int:
    """Compute CRC-32 of a part of a map, of which little is in memory at once."""
    found = 0
    for place in range(start, start + length, _CHUNK):
        end = min(place + _CHUNK, start + length)
        found = zlib.crc32(memoryview(content)[place:end], found)
        first = -(-place // mmap.PAGESIZE) * mmap.PAGESIZE
        if end > first and hasattr(content, "madvise"):
            # Its pages are read again when they are used.
            content.madvise(mmap.MADV_DONTNEED, first, end - first)
    return found


class _Raw(io.RawIOBase):
    """A mapped file as a file, which leaves the map open when it is closed."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.place = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset + (0, self.place, len(self.content))[whence]
        if self.place < 0:
            raise ValueError("a place before the file's beginning")
        return self.place

    def readinto(self, buffer: Any) -> int:
        found = self.content[self.place : self.place + len(buffer)]
        buffer[: len(found)] = found
        self.place += len(found)
        return len(found)


def _open_pickles(file: TorchFile) -> tuple[Any, ReadStorage]:
    """Open the form before the zip, or a pickle of arrays that is not PyTorch's."""
    content = file.content
    first = read_pickle(content)
    if first != _LEGACY_MAGIC:
        if not isinstance(first, Mapping):
            raise Damaged("it does not begin as PyTorch's files do")
        return first, _read_nothing
    if read_pickle(content) != _LEGACY_VERSION:
        raise Damaged("its version is unknown")
    storages: dict[str, Storage] = {}
    system, found, keys = (read_pickle(content, None, storages) for _ in range(3))
    if not isinstance(system, dict) or not isinstance(keys, list):
        raise Damaged("it does not say whose numbers it holds")
    file.is_big = not system.get("little_endian", True)
    itemsizes = {key: x.dtype.itemsize for key, x in storages.items()}
    contents: dict[str, memoryview] = {}
    for key in keys:
        if type(key) is not str:
            raise Damaged("a storage without a name")
        contents[key] = _read_numbers(content, itemsizes.get(key, 1), file.is_big)

    def read_storage(storage: Storage) -> memoryview:
        if storage.key not in contents:
            raise Damaged(f"storage {storage.key} is missing")
        return contents[storage.key]

    return found, read_storage


def _read_nothing(storage: Storage) -> bytes:
    raise Damaged(f"storage {storage.key} is missing")


def _read_numbers(content: mmap.mmap, itemsize: int, is_big: bool) -> memoryview:
    """Read how many numbers follow, and leave them where they are."""
    count = int.from_bytes(content.read(8), "big" if is_big else "little")
    place, length = content.tell(), count * itemsize
    if length > len(content) - place:
        raise Damaged("a storage is cut off")
    content.seek(place + length)
    return memoryview(content)[place : place + length]


def _open_tar(file: TorchFile) -> tuple[Any, ReadStorage]:
    """Open the oldest form: storages, tensors of them, and a pickle of these."""
    content = file.content
    with tarfile.open(fileobj=io.BufferedReader(_Raw(content)), mode="r:") as archive:
        places = {info.name: info.offset_data for info in archive.getmembers()}
    for name in ("storages", "tensors", "pickle"):
        if places.get(name, -1) < 0:
            raise Damaged(f"it holds no {name} (another archive)")
    content.seek(places["storages"])
    storages: dict[Any, Storage] = {}
    contents: dict[str, memoryview] = {}
    for _ in range(_read_count(content)):
        key, _, dtype = read_pickle(content)
        if not isinstance(dtype, np.dtype) or type(key) not in (int, str):
            raise Damaged("a storage of unknown form")
        contents[str(key)] = _read_numbers(content, dtype.itemsize, False)
        count = len(contents[str(key)]) // dtype.itemsize
        storages[key] = Storage(dtype, str(key), count)
    for key, root, offset, _ in read_pickle(content):
        whole = storages[root]
        if type(offset) is not int or not 0 <= offset <= whole.count:
            raise Damaged("a storage outside of another")
        storages[key] = Storage(whole.dtype, whole.key, whole.count, offset)
    content.seek(places["tensors"])
    tensors = {}
    for _ in range(_read_count(content)):
        key, storage, _ = read_pickle(content)
        (dimensions,) = struct.unpack("<i4x", content.read(8))
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            raise Damaged(f"a tensor of more than {MOST_DIMENSIONS} dimensions")
        numbers = content.read(16 * dimensions + 8)
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", numbers)
        if min(numbers) < 0:
            raise Damaged("a tensor with negative sizes")
        shape, strides = numbers[:dimensions], numbers[dimensions:-1]
        offset = storages[storage].offset + numbers[-1]
        found = Tensor(
            storages[storage], storages[storage].dtype, offset, shape, strides
        )
        tensors[int(key)] = found
    content.seek(places["pickle"])
    return read_pickle(content, tensors), lambda storage: contents[storage.key]


def _read_count(content: mmap.mmap) -> int:
    count = read_pickle(content)
    if type(count) is not int or not 0 <= count <= len(content):
        raise Damaged("a number of tensors that is none")
    return count


def _list_all(found: Any, kind: type) -> Iterator[Any]:
    """List whatever is of one kind anywhere in what a pickle holds, each once."""
    waiting, seen = [found], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, kind):
            yield value
        if isinstance(value, Placeholder):
            waiting += [value.given, value.state, value.arguments]
        elif isinstance(value, dict | list | tuple):
            waiting += value.values() if isinstance(value, dict) else value


def _refuse(name: str, tensor: NoNumbers) -> Leaf:
    """Return what stands for a tensor that is refused where it is needed."""

    def read() -> np.ndarray:
        raise UserError(f"{name} is {tensor.dtype}, which is not read")

    return Leaf(tensor.shape, tensor.dtype, read)


def _count_bytes(leaf: Any) -> int:
    if isinstance(leaf, Tensor):
        return math.prod(leaf.shape) * leaf.dtype.itemsize
    return 0


def _view(name: str, tensor: Tensor, content: Any, is_big: bool) -> np.ndarray:
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
    strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
    start = tensor.offset * dtype.itemsize
    if is_big:
        numbers = np.frombuffer(content[start : (last + 1) * dtype.itemsize], dtype)
        content, start = numbers.byteswap(), 0
    return np.ndarray(tensor.shape, dtype, content, start, strides)


def _find_sayings(tree: Any) -> Iterator[tuple[str, str]]:
    """Find what a checkpoint says of its architecture, by where it says it."""
    if not isinstance(tree, Mapping):
        return
    places = {"": tree}
    places |= {f"{name}.": tree[name] for name in _ARGUMENTS if name in tree}
    for place, value in places.items():
        holder = value.state if isinstance(value, Placeholder) else value
        for name in _ARCHITECTURE if isinstance(holder, dict) else ():
            if isinstance(holder.get(name), str):
                yield place + name, holder[name][:200]
    for name, value in (("", tree), *tree.items()):
        if isinstance(value, Placeholder) and isinstance(value.state, dict):
            if "_modules" in value.state:
                yield from _find_module_sayings(f"{name}.".lstrip("."), value)


def _find_module_sayings(name: str, module: Placeholder) -> Iterator[tuple[str, str]]:
    """Find what a pickled module is: timm's configuration, and its layers' classes."""
    for key in ("pretrained_cfg", "default_cfg"):
        found = module.state.get(key)
        if isinstance(found, dict) and isinstance(found.get("architecture"), str):
            yield f"{name}{key}", found["architecture"][:200]
    classes = {inner.name for _, inner in list_modules(module)}
    yield f"{name}layers", " ".join(sorted(classes))[:5000]
