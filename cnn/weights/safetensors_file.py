"""Safetensors files: the header is checked before anything is taken at its word.

A file is 8 bytes with the header's length, the header (JSON: name → dtype, shape,
offsets) and the numbers, without gaps or overlaps.
"""

import json
import math
import mmap
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from cnn.checkpoints import atomic
from cnn.errors import UserError

_MAX_HEADER = 100_000_000
_METADATA = "__metadata__"
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def load_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Load every tensor of a file, as views of it.

    Returns:
        Arrays by name, bfloat16 as `ml_dtypes.bfloat16`.

    Raises:
        UserError: the file is truncated, or its header lies.
    """
    problem = find_problem(path)
    if problem:
        raise UserError(f"{path} is truncated or no safetensors file: {problem}")
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop(_METADATA, None)
    numbers, arrays = memoryview(content)[start:], {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        array = np.frombuffer(numbers[first:last], _DTYPES[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
    return arrays


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that a file without problems says of itself."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found = header.get(_METADATA)
    texts = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in texts if isinstance(value, str)}


def save_safetensors(path: Path, arrays: dict[str, np.ndarray], mode: int = 0) -> None:
    """Save arrays by name; the file appears whole or not at all.

    Args:
        mode: as of `atomic.write_bytes`.
    """
    from safetensors.numpy import save

    atomic.write_bytes(path, save(arrays, {"format": "pt"}), mode)


def find_problem(path: Path) -> str:
    """Compare a file's header with the file; empty when nothing is wrong."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return f"its header claims {length:,} bytes of a file of {size:,}"
        if length > _MAX_HEADER:
            return f"its header claims {length:,} bytes; {_MAX_HEADER:,} are allowed"
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        return f"its header is no JSON ({error})"
    if not isinstance(header, dict):
        return "its header is no JSON object"
    header.pop(_METADATA, None)
    spans = []
    for name, entry in header.items():
        problem = _find_entry_problem(entry)
        if problem:
            return f"{name}: {problem}"
        spans.append((*entry["data_offsets"], name))
    end = 0
    for first, last, name in sorted(spans):
        if first != end:
            return f"{name} begins at byte {first}, where {end} is due"
        end = last
    if end != size - 8 - length:
        return f"its tensors end at byte {end} of {size - 8 - length}"
    return ""


def _find_entry_problem(entry: Any) -> str:
    if not isinstance(entry, dict) or {"dtype", "shape", "data_offsets"} - set(entry):
        return "dtype, shape or data_offsets is missing"
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
        return f"its dtype {entry['dtype']} is unknown"
    for numbers in (shape, offsets):
        is_list = isinstance(numbers, list) and len(numbers) <= 16
        if not is_list or any(type(n) is not int or n < 0 for n in numbers):
            return f"{numbers} are no sizes"
    if len(offsets) != 2:
        return f"{offsets} are no two offsets"
    length = math.prod(shape) * np.dtype(_DTYPES[entry["dtype"]]).itemsize
    if offsets[1] - offsets[0] != length:
        return f"shape {shape} takes {length} bytes, its offsets {offsets} are others"
    return ""


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found
