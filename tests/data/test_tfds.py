import concurrent.futures
import dataclasses
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from cnn import data
from cnn.errors import UserError

CIFAR = pathlib.Path(__file__).parents[3] / "shared/tfds"
COUNTS = {"train": 23, "test": 7}


def make_pixels(split, shape=(6, 5, 3)):
    random = np.random.RandomState(COUNTS[split])
    return random.randint(0, 256, (COUNTS[split], *shape), dtype=np.uint8)


def encode_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_example(image, label):
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["label"].int64_list.value.append(label)
    feature["id"].bytes_list.value.append(b"x")
    return example.SerializeToString()


def write_array_record(path, records):
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def checksum(content):
    """Return the masked CRC-32C of TFRecord files, bit by bit."""
    register = 0xFFFFFFFF
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 * (register & 1))
    register ^= 0xFFFFFFFF
    turned = (register >> 15 | register << 17) + 0xA282EAD8
    return struct.pack("<I", turned & 0xFFFFFFFF)


def write_tfrecord(path, records):
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + checksum(length) + record + checksum(record))


WRITERS = {"array_record": write_array_record, "tfrecord": write_tfrecord}


def write_json(directory, file_format, shards, size=(6, 5, 3), image="Image"):
    """Write what tensorflow-datasets writes beside the records."""
    module = "tensorflow_datasets.core.features."
    dimensions = {"dimensions": [str(n or "-1") for n in size]}
    images = {
        "Image": {
            "pythonClassName": module + "image_feature.Image",
            "image": {"shape": dimensions, "dtype": "uint8", "encodingFormat": "png"},
        },
        "Text": {"pythonClassName": module + "text_feature.Text", "text": {}},
    }
    features = {
        "id": images["Text"],
        "image": images[image],
        "label": {
            "pythonClassName": module + "class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "3"},
        },
    }
    features = {
        "pythonClassName": module + "features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    splits = [
        {
            "name": split,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "numBytes": "1",
            "shardLengths": [str(length) for length in lengths],
        }
        for split, lengths in shards.items()
    ]
    info = {
        "name": "tiny",
        "version": directory.name,
        "fileFormat": file_format,
        "splits": splits,
    }
    (directory / "features.json").write_text(json.dumps(features))
    (directory / "dataset_info.json").write_text(json.dumps(info))
    (directory / "label.labels.txt").write_text("ant\nbee\ncow\n")


def prepare(
    root, file_format, name="tiny/1.0.0", pixels=None, encode=encode_png, **arguments
):
    """Prepare a dataset of two splits, the training split in two shards."""
    directory = root / name
    directory.mkdir(parents=True)
    shards = {"train": [10, 13], "test": [7]}
    for split, lengths in shards.items():
        images = make_pixels(split) if pixels is None else [pixels] * COUNTS[split]
        records = [make_example(encode(x), i % 3) for i, x in enumerate(images)]
        for number, length in enumerate(lengths):
            shard = f"{number:05}-of-{len(lengths):05}"
            path = directory / f"tiny-{split}.{file_format}-{shard}"
            WRITERS[file_format](path, records[:length])
            records = records[length:]
    write_json(directory, file_format, shards, **arguments)
    return directory


def load(root, name="tiny", **options):
    options = data.DataOptions(dataset=f"tfds:{name}", data_dir=str(root), **options)
    return data.load_dataset(options)


def read(part):
    return part.read(np.arange(len(part)))


@pytest.fixture(params=WRITERS)
def root(tmp_path, request):
    prepare(tmp_path, request.param)
    return tmp_path


@pytest.mark.parametrize("resident", ["always", "never"])
def test_examples_come_back(root, resident):
    dataset = load(root, resident=resident)
    assert dataset.class_names == ("ant", "bee", "cow")
    np.testing.assert_array_equal(read(dataset.train), make_pixels("train"))
    np.testing.assert_array_equal(read(dataset.test), make_pixels("test"))
    np.testing.assert_array_equal(dataset.train.labels, np.arange(23) % 3)
    some = np.array([22, 3, 9, 10, 3])
    np.testing.assert_array_equal(dataset.train.read(some), make_pixels("train")[some])


def test_slices(root):
    dataset = load(
        root,
        train_split="train[:8]+train[12:20]",
        validation_split="train[20:]",
        test_split="test[50%:]",
        resident="never",
    )
    pixels, places = make_pixels("train"), [*range(8), *range(12, 20)]
    np.testing.assert_array_equal(read(dataset.train), pixels[places])
    np.testing.assert_array_equal(dataset.train.labels, np.array(places) % 3)
    np.testing.assert_array_equal(read(dataset.validation), pixels[20:])
    assert len(dataset.test) in (3, 4)


