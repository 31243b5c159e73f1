"""`.npz` files whose arrays are named by their path, `params/Conv_0/kernel`.

big_vision's way, and that of `np.savez(file, **flat)`. Python objects are never read,
and what an array claims to be is compared with its bytes before memory is taken.
"""

import math
import re
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from cnn.weights.leaf import Damaged, Leaf, check_shape, explain, nest

_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Deflate makes at most 1,032 bytes of one.
_MOST = 1032
_KIND = "npz file of arrays"
_MALFORMED = (
    Damaged,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,  # of headers, which numpy reads as Python 2 wrote them
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path) -> dict[str, Any]:
    """Read the tree of a file.

    Returns:
        Nested mappings of leaves by name; a name is split at `/`.

    Raises:
        UserError: the file is truncated or damaged, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            leaves = {}
            for info in infos:
                if not info.filename.endswith(".npy"):
                    raise Damaged(f"{info.filename[:60]} is no .npy")
                name = tuple(info.filename.removesuffix(".npy").split("/"))
                leaves[name] = _open_array(path, archive, info)
        if len(leaves) < len(infos) or not leaves:
            raise Damaged("it holds no array" if not leaves else "a name occurs twice")
        return nest(leaves)
    except _MALFORMED as error:
        raise explain(path, _KIND, error) from None


def _open_array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Leaf:
    """Read what an array claims to be, and compare it with its length."""
    if info.compress_type not in _READABLE or info.flag_bits & 1:
        raise Damaged(f"{info.filename[:60]} is compressed otherwise, or encrypted")
    if info.file_size > _MOST * (info.compress_size + 1):
        raise Damaged(f"{info.filename[:60]} claims more bytes than it can hold")
    with archive.open(info) as file:
        shape, _, dtype = _read_header(file)
        rest = info.file_size - file.tell()
    shape = check_shape(shape)
    if math.prod(shape) * dtype.itemsize != rest:
        raise Damaged(
            f"{info.filename[:60]}: {dtype} {list(shape)} with {rest:,} bytes of "
            "content"
        )

    def read() -> np.ndarray:
        try:
            with zipfile.ZipFile(path) as again, again.open(info.filename) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except _MALFORMED as error:
            raise explain(path, _KIND, error) from None
        if array.shape != shape:
            raise explain(path, _KIND, "it was changed while it was read")
        return array.view(ml_dtypes.bfloat16) if array.dtype.kind == "V" else array

    # numpy writes bfloat16, which it does not know, as two bytes without a meaning.
    is_void = dtype.kind == "V"
    return Leaf(shape, np.dtype(ml_dtypes.bfloat16) if is_void else dtype, read)


def _read_header(file: IO[bytes]) -> tuple[Any, bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        found = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        found = np.lib.format.read_array_header_2_0(file)
    else:
        raise Damaged(f"an array of the version {version}")
    dtype = found[2]
    is_bfloat16 = dtype.kind == "V" and dtype.itemsize == 2 and not dtype.names
    if dtype.kind not in "biufc" and not is_bfloat16:
        raise Damaged(f"an array of {re.sub(r'\s+', ' ', str(dtype))[:40]}, no numbers")
    return found
