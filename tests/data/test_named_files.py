"""Which image files a flag names."""

import os
from pathlib import Path

import pytest

from cnn.data.named_files import find_files
from cnn.errors import UserError


def find(folder, text):
    """Return what is found, below a folder."""
    files, _ = find_files("predict_images", text.replace("DIR", str(folder)))
    return [os.path.relpath(path, folder) for path in files]


@pytest.fixture
def folder(tmp_path):
    """Return a folder whose name is a pattern, with images at two depths."""
    folder = tmp_path / "set [1], two"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "b[2].png", "a,b.JPG", "c.txt", "deep/d.gif", ".hid.png"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "text, expected",
    [
        ("DIR/b[2].png", ["b[2].png"]),
        ("DIR/*.png", ["a.png", "b[2].png"]),
        ("DIR/**/*.gif", ["deep/d.gif"]),
        ("DIR/c.txt", ["c.txt"]),
        ("DIR", ["a,b.JPG", "a.png", "b[2].png", "deep/d.gif"]),
        ("DIR/de*", ["deep/d.gif"]),
        ("DIR/a,b.JPG", ["a,b.JPG"]),
        ("DIR/deep, DIR/a,b.JPG,DIR/a.png", ["deep/d.gif", "a,b.JPG", "a.png"]),
        ("DIR/a.png,DIR/*.png,", ["a.png", "b[2].png"]),
    ],
)
def test_files_directories_and_patterns(folder, text, expected):
    assert find(folder, text) == expected


def test_home_directory(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    text = "~/a.png,~/deep"
    assert find(folder, text) == ["a.png", "deep/d.gif"]


def test_files_that_are_no_images_are_counted(folder):
    _, notes = find_files("predict_images", str(folder))
    assert len(notes) == 1 and "1 file" in notes[0] and ".txt 1" in notes[0]
    assert find_files("predict_images", f"{folder}/*.png")[1] == ()


@pytest.mark.parametrize("text", ["DIR/no.png", "DIR/a.png,DIR/no*", "DIR/empty", ","])
def test_a_name_that_leads_nowhere_is_refused(folder, text):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="--predict_images=.*(matches|names) no file"):
        find(folder, text)


def test_a_file_that_no_glob_would_match_is_named_by_its_folder(tmp_path):
    path = tmp_path / "[!a]*.png"
    path.touch()
    assert find_files("f", str(path))[0] == [str(path)]
    assert [Path(x).name for x in find_files("f", str(tmp_path))[0]] == ["[!a]*.png"]


def test_pipes_and_broken_links_are_named_to_be_bad_images(folder):
    (folder / "e.png").symlink_to("e.png")
    (folder / "f.png").symlink_to("nowhere")
    os.mkfifo(folder / "g.png")
    assert find(folder, "DIR/[e-g].png") == ["e.png", "f.png", "g.png"]
    assert find(folder, "DIR/f.png,DIR/g.png") == ["f.png", "g.png"]
    with pytest.raises(UserError, match="matches no file"):
        find(folder, "DIR/nowhere")