def test_many_threads_may_read(root):
    part, pixels = load(root, resident="never").train, make_pixels("train")
    places = [np.random.RandomState(i).permutation(23) for i in range(64)]
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        for found, place in zip(executor.map(part.read, places), places, strict=True):
            np.testing.assert_array_equal(found, pixels[place])


@pytest.mark.parametrize("split", ["tset", "train[:x]", "train[%]", "", "test[:0]"])
def test_bad_splits(root, split):
    with pytest.raises(UserError, match="--test_split=.*(train, test|no example)"):
        load(root, test_split=split)


def test_layout(root):
    assert load(root, image_size=4, channels=1).train.shape == (4, 4, 1)


def test_no_tensorflow_is_imported(root):
    code = (
        "import sys, cnn.data as d;"
        f"d.load_dataset(d.DataOptions(dataset='tfds:tiny', data_dir={str(root)!r}));"
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_names_answer_at_once(root):
    started = time.monotonic()
    with pytest.raises(UserError, match="did you mean tfds:tiny.*tfds build tin "):
        load(root, "tin")
    with pytest.raises(UserError, match="not prepared.*tfds build mnist --data_dir="):
        load(root, "mnist")
    with pytest.raises(UserError, match="version 2.0.0 .*prepared: 1.0.0"):
        load(root, "tiny:2.0.0")
    with pytest.raises(UserError, match="write tfds:NAME"):
        load(root, "../tiny")
    with pytest.raises(UserError, match="not prepared in --data_dir=.*/no"):
        load(root / "no")
    assert time.monotonic() - started < 5


def test_versions_and_configurations(tmp_path):
    for version in ("1.2.0", "1.10.0"):
        prepare(tmp_path, "tfrecord", f"tiny/{version}")
    prepare(tmp_path, "tfrecord", "other/small/1.0.0")
    pathlib.Path(tmp_path / "tiny/1.2.0/label.labels.txt").write_text("x\ny\nz\n")
    assert load(tmp_path).class_names == ("ant", "bee", "cow")
    assert load(tmp_path, "tiny:1.2.0").class_names == ("x", "y", "z")
    assert len(load(tmp_path, "other").train) == 23
    assert len(load(tmp_path, "other/small:1.0.0").train) == 23
    prepare(tmp_path, "tfrecord", "other/large/1.0.0")
    with pytest.raises(UserError, match="tfds:other/large, tfds:other/small"):
        load(tmp_path, "other")


def test_images_that_differ_in_size(tmp_path):
    prepare(tmp_path, "tfrecord", size=(None, None, 3))
    with pytest.raises(UserError, match="--image_size"):
        load(tmp_path)
    assert load(tmp_path, image_size=4).train.shape == (4, 4, 3)


def test_images_that_are_not_as_promised(tmp_path):
    prepare(tmp_path, "tfrecord", size=(7, 7, 3))
    with pytest.raises(UserError, match=r"split train, example 0 .*\(6, 5, 3\)"):
        load(tmp_path).train.in_memory()


def test_no_image_feature(tmp_path):
    prepare(tmp_path, "tfrecord", image="Text")
    with pytest.raises(
        UserError, match="does not classify images.*'id', 'image', 'label'"
    ):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "gone", "fewer"])
def test_damaged_tfrecord(tmp_path, damage):
    directory = prepare(tmp_path, "tfrecord")
    path = directory / "tiny-train.tfrecord-00001-of-00002"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0] + 16
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-5] if damage == "cut" else content[:length])
    with pytest.raises(UserError, match=f"{path}.*prepare the dataset again"):
        load(tmp_path)


PLACES = {"length": 3, "checksum of it": 9, "data": 40, "checksum": -2}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("record", [0, 12])
def test_a_flipped_bit_of_a_tfrecord_file(tmp_path, place, record):
    path = prepare(tmp_path, "tfrecord") / "tiny-train.tfrecord-00001-of-00002"
    content, start = bytearray(path.read_bytes()), 0
    for _ in range(record):
        start += struct.unpack_from("<Q", content, start)[0] + 16
    end = start + struct.unpack_from("<Q", content, start)[0] + 16
    content[(end if PLACES[place] < 0 else start) + PLACES[place]] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}, record {record}: .*checksum.*again"):
        load(tmp_path)


def test_records_that_change_while_they_are_streamed(root):
    train = load(root, resident="never").train
    (path,) = root.rglob("*train*00001-of-00002")
    before = path.read_bytes()
    records = [make_example(encode_png(make_pixels("test")[0]), 1)] * 13
    WRITERS[path.name.split(".")[1].split("-")[0]](path, records)
    with pytest.raises(UserError, match=f"{path}, record|has changed"):
        train.read(np.array([12]))
    path.write_bytes(before)
    np.testing.assert_array_equal(read(train), make_pixels("train"))
    os.truncate(path, 100)
    with pytest.raises(UserError, match=str(path)):
        train.read(np.array([12]))


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("length", ["12", "14", "0", str(10**12), "-1", "x"])
def test_lengths_that_are_not_those_of_the_files(root, length):
    (path,) = root.rglob("dataset_info.json")

    def change(info):
        info["splits"][0]["shardLengths"][1] = length

    edit_json(path, change)
    with pytest.raises(UserError, match="promises|shardLengths"):
        load(root)


