"""What --drop_examples leaves out, and what stays as it is."""

import json

import numpy as np
import pytest
from fixtures_runs import TINY, make_setup, train_run

from cnn.checkpoints import workdir
from cnn.config import make_config
from cnn.data import DataOptions, dropped, load_dataset
from cnn.errors import UserError
from cnn.evaluation import evaluate
from cnn.runtime.terminal import Terminal

CHOICES = {"validation_fraction": 0.2, "train_examples": 300}


def load(path="", **changes):
    """Load the digits without those that a file names."""
    return load_dataset(DataOptions(**CHOICES | changes, drop_examples=str(path)))


@pytest.fixture(scope="module")
def whole():
    """Return the digits as they are chosen when nothing is left out."""
    return load()


def test_the_others_stay_where_they_are(whole, tmp_path):
    gone = [*whole.train.names[3:8], whole.validation.names[0]]
    (tmp_path / "list.txt").write_text("\n".join(gone))
    found = load(tmp_path / "list.txt")
    kept = [name for name in whole.train.names if name not in gone]
    assert list(found.train.names) == kept and len(kept) == 295
    assert list(found.validation.names) == list(whole.validation.names)
    assert list(found.test.names) == list(whole.test.names)
    positions = np.array([list(whole.train.names).index(name) for name in kept])
    np.testing.assert_array_equal(
        found.train.read(np.arange(295)), whole.train.read(positions)
    )
    assert found.notes[-1] == (
        f"dropped   5 of 300 training images (--drop_examples={tmp_path}/list.txt); 1 "
        "more that it names are not among them"
    )
    assert found.taken["dropped"] == sorted(gone)


@pytest.mark.parametrize(
    "text",
    [
        "id,label,rank\ndigits/1,2,1\ndigits/7,3,2\n",
        "\ufeffrank;ID\r\n1;digits/1\r\n\r\n2;digits/7\r\n",
        "label\tpath\n3\tdigits/1\n4\tdigits/7\n4\tdigits/7",
        "digits/1\ndigits/7\n\n",
        'x,id\n"a,b",digits/1\n"two\nlines",digits/7\n',
    ],
    ids=["csv", "semicolons", "tabs", "list", "quoted"],
)
def test_forms_of_the_file(text, tmp_path):
    (tmp_path / "file").write_text(text, newline="")
    everything = load_dataset(DataOptions())
    found = dropped.read(str(tmp_path / "file"), everything)
    assert found <= {"digits/1", "digits/7"} and len(found) == 2


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "digits/1\ndigits/9999\n",
            "1 example that digits does not train on: digits/9",
        ),
        ("", "names no example"),
        ("id,label\n", "names no example"),
        (None, "No such file"),
    ],
    ids=["unknown", "empty", "header", "absent"],
)
def test_what_is_refused(text, words, tmp_path):
    if text is not None:
        (tmp_path / "file").write_text(text)
    with pytest.raises(UserError, match=words):
        load(tmp_path / "file")


def test_neither_all_nor_all_but_a_class_are_left_out(whole, tmp_path):
    (tmp_path / "all").write_text("\n".join(whole.train.names))
    with pytest.raises(UserError, match="names all 300 training images"):
        load(tmp_path / "all")
    others = whole.train.names[whole.train.labels != 4]
    (tmp_path / "others").write_text("\n".join(others))
    with pytest.raises(UserError, match="are of one class, 4"):
        load(tmp_path / "others")


@pytest.fixture
def run(tmp_path):
    """Return a run without three images: where, the file of these, and its options."""
    names = make_setup(TINY).dataset.train.names[:3]
    (tmp_path / "drop.csv").write_text("\n".join(["id", *names]))
    options = {"drop_examples": str(tmp_path / "drop.csv"), "epochs": 1}
    options |= {"model": "logistic_regression", "dropout_rate": 0.0, "ema_decay": 0.0}
    return tmp_path / "run", tmp_path / "drop.csv", options


def test_a_run_says_what_it_left_out(run):
    directory, path, options = run
    train_run(directory, **options)
    stored = json.loads((directory / "dataset.json").read_text())
    names = path.read_text().split()[1:]
    assert stored["taken"]["dropped"] == sorted(names)
    assert not set(names) & set(stored["parts"]["train"]["names"])
    assert json.loads((directory / "config.json").read_text())["drop_examples"]
    # Another list makes other data, and what is trained on them is another run's.
    result = directory / "result.json"
    result.unlink()
    path.write_text("\n".join(["id", *names[:2]]))
    with pytest.raises(UserError, match="saw other data"):
        train_run(directory, **options)


def test_the_file_is_needed_for_training_images_alone(run):
    directory, path, options = run
    train_run(directory, **options)
    path.unlink()
    for split, is_refused in (("test", False), ("train", True)):
        stored = workdir.read_config(directory)
        config = make_config(stored, {"split": split})
        if is_refused:
            with pytest.raises(UserError, match="drop.csv: No such file"):
                evaluate.evaluate(config, directory, Terminal())
        else:
            found = evaluate.evaluate(config, directory, Terminal())
            assert found["trained_images"] == 0 and not found["dataset_changed"]
