"""Images that a CSV file lists: read as people write it, or refused with the line."""

import os
import random

import numpy as np
import pytest
from PIL import Image

from cnn import data
from cnn.errors import UserError


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), (value, value, value)).save(path)


def load(name, **options):
    return data.load_dataset(data.DataOptions(dataset=name, **options))


def read(part):
    return part.read(np.arange(len(part)))


def write_table(root, text):
    (root / "list.csv").write_text(text, encoding="utf-8")
    return f"csv:{root}/list.csv"


def test_csv_with_splits(tmp_path):
    for i in range(6):
        write(tmp_path / f"images/{i}.png", value=i)
    name = write_table(
        tmp_path,
        "\ufeffpath, label, split\n"
        "images/0.png,10,train\nimages/1.png,9,train\nimages/2.png,10,val\n"
        "images/3.png,9,test\nimages/4.png,10,train\nimages/5.png,9,train\n",
    )
    dataset = load(name)
    assert dataset.class_names == ("9", "10")
    assert dataset.train.labels.tolist() == [1, 0, 1, 0]
    assert read(dataset.train)[:, 0, 0, 0].tolist() == [0, 1, 4, 5]
    assert len(dataset.validation) == len(dataset.test) == 1


def test_csv_without_splits(tmp_path):
    for i in range(10):
        write(tmp_path / f"{i}.png", value=i)
    rows = "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(10))
    name = write_table(tmp_path, "path,label\n" + rows)
    dataset = load(name)
    assert len(dataset.train) + len(dataset.test) == 10
    assert set(dataset.train.labels) == set(dataset.test.labels) == {0, 1}


BAD_CSV = [
    ("file,label\na.png,1\n", "columns path and label"),
    ("", "columns path and label"),
    ("path,label\n", "lists no image"),
    ("path,label\na.png,\n", "line 2: label is empty"),
    ("path,label\na.png\n", "line 2 has 1 cell and the first line 2"),
    ("path,label\n\n\na.png,\n", "line 4: label is empty"),
    ('path,label\n"a\n.png",1\nb.png,\n', "line 4: label is empty"),
    ("path,label\na.png,red, a colour\n", "line 2 has 3 cells .*quote"),
    ("path,label,split\na.png,red\n", "line 2 has 2 cells and the first line 3"),
    ('path,label\na.png,"red\nb.png,blue\n', "line 2: unexpected end of data"),
    ("path,label,Label\na.png,1,2\n", "has label twice"),
    (f"path,label\na.png,{'9' * 5000}\nb.png,1\nc\\\\{'c' * 5000}.png,1\n", "too long"),
    ("path|label\na.png|1\n", "it is 'path.label'"),
    ("path,label\na.png,1\nb.png,2\nc.png,01\n", "01 and 1 are one number"),
    ("path,label\na.png,x\nb.png,y\n./a.png,y\n", "'x' in line 2 and 'y' in line 4"),
    ("path,label\na.png,=x\nb.png,y\n", "'=x' begins with ="),
    ("path,label,split\na.png,1,tran\n", "line 2: .*did you mean train"),
    ("path,label,split\na.png,1,\n", "line 2: split is empty"),
    ("path,label,split\na.png,1,train\n", "only train"),
    ("path,label,split\na.png,x,train\nb.png,y,test\n", "line 3: label 'y'"),
    ("path,label\na.png,1\nb.png,2\n", "a.png: No such file"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CSV)
def test_bad_csv(tmp_path, text, message):
    for name in "abc":
        if "No such file" not in message:
            write(tmp_path / f"{name}.png", value=0)
    name = write_table(tmp_path, text)
    with pytest.raises(UserError, match=message):
        load(name)


def test_csv_that_is_no_text(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe\x00")
    with pytest.raises(UserError, match="line 2: .*UTF-8"):
        load(f"csv:{tmp_path}/list.csv")
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "list.csv").write_bytes("path,label\n".encode(encoding))
        with pytest.raises(UserError, match="UTF-8"):
            load(f"csv:{tmp_path}/list.csv")


LINES = [
    (f"images/{i}.png", "ab"[i % 2], "test" if i < 2 else "train") for i in range(6)
]


def test_a_pipe_is_no_csv(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UserError, match="no file but a device, a pipe"):
        load(f"csv:{tmp_path}/labels.csv")


def join(separator=",", end="\n", header=("path", "label", "split"), lines=LINES):
    return end.join(separator.join(line) for line in [header, *lines]) + end


WRITTEN = {
    "plain": join(),
    "empty lines": join().replace("\n", "\n\n").replace("train\n", "train\n,,\n", 1),
    "semicolons": join(";"),
    "tabs": join("\t"),
    "capitals": join(header=("Path", "LABEL", "Split")),
    "Windows": "\ufeff" + join(end="\r\n").replace("/", "\\"),
    "old Mac": join(end="\r"),
    "quotes": join('","').replace("\n", '"\n"').join('""')[:-2],
    "spaces": join(", "),
    "spaces and quotes": join('", "').replace("\n", '"\n"').join('""')[:-2],
    "more columns": join(header=("path", "label", "split", "x"), lines=[])
    + "".join(",".join((*line, "")) + "\n" for line in LINES),
    "trailing commas": join(end=",,\n"),
    "other words": join().replace("train", "Training_Set").replace("test", "TESTING"),
}


@pytest.mark.parametrize("title", WRITTEN)
def test_tables_as_people_write_them(tmp_path, title):
    for i in range(6):
        write(tmp_path / f"images/{i}.png", i)
    dataset = load(write_table(tmp_path, WRITTEN[title]))
    assert dataset.class_names == ("a", "b")
    assert dataset.train.labels.tolist() == [0, 1, 0, 1]
    assert dataset.train.names.tolist() == [f"images/{i}.png" for i in range(2, 6)]
    assert read(dataset.test)[:, 0, 0, 0].tolist() == [0, 1]


def test_classes_do_not_depend_on_the_order_of_lines(tmp_path):
    lines = [(f"{i}.png", str(i)) for i in (0, 1, 2, 3, 10)]
    for path, number in lines:
        write(tmp_path / path, int(number))
    for seed in range(3):
        random.Random(seed).shuffle(lines)
        text = join(header=("path", "label"), lines=[*lines, ("./0.png", "0")])
        dataset = load(write_table(tmp_path, text))
        assert dataset.class_names == ("0", "1", "2", "3", "10")


def test_one_class_is_refused(tmp_path):
    for i in range(6):
        write(tmp_path / f"images/{i}.png", i)
    with pytest.raises(UserError, match="4 training images are of one class, b"):
        load(write_table(tmp_path, join().replace(",a,", ",b,")))


def test_repeated_images_are_said(tmp_path):
    for i in range(6):
        write(tmp_path / f"images/{i}.png", i)
    more = "./images/3.png,b,train\nimages/2.png,a,test\n"
    notes = load(write_table(tmp_path, join() + more)).notes
    assert notes[0] == "warning   1 image in more parts than one: images/2.png"
    assert notes[1] == "1 line with an image that another has: images/3.png"
    assert notes[2] == "train 5 files of 2 classes: a 2, b 3"


def test_a_class_without_test_images_is_said(tmp_path):
    for i in range(6):
        write(tmp_path / f"images/{i}.png", i)
    text = join(lines=[LINES[0], *LINES[2:]])
    dataset = load(write_table(tmp_path, text))
    assert dataset.notes[1] == "test 1 file of 1 class: a 1; no file of b"
    assert dataset.taken == {
        "files": {"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 0}}
    }
