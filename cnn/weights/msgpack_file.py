"""Flax's msgpack files: `flax.serialization.to_bytes`, and the old `checkpoint_N`.

A map of maps whose arrays are extensions of type 1, (shape, dtype's name, bytes);
arrays above 1 GiB are maps of flat chunks. Nothing in a file is run, and no memory is
taken that its own length does not cover.
"""

import math
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.weights.leaf import Damaged, Leaf, check_shape, explain, get_dtype, nest

_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"
# A list takes memory when it begins, before its items are seen to be there.
_MAX_LIST = 10_000


def is_msgpack(path: Path) -> bool:
    """Return whether a path is a file that begins as a map of msgpack does."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return begins_map(file.read(1))


def begins_map(head: bytes) -> bool:
    """Return whether bytes begin as a map of msgpack with anything in it does."""
    return bool(re.match(rb"[\x81-\x8f\xde\xdf]", head))


def read_msgpack(path: Path) -> dict[str, Any]:
    """Read the tree of a file.

    Returns:
        Nested mappings of leaves by name, a list as the mapping of its places; other
        values (texts, numbers of Python) as they are.

    Raises:
        UserError: the file is truncated or damaged, or no map of maps.
    """
    import msgpack

    malformed = (ValueError, TypeError, OverflowError, RecursionError)  # msgpack's too
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with content, memoryview(content) as view:
            tree = msgpack.unpackb(
                view,
                ext_hook=_read_extension,
                raw=False,
                strict_map_key=False,
                max_array_len=_MAX_LIST,
            )
        if not isinstance(tree, dict):
            raise Damaged("it holds no map of arrays")
        return _join_chunks(tree)
    except (Damaged, OSError, *malformed, msgpack.UnpackException) as error:
        raise explain(path, "msgpack file of Flax", error) from None


def _read_extension(code: int, data: bytes) -> Any:
    import msgpack

    if code < 0:
        raise Damaged(f"it holds an extension of type {code}, which is none of Flax's")
    if code not in (_ARRAY, _SCALAR):
        return None  # a complex number of Python, or another program's
    found = msgpack.unpackb(data, raw=True, max_array_len=_MAX_LIST)
    if not isinstance(found, list) or len(found) != 3:
        raise Damaged("an array is not shape, dtype and bytes")
    shape, name, content = found
    if type(name) is not bytes or type(content) is not bytes:
        raise Damaged("an array is not shape, dtype and bytes")
    shape, dtype = check_shape(shape), get_dtype(name.decode(errors="replace"))
    if math.prod(shape) * dtype.itemsize != len(content):
        raise Damaged(
            f"an array of {dtype} {list(shape)} has {len(content):,} bytes of content"
        )
    return Leaf(shape, dtype, lambda: np.frombuffer(content, dtype).reshape(shape))


def _join_chunks(tree: Any) -> Any:
    """Put the chunks of large arrays together, and name the items of lists."""
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return tree
    if _CHUNKED not in tree:
        return nest({(str(name),): _join_chunks(node) for name, node in tree.items()})
    shape = check_shape(_list_places(tree.get("shape")))
    chunks = _list_places(tree.get("chunks"))
    if not chunks or any(not isinstance(chunk, Leaf) for chunk in chunks):
        raise Damaged("an array in chunks has none")
    dtype = chunks[0].dtype
    sizes = [math.prod(chunk.shape) for chunk in chunks]
    if any(chunk.dtype != dtype for chunk in chunks) or sum(sizes) != math.prod(shape):
        raise Damaged("the chunks of an array are not those of its shape")
    return Leaf(
        shape,
        dtype,
        lambda: np.concatenate([x.read().reshape(-1) for x in chunks]).reshape(shape),
    )


def _list_places(found: Any) -> list[Any]:
    """Return what is named by its place, `{"0": a, "1": b}`, as a list."""
    if isinstance(found, Mapping):
        places = {str(place): value for place, value in found.items()}
        found = [places.get(str(place)) for place in range(len(places))]
    if not isinstance(found, list):
        raise Damaged("an array in chunks lacks its shape or chunks")
    return found
