import json

import ml_dtypes
import numpy as np
import pytest

from cnn.errors import UserError
from cnn.weights.safetensors_file import load_safetensors, save_safetensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.asarray(7, np.int64),
    "c": np.zeros((0, 2), np.float16),
}
X = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(path, header, data=b"\0" * 8, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + data)
    return path


def test_what_is_saved_is_loaded(tmp_path):
    save_safetensors(tmp_path / "f", ARRAYS)
    found = load_safetensors(tmp_path / "f")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_bfloat16_is_read(tmp_path):
    data = np.asarray([1.5, -2], ml_dtypes.bfloat16).tobytes()
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    found = load_safetensors(write(tmp_path / "f", {"x": entry}, data))
    assert found["x"].tolist() == [1.5, -2]


@pytest.mark.parametrize(
    "header",
    [
        {"x": X | {"shape": [3]}},
        {"x": X | {"shape": [2**40, 2**40]}},
        {"x": X | {"shape": [-2]}},
        {"x": X | {"shape": [2.0]}},
        {"x": X | {"shape": 2}},
        {"x": X | {"data_offsets": [0, 2**60]}},
        {"x": X | {"data_offsets": [8, 0]}},
        {"x": X | {"data_offsets": [0]}},
        {"x": X | {"dtype": "F33"}},
        {"x": X | {"dtype": ["F32"]}},
        {"x": X, "y": X},
        {"x": {"dtype": "F32"}},
        {"x": 3},
        {},
        [X],
        b"{",
        b"[" * 100_000,
        b'{"x": 1, "x": 1}',
    ],
)
def test_headers_that_lie_are_refused(header, tmp_path):
    with pytest.raises(UserError, match="truncated or no safetensors file"):
        load_safetensors(write(tmp_path / "f", header))


@pytest.mark.parametrize("length", [10**9, 2**63, 2**64 - 1, 0])
def test_lengths_that_lie_are_refused(length, tmp_path):
    with pytest.raises(UserError, match="header"):
        load_safetensors(write(tmp_path / "f", {"x": X}, length=length))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_truncated_files_are_refused(share, tmp_path):
    save_safetensors(tmp_path / "f", ARRAYS)
    content = (tmp_path / "f").read_bytes()
    (tmp_path / "f").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="truncated"):
        load_safetensors(tmp_path / "f")
