import io
import zipfile

import numpy as np
import pytest

from cnn import data
from cnn.data import npz
from cnn.errors import UserError


def make_arrays(**changes):
    random = np.random.RandomState(0)
    arrays = {
        "x_train": random.randint(0, 256, (20, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": random.randint(0, 256, (8, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
    }
    arrays.update(changes)
    return {name: array for name, array in arrays.items() if array is not None}


def load(tmp_path, arrays, **options):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return data.load_dataset(data.DataOptions(dataset=f"npz:{path}", **options))


def read(part):
    return part.read(np.arange(len(part)))


def test_arrays_come_back(tmp_path):
    arrays = make_arrays()
    dataset = load(tmp_path, arrays)
    np.testing.assert_array_equal(read(dataset.train), arrays["x_train"])
    np.testing.assert_array_equal(dataset.test.labels, arrays["y_test"])
    assert dataset.class_names == ("0", "1", "2", "3")
    assert dataset.validation is None


def test_validation_set_and_grey_images(tmp_path):
    grey = {
        name: np.zeros((n, 6, 5), np.uint8)
        for name, n in [("x_train", 20), ("x_test", 8), ("x_val", 4)]
    }
    dataset = load(tmp_path, make_arrays(**grey, y_val=np.arange(4)))
    assert dataset.train.shape == (6, 5, 1)
    assert len(dataset.validation) == 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_floats_convert_exactly(tmp_path, dtype):
    arrays = make_arrays()
    floats = {
        name: (arrays[name] / 255).astype(dtype) for name in ("x_train", "x_test")
    }
    dataset = load(tmp_path, make_arrays(**floats))
    np.testing.assert_array_equal(read(dataset.train), arrays["x_train"])


@pytest.mark.parametrize(
    ("labels", "missing"),
    [(np.arange(20) % 4 + 1, "class 0: its labels are 1 to 4"), ([0, 3, 5, 5], "")],
)
def test_classes_without_an_image_are_said(tmp_path, labels, missing):
    labels = np.resize(labels, 20)
    dataset = load(tmp_path, make_arrays(y_train=labels))
    (note,) = dataset.notes
    assert f"y_train has no image of {missing or 'classes 1, 2, 4: '}" in note
    options = data.DataOptions(dataset=f"npz:{tmp_path}/data.npz")
    found = data.load_evaluated(options, "train", None)
    assert found.notes[0].startswith(f"{tmp_path}/data.npz has no image of class")


PIXELS = make_arrays()["x_train"]
BAD = {
    "objects": ({"x_train": np.array([None] * 20)}, "x_train holds Python objects"),
    "object labels": ({"y_train": np.array([1, "a"], object)}, "never unpickled"),
    "missing": ({"y_test": None}, "lacks y_test"),
    "half a validation set": ({"x_val": PIXELS}, "lacks y_val"),
    "flat": ({"x_train": np.zeros((20, 90), np.uint8)}, r"\[N, H, W\]"),
    "channels first": ({"x_train": np.zeros((20, 3, 6, 5), np.uint8)}, "channels last"),
    "255 as float": ({"x_train": PIXELS.astype(np.float32)}, r"\[0, 1\]"),
    "nan": ({"x_train": np.full((20, 6, 5, 3), np.nan)}, "holds nan"),
    "int images": ({"x_train": PIXELS.astype(np.int64)}, "is int64"),
    "lengths": ({"y_train": np.zeros(19, int)}, "20 images but y_train 19"),
    "float labels": ({"y_train": np.zeros(20)}, "whole numbers"),
    "one-hot": (
        {"y_train": np.eye(20, dtype=int)},
        "y_train is .N, 20. but y_test .N.; give both one form",
    ),
    "negative": ({"y_train": np.arange(20) - 3}, r"y_train\[0\] is -3"),
    "outside": ({"y_test": np.array([0] * 7 + [9])}, "test example 7 has label 9"),
    "empty": ({"x_test": PIXELS[:0], "y_test": np.zeros(0, int)}, "x_test is empty"),
    "one class": (
        {"y_train": np.zeros(20, int), "y_test": np.zeros(8, int)},
        "all 20 training images are of one class, 0",
    ),
    "shapes": ({"x_test": np.zeros((8, 7, 5, 3), np.uint8)}, "--image_size"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arrays(tmp_path, name):
    changes, message = BAD[name]
    with pytest.raises(UserError, match=message):
        load(tmp_path, make_arrays(**changes))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"<html>hello</html>"])
def test_bad_files(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no .npz archive or is damaged"):
        data.load_dataset(data.DataOptions(dataset=f"npz:{path}"))


def test_damaged_member(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, **make_arrays())
    content = bytearray(path.read_bytes())
    content[400:500] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(UserError, match="x_train is damaged"):
        data.load_dataset(data.DataOptions(dataset=f"npz:{path}"))


def test_pickled_file_is_not_loaded(tmp_path):
    path = tmp_path / "bad.npy"
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="archive"):
        data.load_dataset(data.DataOptions(dataset=f"npz:{path}"))


def test_single_array(tmp_path):
    path = tmp_path / "one.npy"
    np.save(path, PIXELS)
    with pytest.raises(UserError, match="single array"):
        data.load_dataset(data.DataOptions(dataset=f"npz:{path}"))


def test_array_that_claims_to_be_huge(tmp_path):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member,
        {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**6, 3)},
    )
    path = tmp_path / "bad.npz"
    np.savez(path, **make_arrays(x_train=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", member.getvalue())
    with pytest.raises(UserError, match="x_train is damaged"):
        data.load_dataset(data.DataOptions(dataset=f"npz:{path}"))


@pytest.mark.parametrize("shape", [(20, 6, 5, 1), (19, 6, 5, 3), (-20, 6, -5, 3)])
def test_array_that_claims_less_than_it_holds(tmp_path, shape):
    member, path = io.BytesIO(), tmp_path / "bad.npz"
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, fields)
    np.savez(path, **make_arrays(x_train=None))
    with zipfile.ZipFile(path, "a") as archive:
        pixels = make_arrays()["x_train"].tobytes() + b"more"
        archive.writestr("x_train.npy", member.getvalue() + pixels)
    with pytest.raises(UserError, match="x_train is damaged: .* the file 1,804"):
        data.load_dataset(data.DataOptions(dataset=f"npz:{path}"))


def test_array_that_does_not_fit_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(npz.machine, "get_memory", lambda: 1600)
    with pytest.raises(UserError, match="x_train takes 0.0 GiB .* the machine has"):
        load(tmp_path, make_arrays())


def test_forms_of_numbers(tmp_path):
    arrays = make_arrays()
    floats = np.asfortranarray(arrays["x_train"] / 255).astype(">f8")
    labels = arrays["y_train"].astype(">i2")
    dataset = load(tmp_path, make_arrays(x_train=floats, y_train=labels))
    np.testing.assert_array_equal(read(dataset.train), arrays["x_train"])
    fields = np.zeros(20, [("a", "u1")])
    with pytest.raises(UserError, match="whole numbers"):
        load(tmp_path, make_arrays(y_train=fields))


@pytest.mark.parametrize("header", [b"{'descr': '", b"{\0}", b"(" * 9, b""])
def test_header_that_is_no_description(tmp_path, header):
    path, length = tmp_path / "bad.npz", len(header).to_bytes(2, "little")
    np.savez(path, **make_arrays(x_train=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\0" + length + header)
    with pytest.raises(UserError, match="x_train is damaged"):
        data.load_dataset(data.DataOptions(dataset=f"npz:{path}"))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        data.load_dataset(data.DataOptions(dataset=f"npz:{tmp_path}/no.npz"))


def test_arrays_that_are_not_read_are_said(tmp_path):
    arrays = make_arrays(x_validation=np.zeros((1, 6, 5, 3), np.uint8))
    (note,) = load(tmp_path, arrays).notes
    assert "data.npz: x_validation not read" in note
    (note,) = load(tmp_path, make_arrays(class_names=np.array(list("abcd")))).notes
    assert "class_names not read" in note
    parts = {"x_val": arrays["x_test"], "y_val": arrays["y_test"]}
    assert load(tmp_path, make_arrays(**parts)).notes == ()
    labels = {
        f"y_{n}": np.eye(4, dtype=int)[arrays[f"y_{n}"]] for n in ("train", "test")
    }
    named = make_arrays(**labels, class_names=np.array(list("abcd")))
    assert "not read" not in str(load(tmp_path, named, task="multilabel").notes)
