import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cnn.errors import UserError
from cnn.weights.torch_file import load_torch_file

LEGACY = Path(__file__).parent.parent / "golden" / "legacy.pth"


class Global:
    """Pickled as the name of something, as PyTorch's files do with its functions."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Called:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Stored:
    def __init__(self, kind, key, count):
        self.id = ("storage", Global("torch", f"{kind}Storage"), key, "cpu", count)


class Writer(pickle._Pickler):
    """Writes what torch.save writes, without PyTorch."""

    def save(self, thing, save_persistent_id=True):
        if isinstance(thing, Global):
            self.write(f"c{thing.module}\n{thing.name}\n".encode())
        elif isinstance(thing, Called):
            self.save(thing.function)
            self.save(thing.arguments)
            self.write(b"R")
        elif isinstance(thing, Stored):
            self.save(thing.id)
            self.write(b"Q")
        else:
            super().save(thing, save_persistent_id)


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def tensor(stored, offset, shape, strides):
    nothing = Called(Global("collections", "OrderedDict"))
    return Called(REBUILD, stored, offset, shape, strides, False, nothing)


def write(path, thing, storages=None, raw=None):
    if raw is None:
        stream = io.BytesIO()
        Writer(stream, 2).dump(thing)
        raw = stream.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", raw)
        for key, array in (storages or {}).items():
            archive.writestr(f"a/data/{key}", array.tobytes())
    return path


NUMBERS = np.arange(12, dtype=np.float32)


def test_old_files_and_wrappers_are_read():
    found = load_torch_file(LEGACY)
    whole = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert list(found) == ["a.weight", "a.view", "b", "n"]
    np.testing.assert_array_equal(found["a.weight"], whole)
    np.testing.assert_array_equal(found["a.view"], whole.T[1:])
    assert found["b"].dtype.name == "bfloat16" and found["b"].tolist() == [1.5, -2]
    assert found["n"].dtype == np.int64 and found["n"] == 7


def test_views_share_a_storage(tmp_path):
    stored = Stored("Float", "0", 12)
    tensors = {
        "all": tensor(stored, 0, (3, 4), (4, 1)),
        "turned": tensor(stored, 1, (4, 2), (1, 4)),
        "empty": tensor(stored, 0, (0, 4), (4, 1)),
    }
    found = load_torch_file(write(tmp_path / "f", {"model": tensors}, {"0": NUMBERS}))
    np.testing.assert_array_equal(found["all"], NUMBERS.reshape(3, 4))
    np.testing.assert_array_equal(found["turned"], NUMBERS[1:9].reshape(2, 4).T)
    assert found["empty"].shape == (0, 4)


@pytest.mark.parametrize("kind", ["Double", "Half", "Long", "Int", "Byte", "Bool"])
def test_every_dtype_is_read(kind, tmp_path):
    names = {"Double": "f8", "Half": "f2", "Long": "i8", "Int": "i4", "Byte": "u1"}
    array = np.asarray([1, 0, 1], names.get(kind, "?"))
    tensors = {"x": tensor(Stored(kind, "0", 3), 0, (3,), (1,))}
    found = load_torch_file(write(tmp_path / "f", tensors, {"0": array}))["x"]
    assert found.dtype == array.dtype and found.tolist() == array.tolist()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "plain"])
def test_code_is_refused_by_name_and_does_not_run(form, tmp_path):
    proof, path = tmp_path / "proof", tmp_path / "f.pth"
    raw = pickle.dumps({"state_dict": Evil(proof)})
    write(path, None, raw=raw) if form == "zip" else path.write_bytes(raw)
    with pytest.raises(UserError, match="posix.mkdir.*nothing of it was run"):
        load_torch_file(path)
    assert not proof.exists()
    pickle.loads(raw)
    assert proof.exists(), "the file would have done nothing anyway"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x02cbuiltins\neval\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02i\nos\nsystem\n.",
        b"(S'x'\nios\nsystem\n.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        b"\x80\x02\x8a\xff.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"",
        b"\x80",
        b"K\x01K\x02R.",
        b"}}K\x01s.",
        b"h\x05.",
    ],
)
def test_any_other_pickle_is_refused(raw, tmp_path):
    with pytest.raises(UserError):
        load_torch_file(write(tmp_path / "f", None, raw=raw))


@pytest.mark.parametrize(
    "thing",
    [
        tensor(Stored("Float", "0", 12), 0, (4, 4), (4, 1)),
        tensor(Stored("Float", "0", 12), 9, (4,), (1,)),
        tensor(Stored("Float", "0", 12), 0, (2,), (-1,)),
        tensor(Stored("Float", "0", 10**15), 0, (2,), (1,)),
        tensor(Stored("Float", "1", 12), 0, (2,), (1,)),
        tensor(Stored("Float", "0", 12), 0, (2**62, 2**62), (1, 1)),
        tensor(Stored("Float", "0", 12), 0, (2, 2), (1,)),
        tensor("0", 0, (2,), (1,)),
        3.5,
        "text",
    ],
)
def test_tensors_beyond_their_storage_are_refused(thing, tmp_path):
    with pytest.raises(UserError):
        load_torch_file(write(tmp_path / "f", {"x": thing}, {"0": NUMBERS}))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_truncated_files_are_refused(form, share, tmp_path):
    path, cut = tmp_path / "f", tmp_path / "cut.pth"
    tensors = {"x": tensor(Stored("Float", "0", 12), 0, (12,), (1,))}
    whole = LEGACY if form == "legacy" else write(path, tensors, {"0": NUMBERS})
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="truncated or no PyTorch file"):
        load_torch_file(cut)


def test_compressed_records_are_refused(tmp_path):
    path = tmp_path / "f"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 10**6)
    with pytest.raises(UserError, match="compressed|longer than the file"):
        load_torch_file(path)
