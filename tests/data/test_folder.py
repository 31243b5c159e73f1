import os

import numpy as np
import pytest
from PIL import Image

from cnn import data
from cnn.data import files, identity
from cnn.errors import UserError

RANDOM = np.random.RandomState(0)


def write(path, size=(6, 6), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.randint(0, 256, (*size, 3), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels).save(path)


def write_tree(root, parts=("train", "test"), classes=("cat", "dog"), count=5):
    for part in parts:
        for label, name in enumerate(classes):
            for i in range(count):
                write(root / part / name / f"{i}.png", value=10 * label + i)


def load(root, **options):
    return data.load_dataset(data.DataOptions(dataset=f"folder:{root}", **options))


def read(part):
    return part.read(np.arange(len(part)))


@pytest.mark.parametrize("resident", ["always", "never"])
def test_train_and_test(tmp_path, resident):
    write_tree(tmp_path)
    dataset = load(tmp_path, resident=resident)
    assert dataset.class_names == ("cat", "dog") and dataset.validation is None
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 5
    values = read(dataset.train)[:, 0, 0, 0]
    assert values.tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert dataset.train.decoded == (resident == "always")


def test_val_beside_test_and_alone(tmp_path):
    write_tree(tmp_path / "three", ("train", "val", "test"))
    write_tree(tmp_path / "two", ("train", "val"), count=3)
    three, two = load(tmp_path / "three"), load(tmp_path / "two")
    assert len(three.validation) == len(three.test) == 10
    assert two.validation is None and len(two.test) == 6


def test_own_validation_set_is_not_carved(tmp_path):
    write_tree(tmp_path, ("train", "val", "test"))
    dataset = load(tmp_path, validation_fraction=0.2)
    assert len(dataset.train) == 10 and "not used" in dataset.notes[-1]


def test_class_folders_alone_are_split(tmp_path):
    write_tree(tmp_path, ("",), count=10)
    dataset = load(tmp_path)
    assert set(dataset.train.labels) == set(dataset.test.labels) == {0, 1}
    values = [*read(dataset.train)[:, 0, 0, 0], *read(dataset.test)[:, 0, 0, 0]]
    assert sorted(values) == list(range(20))
    again, other = load(tmp_path), load(tmp_path, split_seed=1)
    np.testing.assert_array_equal(read(again.test), read(dataset.test))
    assert read(other.test).tolist() != read(dataset.test).tolist()


def test_endings_hidden_files_and_depth(tmp_path):
    write_tree(tmp_path, count=1)
    train = tmp_path / "train" / "cat"
    for name in ["a.JPG", "b.Jpeg", "c.BMP", "d.webp", "deep/e.PNG"]:
        write(train / name)
    for name in [".hidden.png", ".git/f.png"]:
        write(train / name)
    (train / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".cache").mkdir()
    assert np.bincount(load(tmp_path).train.labels).tolist() == [6, 1]


def test_symlink_loop_ends(tmp_path):
    write_tree(tmp_path)
    os.symlink(tmp_path / "train", tmp_path / "train" / "cat" / "loop")
    os.symlink(tmp_path / "nowhere", tmp_path / "train" / "cat" / "broken")
    dataset = load(tmp_path)
    assert dataset.class_names == ("cat", "dog") and len(dataset.train) == 10
    assert dataset.taken["folders_left_out"] == ["train/cat/loop"]


def test_colour_decides_for_all(tmp_path):
    write_tree(tmp_path)
    Image.new("L", (6, 6), 77).save(tmp_path / "train/cat/0.png")
    assert load(tmp_path).train.shape == (6, 6, 3)
    for path in tmp_path.rglob("*.png"):
        Image.new("L", (6, 6), 77).save(path)
    assert load(tmp_path).train.shape == (6, 6, 1)


def test_sizes_must_agree_or_be_set(tmp_path):
    write_tree(tmp_path)
    write(tmp_path / "test/dog/9.png", size=(8, 6))
    with pytest.raises(UserError, match=r"train/cat/0.png .*test/dog/9.png .*image_si"):
        load(tmp_path)
    assert load(tmp_path, image_size=5).test.shape == (5, 5, 3)


def test_turned_images_count_as_upright(tmp_path):
    write_tree(tmp_path, count=1)
    for path in tmp_path.rglob("*.png"):
        write(path, size=(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 6)).save(tmp_path / "train/cat/1.jpg", exif=exif)
    assert load(tmp_path).train.shape == (4, 6, 3)


def make_bad(path, kind):
    write(path, size=(40, 40))
    content = path.read_bytes()
    bad = {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "disguised": b"<!doctype html><title>404</title>",
    }
    path.write_bytes(bad[kind])


@pytest.mark.parametrize("kind", ["empty", "truncated", "disguised"])
@pytest.mark.parametrize("resident", ["always", "never"])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp"])
def test_bad_images(tmp_path, kind, resident, ending):
    write_tree(tmp_path)
    path = tmp_path / f"train/dog/9.{ending}"
    make_bad(path, kind)
    with pytest.raises(UserError, match=f"train/dog/9.{ending}: .*--bad_images=skip"):
        load(tmp_path, resident=resident, image_size=6)
    dataset = load(tmp_path, resident=resident, image_size=6, bad_images="skip")
    assert len(dataset.train) == 10 and len(read(dataset.train)) == 10
    assert [bad.path for bad in dataset.excluded] == [str(path)]


def test_bad_images_leave_before_the_split(tmp_path):
    write_tree(tmp_path, ("",), count=10)
    expected = load(tmp_path)
    (tmp_path / "cat/00bad.png").write_bytes(b"")
    for resident in ("always", "never"):
        dataset = load(tmp_path, resident=resident, bad_images="skip")
        np.testing.assert_array_equal(read(dataset.test), read(expected.test))


def test_image_of_another_format_is_read(tmp_path):
    write_tree(tmp_path)
    source = tmp_path / "train/cat/0.png"
    source.rename(source.with_suffix(".jpg"))
    assert len(load(tmp_path).train) == 10


def test_damage_in_the_middle_shows_when_streamed(tmp_path):
    write_tree(tmp_path)
    path = tmp_path / "train/cat/0.png"
    content = bytearray(path.read_bytes())
    place = content.index(b"IDAT") + 4
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    dataset = load(tmp_path, resident="never", image_size=6)
    with pytest.raises(UserError, match="train/cat/0.png"):
        dataset.train.read(np.array([0]))


def test_class_with_bad_images_only(tmp_path):
    write_tree(tmp_path, count=1)
    (tmp_path / "train/dog/0.png").write_bytes(b"")
    with pytest.raises(UserError, match="class dog has no training image"):
        load(tmp_path, bad_images="skip")


COLOURS = ("blue", "green", "red", "white")
NUMBERS = tuple("0123456789")


def make(root, *paths):
    """Make a tree: `a/b` is a folder of two images, `a/b/` an empty one, or a file."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        elif path.endswith(".png"):
            write(root / path, value=0)
        elif "." in path:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text("no image")
        else:
            write_tree(root, (path,), ("",), 2)


def cross(parts, classes=COLOURS):
    return [os.path.join(part, name) for part in parts for name in classes]


READ = {
    "plain": (cross([""]), {}),
    "capitals": (cross(["Train", "TEST"]), {"train": 8, "test": 8}),
    "long names": (cross(["training", "validation"]), {"train": 8, "test": 8}),
    "sets": (cross(["train_set", "test-set"]), {"train": 8, "test": 8}),
    "one word": (cross(["trainset", "Dev Set"]), {"test": 8}),
    "three": (cross(["train", "valid", "testing"]), {"validation": 8, "test": 8}),
    "dev": (cross(["train", "dev", "test"]), {"validation": 8, "test": 8}),
    "wrapped classes": (cross(["flower_photos"]), {}),
    "wrapped parts": (cross(["a/b/train", "a/b/test"]), {"train": 8, "test": 8}),
    "archive": ([*cross(["a"]), "__MACOSX/a/0.png", ".cache/0.png"], {}),
    "texts beside": ([*cross(["images"]), "meta/classes.txt", "README.md"], {}),
    "texts beside parts": ([*cross(["train", "test"]), "doc/a.txt"], {"test": 8}),
    "within parts": (cross(["train/images", "test/flowers"]), {"test": 8}),
    "parts twice": (cross(["train/train", "test"]), {"train": 8, "test": 8}),
    "test of one": ([*cross(["train"]), "test/red"], {"train": 8, "test": 2}),
    "test of one, deep": ([*cross(["train"]), "test/red/a"], {"test": 2}),
    "empty test class": ([*cross(["train"]), "test/red", "test/blue/"], {"test": 2}),
    "nested": ([f"{name}/{x}" for name in COLOURS for x in "ab"], {}),
}


@pytest.mark.parametrize("title", READ)
def test_layouts_that_are_read(tmp_path, title):
    paths, sizes = READ[title]
    make(tmp_path, *paths)
    dataset = load(tmp_path)
    assert dataset.class_names == COLOURS
    for part, size in sizes.items():
        assert len(getattr(dataset, part)) == size
    options = data.DataOptions(dataset=f"folder:{tmp_path}")
    found = data.load_evaluated(options, "test", None)
    assert set(found.class_names) <= set(COLOURS)
    assert len(found.images) == sizes.get("test", len(dataset.train) + 4)


NESTED = [f"{name}/{part}" for name in COLOURS for part in ("train", "test")]
REFUSED = {
    "one class": (["red"], "one class, red"),
    "one class, wrapped": (["a/red"], "one class, red"),
    "one class in parts": (["train/red", "test/red"], "one class, red"),
    "no folder": (["0.png"], "1 image in no class folder"),
    "images beside classes": ([*cross([""]), "0.png"], "1 image in no class folder"),
    "images beside parts": ([*cross(["train", "test"]), "0.png"], "1 image beside"),
    "images in a part": ([*cross(["train"]), "test"], "test/: 2 images in no class"),
    "a class beside parts": ([*cross(["train", "test"]), "cats"], "cats/ beside"),
    "a class beside train": ([*cross(["train"]), "cats"], "cats/ beside"),
    "a part twice": (cross(["train", "Training", "test"]), "both mean the train part"),
    "an unknown part": (cross(["seg_train", "seg_test"]), "looks like a part"),
    "with a number": (cross(["train2017", "val2017"], "ab"), "looks like a part"),
    "in one word": (cross(["TrainImages", "TestImages"], "ab"), "looks like a part"),
    "other words": (cross(["A", "B"]), "look like parts: all hold blue, green"),
    "parts within classes": (NESTED, "holds parts"),
    "another part within a part": (cross(["train/test", "test"]), "looks like a part"),
    "class or wrapper": ([*cross(["cat"]), "dog/"], "dog/ beside it nothing"),
    "new test class": ([*cross(["train"]), "test/emu", "test/red"], "has emu"),
    "other case": (["train/Red", "train/x", "test/red"], "did you mean Red"),
    "empty class": ([*cross([""]), "emu/"], "emu/: the class folder holds no image"),
    "empty training class": (
        [*cross(["train", "test"]), "train/emu/", "test/emu"],
        "train/emu/: the class folder holds no image",
    ),
    "train alone": (cross(["train"]), "only .*train/"),
    "test alone": (cross(["test"]), "only .*test/"),
    "empty test part": ([*cross(["train"]), "test/red/"], "only .*train/"),
    "nothing": (["a/"], "no image"),
    "other endings": (["a/0.heic", "b/0.heic"], r"a/  0 images; .heic 1"),
    "one name twice": (["e\u0301", "\u00e9", "a"], "both called \u00e9"),
    "a formula": (["=1+1", "a"], "'=1\\+1' begins with ="),
    "an at": (["@a", "a"], "'@a' begins with @"),
}


@pytest.mark.parametrize("title", REFUSED)
def test_layouts_that_are_refused(tmp_path, title):
    paths, message = REFUSED[title]
    make(tmp_path, *paths)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path)
    if "formula" not in str(error.value):  # with the tree that was found
        assert f"  {tmp_path.name}/  " in str(error.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        load(tmp_path / "no")


def test_a_long_tree_is_shortened(tmp_path):
    make(tmp_path, "0.png", *cross(map(str, range(20)), NUMBERS))
    with pytest.raises(UserError) as error:
        load(tmp_path)
    text = str(error.value)
    assert text.count("\n") < 40 and "folders more" in text and "lines more" in text


def test_a_class_called_train_beside_others(tmp_path):
    make(tmp_path, "bus", "car", "train")
    dataset = load(tmp_path)
    assert dataset.class_names == ("bus", "car", "train")
    assert "train/ is a class" in dataset.notes[0]


def test_names_do_not_depend_on_a_folder_around(tmp_path):
    make(tmp_path / "a", *cross(["b"]))
    outer, inner = load(tmp_path / "a"), load(tmp_path / "a/b")
    assert outer.test.names.tolist() == inner.test.names.tolist()


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    make(tmp_path, "train/e\u0301", "train/a", "test/\u00e9", "test/a")
    assert load(tmp_path).class_names == ("a", "\u00e9")


def test_what_was_taken_is_said_and_recorded(tmp_path):
    texts = ["d/train/red/a.txt", "d/train/b.TXT", "d/c.csv", "d/LICENSE.", "d/.e.f"]
    make(tmp_path, *cross(["d/train", "d/test"]), *texts, "__MACOSX/0.png")
    make(tmp_path, "d/test/blue/1.bad.png")
    (tmp_path / "d/test/blue/1.bad.png").write_bytes(b"")
    dataset = load(tmp_path, bad_images="skip")
    assert identity.make_record(dataset)["taken"] == {
        "files": {
            "train": dict.fromkeys(COLOURS, 2),
            "test": {"blue": 3, "green": 2, "red": 2, "white": 2},
        },
        "entered": "d",
        "part_folders": {"train": "train", "test": "test"},
        "left_out": {".txt": 2, ".csv": 1, ".": 1},
        "folders_left_out": ["__MACOSX"],
        "unreadable": ["test/blue/1.bad.png"],
    }
    assert dataset.notes[:5] == (
        f"entered {tmp_path.name}/d/: every image is there",
        "left out 4 files by their ending: .txt 2, . 1, .csv 1",
        "left out 1 folder unseen: __MACOSX",
        "train 8 files of 4 classes: blue 2, green 2, red 2, white 2",
        "test 9 files of 4 classes: blue 3, green 2, red 2, white 2",
    )
    record = identity.make_record(dataset)
    assert "taken" not in identity.summarise(record)


def test_many_classes_are_counted_as_a_range(tmp_path):
    make(tmp_path, *cross(["train", "test"], NUMBERS), "test/10/", "test/x/")
    make(tmp_path, "train/10", "train/10/more.png")
    assert load(tmp_path).notes == (
        "train 23 files of 11 classes (2 to 3 a class)",
        "test 20 files of 10 classes (2 a class); no file of 10",
    )


def test_a_class_that_is_empty_is_said_by_evaluation(tmp_path):
    make(tmp_path, "test/a", "test/b/")
    options = data.DataOptions(dataset=f"folder:{tmp_path}")
    found = data.load_evaluated(options, "test", None)
    assert found.class_names == ("a",)
    assert f"no image in {tmp_path.name}/test/ of b" in found.notes


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a", "b")
    scandir = os.scandir

    def refuse(path):
        if path == tmp_path / "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="b: the folder cannot be read"):
        load(tmp_path)


def test_decode_files(tmp_path):
    write(tmp_path / "a.png", size=(20, 12))
    write(tmp_path / "b.jpg", size=(9, 9))
    (tmp_path / "c.png").write_bytes(b"")
    paths = [str(tmp_path / name) for name in ("a.png", "c.png", "b.jpg")]
    with pytest.raises(UserError, match="c.png: the file is empty"):
        files.decode_files(paths, (8, 8, 1), data.DataOptions(), {})
    options = data.DataOptions(bad_images="skip")
    good, pixels = files.decode_files(paths, (8, 8, 1), options, {})
    assert good == [paths[0], paths[2]] and pixels.shape == (2, 8, 8, 1)
    with pytest.raises(UserError, match="b.jpg: the image is 9×9 pixels"):
        files.decode_files(paths[2:], (8, 9, 1), data.DataOptions(), {})
