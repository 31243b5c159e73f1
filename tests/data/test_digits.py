import gzip
import hashlib
import importlib.util
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
import sklearn

from cnn import data
from cnn.data import digits
from cnn.errors import UserError

TRAIN = "6612d0a064c751fd7079814cd865c2d615efca2a3c305c612a4b5f50d85d97ad"
TEST = "eb33daa4a6fa9662340916fc06c6496d7fcc2d666ea677c26e4ccd0a62cbdc8c"


def test_arrays_are_pinned():
    dataset = data.load_dataset(data.DataOptions())
    assert dataset.class_names == tuple("0123456789")
    assert dataset.validation is None
    for part, count, pinned in [
        (dataset.train, 1437, TRAIN),
        (dataset.test, 360, TEST),
    ]:
        images = part.read(np.arange(len(part)))
        assert images.shape == (count, 8, 8, 1) and images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        content = images.tobytes() + part.labels.tobytes()
        assert hashlib.sha256(content).hexdigest() == pinned


def test_split_is_that_of_scikit_learn():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    known = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        known.images, known.target, test_size=360, stratify=known.target, random_state=0
    )
    dataset = digits.load("", data.DataOptions())
    for part, x, y in [
        (dataset.train, x_train, y_train),
        (dataset.test, x_test, y_test),
    ]:
        images = part.read(np.arange(len(part)))[..., 0]
        np.testing.assert_array_equal(images, np.floor(x * 255 / 16 + 0.5))
        np.testing.assert_array_equal(part.labels, y)


def test_loading_imports_nothing_slow():
    code = (
        "import sys, cnn.data as d; d.load_dataset(d.DataOptions());"
        "slow = {'sklearn', 'PIL', 'tensorflow_datasets', 'jax'} & set(sys.modules);"
        "sys.exit(', '.join(slow) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_resizing_and_colour():
    options = data.DataOptions(image_size=12, channels=3)
    dataset = data.load_dataset(options)
    assert dataset.train.shape == dataset.test.shape == (12, 12, 3)
    image = dataset.train.read(np.array([5]))[0]
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_name_takes_no_path():
    with pytest.raises(UserError, match="--dataset=digits"):
        data.load_dataset(data.DataOptions(dataset="digits:x"))


def cut(content):
    return content[:1000]


def relabel(content):
    return gzip.compress(gzip.decompress(content)[:-2] + b"1\n")


@pytest.mark.parametrize("change", [cut, relabel, lambda content: b""])
def test_another_file_is_refused(tmp_path, monkeypatch, change):
    source = pathlib.Path(sklearn.__file__).parent / "datasets/data/digits.csv.gz"
    file = tmp_path / "datasets/data/digits.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(source.read_bytes())
    package = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    assert len(data.load_dataset(data.DataOptions()).train) == 1437
    file.write_bytes(change(source.read_bytes()))
    with pytest.raises(UserError, match=f"{file} .*reinstall"):
        data.load_dataset(data.DataOptions())