def test_features_of_other_packages_are_not_imported(root):
    (path,) = root.rglob("features.json")
    text = "tensorflow_datasets.core.features.text_feature.Text"
    path.write_text(path.read_text().replace(text, "antigravity.Text"))
    with pytest.raises(UserError, match=f"{path} names the class 'antigravity.Text'"):
        load(root)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "names", [b"ant\nbee\n", b"ant\nbee\nant\n", b"\xff\nb\nc", b""]
)
def test_names_of_classes_that_do_not_fit(root, names):
    (path,) = root.rglob("label.labels.txt")
    path.write_bytes(names)
    with pytest.raises(UserError, match=f"{path} does not name the classes"):
        load(root)


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[" * 10**5, b"\xff", b"[]", b"{}"])
def test_descriptions_that_are_none(root, name, content):
    (path,) = root.rglob(name)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.parent}.*damaged.*again"):
        load(root)


def test_images_that_claim_to_be_huge(root):
    (path,) = root.rglob("features.json")
    path.write_text(path.read_text().replace('"6"', '"1000000000000"'))
    with pytest.raises(UserError, match="by features.json, and at most"):
        load(root)


def test_damaged_array_record(tmp_path):
    directory = prepare(tmp_path, "array_record")
    path = directory / "tiny-train.array_record-00001-of-00002"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="prepare the dataset again"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="prepare the dataset again"):
        load(tmp_path)


RECORDS = {"nonsense": b"\xff\xff", "empty": b"", "no image": make_example(b"", 1)}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_damaged_records(tmp_path, record):
    directory = prepare(tmp_path, "tfrecord")
    write_tfrecord(directory / "tiny-test.tfrecord-00000-of-00001", [record] * 7)
    with pytest.raises(UserError, match="test, example .*prepare the dataset again"):
        load(tmp_path).test.in_memory()


def test_label_outside_the_classes(tmp_path):
    directory = prepare(tmp_path, "tfrecord")
    record = make_example(encode_png(make_pixels("test")[0]), 8)
    write_tfrecord(directory / "tiny-test.tfrecord-00000-of-00001", [record] * 7)
    with pytest.raises(UserError, match="test example 0 has label 8, outside 0..2"):
        load(tmp_path)


@pytest.mark.skipif(not CIFAR.exists(), reason="the real dataset is absent")
def test_cifar10():
    dataset = load(CIFAR, "cifar10_jpeg", resident="never")
    assert len(dataset.train) == 50000 and dataset.train.shape == (32, 32, 3)
    assert np.bincount(dataset.train.labels).tolist() == [5000] * 10
    from tensorflow_datasets import builder_from_directory

    builder = builder_from_directory(CIFAR / "cifar10_jpeg/1.0.0")
    source = builder.as_data_source(split="train")
    for i in (0, 17, 49999):
        example = source[i]
        np.testing.assert_array_equal(
            dataset.train.read(np.array([i]))[0], example["image"]
        )
        assert dataset.train.labels[i] == example["label"]


def test_what_is_evaluated_is_read_once_and_alone(root):
    options = data.DataOptions(dataset="tfds:tiny", data_dir=str(root))
    slices = {"train_split": "train[:90%]", "validation_split": "train[50%:]"}
    sliced = dataclasses.replace(options, **slices)
    for own_classes in ((), None):
        whole = data.load_evaluated(sliced, "all", own_classes)
        assert len(whole.images) == 30 and whole.is_whole
    train, test = load(root).train, load(root).test
    both = np.concatenate([read(train), read(test)])
    np.testing.assert_array_equal(read(whole.images), both)
    part = data.load_evaluated(sliced, "validation", None)
    np.testing.assert_array_equal(read(part.images), read(train)[12:])
    absent = dataclasses.replace(options, train_split="absent")
    alone = data.load_evaluated(absent, "test", None)
    np.testing.assert_array_equal(read(alone.images), read(test))
    with pytest.raises(UserError, match="has only train, test"):
        data.load_evaluated(options, "validation", None)


def test_class_named_like_a_formula(tmp_path):
    directory = prepare(tmp_path, "array_record")
    (directory / "label.labels.txt").write_text("ant\n=bee\ncow\n")
    with pytest.raises(UserError, match="'=bee' begins with ="):
        load(tmp_path)
