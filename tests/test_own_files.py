"""Files of a run are written where they lie, never through a link."""

import os

import pytest

from cnn.errors import UserError
from cnn.runtime import own_files


@pytest.mark.parametrize("target", ["mine", "nowhere", "path"])
def test_a_link_is_refused(tmp_path, target):
    (tmp_path / "mine").write_text("mine")
    path = tmp_path / "path"
    path.symlink_to(target)
    for use in (own_files.unshare, lambda x: own_files.open_own(x, "ab")):
        with pytest.raises(UserError, match=f"path is a link to {target}, and"):
            use(path)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_link_made_since_the_check_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr(own_files, "check_no_link", lambda path: None)
    (tmp_path / "path").symlink_to("mine")
    with pytest.raises(OSError, match="symbolic links"):
        own_files.open_own(tmp_path / "path", "ab")
    assert not (tmp_path / "mine").exists()


def test_a_file_with_another_name_is_refused_or_copied(tmp_path):
    path, other = tmp_path / "path", tmp_path / "other"
    path.write_text("mine")
    path.chmod(0o640)
    os.link(path, other)
    with pytest.raises(UserError, match="has another name too, a hard link"):
        own_files.open_own(path, "ab")
    own_files.open_own(path, "ab", is_shared=True).close()
    own_files.unshare(path)
    with own_files.open_own(path, "ab") as file:
        file.write(b" and yours")
    assert path.read_text() == "mine and yours" and other.read_text() == "mine"
    assert path.stat().st_mode == other.stat().st_mode
    assert {x.name for x in tmp_path.iterdir()} == {"path", "other"}


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "path")
    with pytest.raises(OSError, match="it is no file but a device, a pipe"):
        own_files.read(tmp_path / "path")
    with pytest.raises(FileNotFoundError):
        own_files.read(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"x")
    assert own_files.read(tmp_path / "file") == b"x"


@pytest.mark.parametrize("mode", ["ab", "a+b", "a+"])
def test_a_pipe_is_not_waited_for(tmp_path, mode):
    os.mkfifo(tmp_path / "path")
    with pytest.raises((UserError, OSError), match="is no file|No such device"):
        own_files.open_own(tmp_path / "path", mode)
