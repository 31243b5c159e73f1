import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from planted import load_torch_file
from torch_writer import (
    REBUILD,
    Called,
    Global,
    Stored,
    dump,
    tensor,
    write,
    write_older,
)

from cnn.errors import UserError
from cnn.weights import pickled

ROOT = Path(__file__).parent.parent.parent
LEGACY = ROOT / "tests" / "golden" / "legacy.pth"


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
    with pytest.raises(UserError, match="holds no weights"):
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
        b"\x80\x02\x82\x01.",
        b"\x80\x02(ctorch\nFloatStorage\no.",
        b"\x80\x02ctorch\nfloat32\n)R.",
        b"\x80\x02ctorch\nfloat32\nK\x01K\x02s.",
        b"\x80\x02}K\x01K\x02e.",
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
        tensor(Stored("Float", "0", 12), 0, (1,), (2**61,)),
        tensor(Stored("Float", "0", 12), 0, (0, 2**61), (1, 1)),
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


def test_a_record_that_claims_more_bytes_is_refused(tmp_path):
    path = write(tmp_path / "f", {"x": 1})
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02") + 20  # its length as it lies in the file
    content[start : start + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(UserError, match="compressed"):
        load_torch_file(path)


@pytest.mark.parametrize("views", [3, [3], [[1, [2], 0, 0]], {}, [(0, 0, -1, 0)]])
def test_a_damaged_file_of_the_oldest_form_is_refused(views, tmp_path):
    stored = dump(1) + dump((0, "cpu", Global("torch", "FloatStorage")))
    stored += (12).to_bytes(8, "little") + NUMBERS.tobytes() + dump(views)
    parts = {"storages": stored, "tensors": dump(0), "pickle": dump({})}
    with tarfile.open(tmp_path / "f", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(UserError, match="no weights" if views == {} else "truncated"):
        load_torch_file(tmp_path / "f")


def test_pairs_of_python_2_are_read(tmp_path):
    pairs = [["x", tensor(Stored("Float", "0", 12), 0, (12,), (1,))]]
    ordered = Called(Global("collections", "OrderedDict"), pairs)
    found = load_torch_file(write(tmp_path / "f", ordered, {"0": NUMBERS}))
    np.testing.assert_array_equal(found["x"], NUMBERS)


@pytest.mark.parametrize("name", ["torch._utils\n_rebuild_tensor_v2", "torch\nfloat32"])
def test_no_attribute_is_set(name, tmp_path):
    """What BUILD does to a state dict it must not do to our functions and types."""
    slots = b"N}X\x0c\x00\x00\x00__defaults__K\x05\x85s\x86b."
    with pytest.raises(UserError, match="holds no weights"):
        raw = b"\x80\x02c%b\n%b" % (name.encode(), slots)
        load_torch_file(write(tmp_path / "f", None, raw=raw))
    assert pickled._rebuild.__defaults__ is None and pickled._rebuild.__dict__ == {}
    assert np.dtype("float32") == np.float32


def test_storages_of_what_is_not_read_have_their_size(tmp_path):
    """In older files numbers follow one another: each has to be stepped over."""
    sparse = Called(
        Global("torch._utils", "_rebuild_sparse_tensor"),
        Global("torch", "sparse_coo"),
        (tensor(Stored("Long", "a", 2), 0, (1, 2), (2, 1)), 3, 4),
    )
    whole = tensor(Stored("Float", "b", 12), 0, (12,), (1,))
    found = {"optimizer": {"s": sparse}, "model": {"x": whole}}
    path = write_older(tmp_path / "f", {"little_endian": True})
    with open(path, "ab") as file:
        file.write(dump(found) + dump(["a", "b"]))
        for array in (np.arange(2), NUMBERS):
            file.write(array.size.to_bytes(8, "little") + array.tobytes())
    np.testing.assert_array_equal(load_torch_file(path)["x"], NUMBERS)


def dump_storage(tmp_path, count=12, numbers=NUMBERS):
    """Return a storage as pickle.dump writes it, without torch.save around it."""
    inner = write_older(tmp_path / "inner", {"little_endian": True}).read_bytes()
    inner += dump(Stored("Float", "1", count)) + dump(["1"])
    inner += count.to_bytes(8, "little") + numbers.tobytes()
    return Called(Global("torch.storage", "_load_from_bytes"), inner)


def test_tensors_that_pickle_wrote_are_read(tmp_path):
    other = dump_storage(tmp_path, numbers=-NUMBERS)
    found = {
        "x": tensor(dump_storage(tmp_path), 1, (4, 2), (1, 4)),
        "y": tensor(other, 0, (12,), (1,)),
    }
    (tmp_path / "f").write_bytes(dump(found, 3))
    read = load_torch_file(tmp_path / "f")
    np.testing.assert_array_equal(read["x"], NUMBERS[1:9].reshape(2, 4).T)
    np.testing.assert_array_equal(read["y"], -NUMBERS)
    (tmp_path / "f").write_bytes(dump(found, 2))
    with pytest.raises(UserError, match="old protocol; save it with torch.save"):
        load_torch_file(tmp_path / "f")


@pytest.mark.parametrize(
    "content",
    [b"", b"x", pickle.dumps([]) * 5, dump(Called(REBUILD, 1)) * 5],
)
def test_damaged_storages_that_pickle_wrote_are_refused(content, tmp_path):
    called = Called(Global("torch.storage", "_load_from_bytes"), content)
    for storage in (called, dump_storage(tmp_path, 10**12)):
        thing = {"x": tensor(storage, 0, (12,), (1,))}
        (tmp_path / "f").write_bytes(dump(thing, 3))
        with pytest.raises(UserError, match="truncated or no PyTorch file"):
            load_torch_file(tmp_path / "f")


@pytest.mark.parametrize("parts", [("", {}, []), ({}, {}, 3), ({}, {}, [3]), ({}, {})])
def test_a_damaged_older_file_is_refused(parts, tmp_path):
    with pytest.raises(UserError, match="truncated or no PyTorch file"):
        load_torch_file(write_older(tmp_path / "f", *parts))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_changed_bytes_are_read_or_refused(form, tmp_path):
    tensors = {"x": tensor(Stored("Float", "0", 12), 0, (12,), (1,))}
    whole = (
        LEGACY if form == "legacy" else write(tmp_path / "z", tensors, {"0": NUMBERS})
    )
    content, random = whole.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        for place in random.integers(0, len(changed), random.integers(1, 5)):
            changed[place] = random.integers(0, 256)
        (tmp_path / "f").write_bytes(changed)
        try:
            load_torch_file(tmp_path / "f")
        except UserError:
            pass


def nest(count, item=b")"):
    """Return a tuple that holds itself twice, `count` times over: 2^count leaves."""
    twice = b"".join(
        b"r%bj%b\x86" % (2 * (struct.pack("<I", i),)) for i in range(count)
    )
    return item + twice


STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00"
    b"\x00cpuK\x0ctQ"
)
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE
PAIRS = (
    b"](" + b"".join(b"M%bN\x86" % struct.pack("<H", i) for i in range(20000)) + b"e"
)
LEGACY_START = b"".join(
    pickle.dumps(x, 2)
    for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {})
)
BOMBS = {
    "memo": b"\x80\x02K\x01r\xff\xff\xff\x07.",
    "huge memo": b"\x80\x02K\x01r\xff\xff\xff\xff.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"K\x01.",
    "bytes": b"\x80\x03B\xff\xff\xff\xff.",
    "bytes8": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "text": b"\x80\x02X\xff\xff\xff\xff.",
    "text8": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "bytearray8": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "deep list": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "deep key": b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s.",
    "wide key": b"\x80\x02}" + nest(60) + b"K\x01s.",
    "wide keys": b"\x80\x02}(" + nest(60) + b"K\x01u.",
    "wide key of a pair": b"\x80\x02ccollections\nOrderedDict\n]("
    + nest(60)
    + b"N\x86e\x85R.",
    "text in a key": b"\x80\x02}("
    + b"X\x00\x00\x01\x00"
    + b"a" * 65536
    + b"q\x00"
    + b"h\x00" * 65536
    + b"tK\x01s.",
    "pairs given again": b"\x80\x02"
    + PAIRS
    + b"q\x00ccollections\nOrderedDict\nq\x01]("
    + b"h\x01h\x00\x85R" * 20000
    + b"e.",
    "wide offset": b"\x80\x02" + TENSOR + nest(60) + b"))tR.",
    "wide size": b"\x80\x02" + TENSOR + b"K\x00" + nest(60) + b"\x85)tR.",
    "wide storage": b"\x80\x02"
    + STORAGE.replace(b"X\x01\x00\x00\x000", nest(60))
    + b".",
    "wide name": b"\x80\x04" + nest(60) + b"\x8c\x01a\x93.",
    "wide key of the older form": LEGACY_START
    + b"\x80\x02]"
    + nest(60)
    + b"a."
    + b"\0" * 9,
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Return what came of loading each bomb, in both forms, under limits."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = {}
    for number, (name, raw) in enumerate(BOMBS.items()):
        zipped, plain = folder / f"{number}.zip", folder / f"{number}.pth"
        paths[name, "zip"], paths[name, "plain"] = write(zipped, None, raw=raw), plain
        plain.write_bytes(raw)
    script = Path(__file__).parent / "planted.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), *map(str, paths.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    return {key: lines[str(path)] for key, path in paths.items()}


@pytest.mark.parametrize("form", ["zip", "plain"])
@pytest.mark.parametrize("name", BOMBS)
def test_no_file_takes_memory_it_does_not_cover(name, form, outcomes):
    assert outcomes[name, form].startswith("UserError"), outcomes[name, form]
    assert len(outcomes[name, form]) < 1000
