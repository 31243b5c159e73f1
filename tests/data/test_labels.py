"""Several labels an image: read from each source, divided, selected, recognised."""

import json

import numpy as np
import pytest
from data import test_tfds
from PIL import Image

from cnn import data
from cnn.data import choose, identity, labels
from cnn.data.images import from_array, number_examples
from cnn.errors import UserError

PIXELS = np.random.RandomState(0).randint(0, 256, (20, 4, 6), dtype=np.uint8)
MATRIX = np.array([[i % 2, i % 3 == 0, i % 5 == 0] for i in range(20)], np.uint8)


def load(name, **options):
    return data.load_dataset(data.DataOptions(dataset=name, **options))


def write_npz(root, **arrays):
    parts = {"x_train": PIXELS, "y_train": MATRIX}
    parts |= {"x_test": PIXELS[:8], "y_test": MATRIX[:8]}
    np.savez(root / "data.npz", **parts | arrays)
    return f"npz:{root}/data.npz"


def write_csv(root, header, cells):
    rows = []
    for i, cell in enumerate(cells):
        Image.fromarray(PIXELS[i]).save(root / f"{i}.png")
        rows.append(f"{i}.png,{cell},{'test' if i % 4 == 3 else 'train'}")
    text = "\n".join([f"path,{header},split", *rows])
    (root / "list.csv").write_text(text)
    return f"csv:{root}/list.csv"


def name_labels(part, class_names):
    return [labels.write(x, class_names) for x in labels.to_lists(part.labels)]


def test_csv_with_several_labels_a_cell(tmp_path):
    name = write_csv(tmp_path, "label", ["b|a", "", " c ", "a", "a | b", "b", "", ""])
    dataset = load(name)
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.train.labels.dtype == np.uint8
    written = name_labels(dataset.train, dataset.class_names)
    assert written == ["a|b", "", "c", "a|b", "b", ""]
    assert dataset.notes[0] == "train 6 labels of 3 classes: a 2, b 3, c 1"
    said = "task      multilabel: a training image has 0 to 2 labels, 1.00 on average"
    assert said in dataset.notes
    found = data.load_evaluated(data.DataOptions(dataset=name), "test", None)
    assert name_labels(found.images, found.class_names) == ["a", ""]
    assert data.has_several_labels(data.DataOptions(dataset=name))


CELLS = ["a;b", "b", "c", "a;b", "b"]


@pytest.mark.parametrize(
    "header, cells, task, expected",
    [
        ("labels", CELLS, "auto", ("a", "b", "c")),
        ("label", CELLS, "multilabel", ("a", "b", "c")),
        ("label", CELLS, "auto", ("a;b", "b", "c")),
        ("labels", CELLS, "multiclass", ("a;b", "b", "c")),
        ("label", ["a|b", "b", "a", "b"], "multiclass", ("a", "a|b", "b")),
        ("labels", ["a;b|c", "c", "c", "c"], "auto", ("a;b", "c")),
    ],
)
def test_what_separates_labels_in_csv(tmp_path, header, cells, task, expected):
    dataset = load(write_csv(tmp_path, header, cells), task=task)
    assert dataset.class_names == expected
    several = task != "multiclass" and (header == "labels" or task == "multilabel")
    assert labels.are_several(dataset.train.labels) == several


@pytest.mark.parametrize(
    "header, cells, message",
    [
        ("label", ["a", "", "b", "a"], "line 3: label is empty; .* column labels"),
        ("labels", ["a|", "b", "a", "a"], "line 2: one of the labels 'a.' is empty"),
        ("labels", ["a|b", "b", "a", "a|d"], "line 5: label 'd' is no class"),
        ("labels", ["", "", "", ""], "no image has a label"),
        (
            "labels",
            ["a|b", "a|b", "b|a", "a"],
            "3 training images have the same labels",
        ),
    ],
)
def test_bad_labels_in_csv_are_refused(tmp_path, header, cells, message):
    with pytest.raises(UserError, match=message):
        load(write_csv(tmp_path, header, cells))


def test_task_chooses_between_label_and_labels(tmp_path):
    cells = ["a,a|b", "b,", "b,b", "a,a", "a,a|b", "b,b"]
    name = write_csv(tmp_path, "label,labels", cells)
    with pytest.raises(UserError, match="columns label and labels.*--task"):
        load(name)
    for task, written in (
        ("multiclass", ["a", "b", "b", "a", "b"]),
        ("multilabel", ["a|b", "", "b", "a|b", "b"]),
    ):
        dataset = load(name, task=task)
        assert name_labels(dataset.train, dataset.class_names) == written


def test_npz_with_matrices(tmp_path):
    names = np.array(["odd", "three", "five"])
    dataset = load(write_npz(tmp_path, class_names=names, y_test=MATRIX[:8] > 0))
    assert dataset.class_names == ("odd", "three", "five")
    np.testing.assert_array_equal(dataset.train.labels, MATRIX)
    np.testing.assert_array_equal(dataset.test.labels, MATRIX[:8])
    assert load(write_npz(tmp_path)).class_names == ("0", "1", "2")
    wider = load(write_npz(tmp_path), num_classes=5)
    assert len(wider.class_names) == 5 and not wider.train.labels[:, 3:].any()


