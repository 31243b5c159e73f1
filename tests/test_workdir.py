import errno
import json
import multiprocessing
import os
import socket
import stat
import subprocess
import sys

import pytest

from cnn.checkpoints import atomic, workdir
from cnn.errors import UserError, explain


def hold(directory, pipe):
    with workdir.lock(directory):
        pipe.send(os.getpid())
        pipe.recv()


def test_another_process_is_named_and_kept_out(tmp_path):
    directory = tmp_path / "a" / "run"
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=hold, args=(directory, there)
    )
    process.start()
    try:
        assert here.poll(60)
        owner = here.recv()
        for _ in range(2):  # being refused leaves the owner's name
            with pytest.raises(UserError, match=f"in use by process {owner};"):
                with workdir.lock(directory):
                    raise AssertionError("both hold it")
        here.send("leave")
        process.join(60)
    finally:
        process.kill()
    with workdir.lock(directory):
        assert (directory / ".lock").read_text() == str(os.getpid())


def test_lock_is_released_after_a_mistake(tmp_path):
    for _ in range(2):
        with pytest.raises(UserError, match="mine"), workdir.lock(tmp_path):
            raise UserError("mine")
    assert tmp_path.is_dir()


@pytest.fixture(params=["ENOLCK", "ENOSYS", "ENOTSUP", "Windows"])
def no_locks(request, monkeypatch):
    """Take the file system's locks away."""
    if request.param == "Windows":
        monkeypatch.setattr(atomic, "fcntl", None)
        return

    def refuse(file, operation):
        raise OSError(getattr(errno, request.param), "no locks here")

    monkeypatch.setattr(atomic.fcntl, "flock", refuse)


def test_without_locks_another_one_is_taken(tmp_path, no_locks):
    directory = tmp_path / "new"
    with workdir.lock(directory):
        # The lock is of this process: to be held by another of this host is the same.
        with pytest.raises(UserError, match=f"in use by process {os.getpid()};.*soft"):
            with workdir.lock(directory):
                raise AssertionError("both hold it")
    assert [path.name for path in directory.iterdir()] == [".lock"]
    with pytest.raises(UserError, match="mine"), workdir.lock(tmp_path / "other"):
        raise UserError("mine")
    assert not (tmp_path / "other").exists()


def test_a_lock_of_a_process_that_has_died_is_taken_over(tmp_path, no_locks):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    soft = tmp_path / ".lock.soft"
    soft.write_text(f"{process.pid}\n{socket.gethostname()}\n")
    with workdir.lock(tmp_path):
        assert soft.read_text().startswith(f"{os.getpid()}\n")
    soft.write_text(f"{process.pid}\nanother-host\n")
    with pytest.raises(UserError, match=f"remove {soft}"), workdir.lock(tmp_path):
        raise AssertionError("the other host may still run it")


def test_directory_made_in_vain_is_removed(tmp_path):
    with pytest.raises(UserError), workdir.lock(tmp_path / "new"):
        raise UserError("a misspelt option")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError), workdir.lock(tmp_path / "new"):
        (tmp_path / "new" / "result.json").touch()
        raise UserError("later")
    assert (tmp_path / "new" / "result.json").exists()
    with pytest.raises(UserError), workdir.lock(tmp_path / "new" / "a" / "b"):
        raise UserError("a misspelt option")
    assert (tmp_path / "new").is_dir() and not (tmp_path / "new" / "a").exists()


@pytest.mark.parametrize("name", ["file", "file/run", "x" * 300])
def test_directory_that_cannot_be_made_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--workdir=.* cannot be written"):
        with workdir.lock(tmp_path / name):
            pass


def test_read_only_directory_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied:"):
        with workdir.lock(tmp_path):
            pass


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    atomic.write_text(path, "old\n")
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(UserError, match="result.json cannot be written"):
        atomic.write_text(path, "new\n")
    assert path.read_text() == "old\n"


