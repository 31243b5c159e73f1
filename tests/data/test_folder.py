import os

import numpy as np
import pytest
from PIL import Image

from cnn import data
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
    assert len(dataset.train) == 10 and "not used" in dataset.notes[0]


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
    assert "cat" in load(tmp_path).class_names


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
    assert "left out 1 images" in dataset.notes[0] and str(path) in dataset.notes[0]


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


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        load(tmp_path / "no")
    with pytest.raises(UserError, match="no class folders"):
        load(tmp_path)
    write_tree(tmp_path, ("train",))
    with pytest.raises(UserError, match="only train"):
        load(tmp_path)
    write_tree(tmp_path, ("test",), ("cat", "dog", "emu"))
    with pytest.raises(UserError, match="test has emu"):
        load(tmp_path)
    write_tree(tmp_path, ("train",), ("emu", "fox"))
    with pytest.raises(UserError, match="test lacks fox"):
        load(tmp_path)
    (tmp_path / "test/fox").mkdir()
    with pytest.raises(UserError, match="test/fox: the class folder holds no image"):
        load(tmp_path)


def write_csv(root, text):
    (root / "list.csv").write_text(text, encoding="utf-8")
    return f"csv:{root}/list.csv"


def test_csv_with_splits(tmp_path):
    for i in range(6):
        write(tmp_path / f"images/{i}.png", value=i)
    name = write_csv(
        tmp_path,
        "\ufeffpath, label, split\n"
        "images/0.png,10,train\nimages/1.png,9,train\nimages/2.png,10,val\n"
        "images/3.png,9,test\nimages/4.png,10,train\nimages/5.png,9,train\n",
    )
    dataset = data.load_dataset(data.DataOptions(dataset=name))
    assert dataset.class_names == ("9", "10")
    assert dataset.train.labels.tolist() == [1, 0, 1, 0]
    assert read(dataset.train)[:, 0, 0, 0].tolist() == [0, 1, 4, 5]
    assert len(dataset.validation) == len(dataset.test) == 1


def test_csv_without_splits(tmp_path):
    for i in range(10):
        write(tmp_path / f"{i}.png", value=i)
    rows = "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(10))
    name = write_csv(tmp_path, "path,label\n" + rows)
    dataset = data.load_dataset(data.DataOptions(dataset=name))
    assert len(dataset.train) + len(dataset.test) == 10
    assert set(dataset.train.labels) == set(dataset.test.labels) == {0, 1}


BAD_CSV = [
    ("file,label\na.png,1\n", "columns path and label"),
    ("", "columns path and label"),
    ("path,label\n", "lists no image"),
    ("path,label\na.png,\n", "line 2: label is empty"),
    ("path,label\na.png\n", "line 2: label is empty"),
    ("path,label,split\na.png,1,tran\n", "line 2: .*did you mean train"),
    ("path,label,split\na.png,1,train\n", "only train"),
    ("path,label,split\na.png,x,train\nb.png,y,test\n", "line 3: label 'y'"),
    ("path,label\na.png,1\nb.png,2\n", "a.png: No such file"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CSV)
def test_bad_csv(tmp_path, text, message):
    name = write_csv(tmp_path, text)
    with pytest.raises(UserError, match=message):
        data.load_dataset(data.DataOptions(dataset=name))


def test_csv_that_is_no_text(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        data.load_dataset(data.DataOptions(dataset=f"csv:{tmp_path}/list.csv"))


def test_decode_files(tmp_path):
    write(tmp_path / "a.png", size=(20, 12))
    write(tmp_path / "b.jpg", size=(9, 9))
    (tmp_path / "c.png").write_bytes(b"")
    paths = [str(tmp_path / name) for name in ("a.png", "c.png", "b.jpg")]
    with pytest.raises(UserError, match="c.png: the file is empty"):
        data.decode_files(paths, (8, 8, 1), data.DataOptions())
    options = data.DataOptions(bad_images="skip")
    good, pixels = data.decode_files(paths, (8, 8, 1), options)
    assert good == [paths[0], paths[2]] and pixels.shape == (2, 8, 8, 1)
    with pytest.raises(UserError, match="b.jpg: the image is 9×9 pixels"):
        data.decode_files(paths[2:], (8, 9, 1), data.DataOptions())