ONE_HOT = np.eye(3, dtype=int)[np.arange(20) % 3]
BAD_NPZ = [
    ({"y_train": MATRIX * 2}, r"y_train\[0, 1\] is 2; a matrix of labels holds 1"),
    ({"y_test": MATRIX[:8, :2]}, r"y_train is \[N, 3\] but y_test \[N, 2\]"),
    ({"class_names": np.array(["a", "a", "b"])}, "each by another text"),
    ({"class_names": np.array(["a", "b"])}, "the 3 columns of the labels"),
    ({"class_names": np.array(["a|b", "b", "c"])}, "'a.b' is empty or has ."),
    ({"y_train": ONE_HOT, "y_test": ONE_HOT[:8]}, "--task=multiclass, or may have"),
]


@pytest.mark.parametrize("arrays, message", BAD_NPZ)
def test_bad_matrices_are_refused(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        load(write_npz(tmp_path, **arrays))


def test_task_says_what_rows_of_a_single_1_mean(tmp_path):
    name = write_npz(tmp_path, y_train=ONE_HOT, y_test=ONE_HOT[:8])
    one, several = load(name, task="multiclass"), load(name, task="multilabel")
    assert one.train.labels.tolist() == (np.arange(20) % 3).tolist()
    assert one.train.labels.dtype == np.int32
    np.testing.assert_array_equal(several.train.labels, ONE_HOT)
    with pytest.raises(UserError, match="--task=multiclass: train example 0 of .* 2"):
        load(write_npz(tmp_path), task="multiclass")


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_tfds_with_a_sequence_of_labels(tmp_path, file_format):
    directory = tmp_path / "tiny/1.0.0"
    directory.mkdir(parents=True)
    pixels = test_tfds.make_pixels("train")[:6]
    lists = [[0, 2], [], [1], [2, 1, 0], [1], [0]]
    test_tfds.write_json(directory, file_format, {"train": [6], "test": [6]})
    features = json.loads((directory / "features.json").read_text())
    inside = features["featuresDict"]["features"]
    module = "tensorflow_datasets.core.features.sequence_feature.Sequence"
    one = inside.pop("label")
    sequence = {"feature": one, "length": "-1"}
    inside["labels"] = {"pythonClassName": module, "sequence": sequence}
    (directory / "features.json").write_text(json.dumps(features))
    for name in ("label", "labels"):
        (directory / f"{name}.labels.txt").write_text("ant\nbee\ncow\n")
    for split in ("train", "test"):
        file = directory / f"tiny-{split}.{file_format}-00000-of-00001"
        records = [
            make_example(test_tfds.encode_png(image), own)
            for image, own in zip(pixels, lists, strict=True)
        ]
        test_tfds.WRITERS[file_format](file, records)
    dataset = load("tfds:tiny", data_dir=str(tmp_path))
    found = [x.tolist() for x in map(np.flatnonzero, dataset.train.labels)]
    assert found == [sorted(own) for own in lists]
    options = data.DataOptions(dataset="tfds:tiny", data_dir=str(tmp_path))
    assert data.has_several_labels(options)


def make_example(image, own):
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["labels"].int64_list.value.extend(own)
    feature["id"].bytes_list.value.append(b"x")
    return example.SerializeToString()


def test_classes_drop_other_labels_and_keep_every_image(tmp_path):
    dataset = load(write_npz(tmp_path), classes=(2, 0))
    np.testing.assert_array_equal(dataset.train.labels, MATRIX[:, [2, 0]])
    assert dataset.class_names == ("2", "0")


def make_images(count=300):
    random = np.random.RandomState(1)
    matrix = (random.rand(count, 4) < [0.5, 0.1, 0.02, 0.3]).astype(np.uint8)
    images = np.zeros((count, 1, 1, 1), np.uint8)
    return from_array(images, matrix, number_examples("train", count))


def test_validation_is_split_by_name_and_every_class_stays():
    train = make_images()
    options = data.DataOptions(validation_fraction=0.2)
    parts = choose.carve_validation({"train": train}, options, [])
    taken = set(parts["validation"].names)
    assert 30 < len(taken) < 90
    assert parts["train"].labels.any(axis=0).all()
    fewer = train.take(np.arange(1, 300))
    again = choose.carve_validation({"train": fewer}, options, [])["validation"]
    assert len(taken ^ set(again.names)) <= 1 + 4
    small, large = (
        set(choose.take_examples(train, data.DataOptions(train_examples=n)).names)
        for n in (50, 100)
    )
    assert len(small) == 50 and small < large


def test_record_notices_labels_that_changed(tmp_path):
    before = identity.make_record(load(write_npz(tmp_path)))
    assert before["parts"]["train"]["labels"][:3] == [[1, 2], [0], []]
    changed = MATRIX.copy()
    changed[1] = 0
    after = identity.make_record(load(write_npz(tmp_path, y_train=changed)))
    lines = identity.list_changes(before, after)
    assert lines == ["1 relabelled (train/1: 0, now no label)"]
    names = np.array(["a", "b", "c"])
    renamed = identity.make_record(load(write_npz(tmp_path, class_names=names)))
    assert "class 0 renamed to a" in identity.list_changes(before, renamed)
    one = identity.make_record(load(write_npz(tmp_path), task="multilabel"))
    assert identity.list_changes(before, one) == []