def test_written_files_are_readable_by_others_and_leave_nothing(tmp_path):
    path = tmp_path / "config.json"
    atomic.write_json(path, {"widths": [1, 2], "name": "ä"})
    atomic.write_json(path, {"widths": [1], "name": "ä"})
    assert workdir.read_json(path) == {"widths": [1], "name": "ä"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_writing_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        atomic.write_text(tmp_path / "file" / "x", "")


def test_absent_and_damaged_json_are_named(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(UserError, match="config.json cannot be read"):
        workdir.read_json(path)
    path.write_text('{"a": ')
    with pytest.raises(UserError, match="config.json is damaged"):
        workdir.read_json(path)


def test_resuming_with_another_option_is_refused(tmp_path):
    stored = {"learning_rate": 0.1, "widths": [8, 16], "data_dir": "/a", "seed": 1}
    stored |= {"model": "mlp", "dataset": "digits"}
    workdir.check_same_run(tmp_path, {"seed": 2}, {})
    (tmp_path / "config.json").write_text(json.dumps(stored))
    same = {"learning_rate": 0.1, "widths": [8, 16], "seed": 1}
    same |= {"model": "mlp", "dataset": "digits"}
    workdir.check_same_run(tmp_path, same, {})
    workdir.check_same_run(tmp_path, same | {"newer": 0}, {"newer": 0})
    with pytest.raises(UserError, match="--newer=0 .now 1"):
        workdir.check_same_run(tmp_path, same | {"newer": 1}, {"newer": 0})
    with pytest.raises(UserError) as caught:
        workdir.check_same_run(tmp_path, same | {"seed": 2, "widths": [8]}, {})
    message = str(caught.value)
    assert "--seed=1 (now 2)" in message and "--widths=8,16 (now 8)" in message
    assert "learning_rate" not in message and "--workdir" in message


@pytest.mark.parametrize(
    "name, content",
    [
        ("config.json", '{"architectures": []}'),
        ("config.json", "[]"),
        ("metrics.jsonl", '{"step": 1}'),
        ("result.json", "{}"),
    ],
)
def test_files_of_other_programs_are_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"{name} is no run's.*another --workdir"):
        workdir.check_same_run(tmp_path, {}, {})
    assert (tmp_path / name).read_text() == content


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(UserError, match="result.json cannot be written"):
        workdir.check_same_run(tmp_path, {}, {})


def test_a_lock_is_no_link_and_keeps_what_has_another_name(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    os.link(tmp_path / "mine", tmp_path / "run" / ".lock")
    with workdir.lock(tmp_path / "run"):
        with pytest.raises(UserError, match="in use by process unknown"):
            with workdir.lock(tmp_path / "run"):
                raise AssertionError("both hold it")
    (tmp_path / "run" / ".lock").unlink()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="is a link to .*mine.*remove the link"):
        with workdir.lock(tmp_path / "run"):
            raise AssertionError("it was written through")
    assert (tmp_path / "mine").read_text() == "mine"


def test_places_are_compared_however_they_are_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    stored = {"dataset": f"folder:{tmp_path}/a", "init_from": "runs/x", "seed": 1}
    stored |= {"model": "mlp"}
    (tmp_path / "config.json").write_text(json.dumps(stored))

    def check(**changes):
        return workdir.check_same_run(tmp_path, stored | changes, {})

    for same in ("folder:a", "folder:./a/", f"folder:{tmp_path}/b/../a", "folder:link"):
        assert check(dataset=same, init_from="./runs/x/") == {}
    assert check(dataset="folder:b") == {"dataset": stored["dataset"]}
    assert check(dataset="csv:a") == {"dataset": stored["dataset"]}
    assert check(init_from="runs/y") == {"init_from": "runs/x"}
    with pytest.raises(UserError, match="--init_from=runs/x .now .."):
        check(init_from="")
    with pytest.raises(UserError, match="--seed=1") as refused:
        check(dataset="folder:b", seed=2)
    assert "dataset" not in str(refused.value)


def test_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        workdir.read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        workdir.read_config(tmp_path)


def test_patterns_are_of_directories_that_hold_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b[1]", "c,x=1", "exp [v2]/d", "none"):
        (tmp_path / name).mkdir(parents=True)
        if name != "none":
            (tmp_path / name / "config.json").write_text("{}")

    def split(text):
        return [str(path) for path in workdir.split_directories(text)]

    assert split("*") == ["a", "b[1]", "c,x=1"]
    assert split("b[1]") == ["b[1]"]
    assert split("exp [v2]/*,a") == ["exp [v2]/d", "a"]
    assert split("c,x=*,[ab]") == ["c,x=1", "a"]
    assert split("a,*") == ["a", "b[1]", "c,x=1"]
    assert "exp [v2]/d" in split("**")
    with pytest.raises(UserError, match=r"--workdir=n\* matches no directory"):
        split("a,n*")


def test_addresses_among_several_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match="gs:// is an address"):
        workdir.split_directories(f"{tmp_path},gs://bucket/run")


def test_a_file_that_a_killed_process_has_left_is_taken_over(tmp_path):
    path = tmp_path / "result.json"
    atomic.name_new(path).write_text("half of a very much longer text")
    atomic.write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert os.listdir(tmp_path) == ["result.json"]


def test_two_processes_do_not_write_a_file_at_once(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    monkeypatch.setattr(atomic, "_TRIES", 2)
    with atomic.replace(path) as file:
        file.write(b"one\n")
        with pytest.raises(UserError, match="being written by another process"):
            atomic.write_text(path, "another\n")
    assert path.read_text() == "one\n"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_file_is_not_written_through_a_link(tmp_path):
    path, mine = tmp_path / "result.json", tmp_path / "mine"
    mine.write_text("mine")
    for link in (os.symlink, os.link):
        link(mine, atomic.name_new(path))
        atomic.write_text(path, "new\n")
        assert mine.read_text() == "mine"
    assert not path.is_symlink()


def test_a_directory_is_whole_or_not_there(tmp_path):
    path = tmp_path / "run"
    for error in (OSError(errno.ENOSPC, "full"), UserError("no")):
        with pytest.raises(type(error)):
            with workdir.make_directory(path) as new:
                new.mkdir()
                raise error
        assert not os.listdir(tmp_path)
    left = atomic.name_new(path) / "run"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    with pytest.raises(UserError, match=".run.new is in the way; move it away"):
        with workdir.make_directory(path):
            pass
    (atomic.name_new(path) / ".lock").write_text("1")
    with workdir.make_directory(path) as new:
        assert not new.exists()
        new.mkdir()
        (new / "file").write_text("")
    assert [x.name for x in tmp_path.rglob("*")] == ["run", "file"]


@pytest.mark.parametrize(
    "error, said",
    [
        (OSError(errno.ENOSPC, ""), "No space left on device: make room on that disk"),
        (OSError(errno.EINVAL, "it is a pipe"), "it is a pipe"),
        (ValueError("text [os_error_code='24']"), "Too many open files: raise"),
        (ValueError("of a\n  library"), "of a library"),
        (KeyError(), "KeyError"),
    ],
)
def test_why_a_file_is_refused_is_one_line_with_its_remedy(error, said):
    assert explain(error).startswith(said)


def test_a_file_that_cannot_be_written_is_found_before(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(UserError, match="result.json .*move that directory away"):
        workdir.check_own(tmp_path)
    (tmp_path / "result.json").rmdir()
    workdir.check_own(tmp_path)
