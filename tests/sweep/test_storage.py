"""A storage that does not answer is waited for; a damaged journal is refused."""

import fcntl
import signal
import threading

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from cnn.errors import UserError
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep import journal, lines, storage
from cnn.sweep.storage import PatientStorage, open_storage


class Told(Terminal):
    """A terminal that remembers what is said."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text=""):
        self.lines.append(text)


class Broken:
    """A storage that fails some times before it answers."""

    def __init__(self, times, error=None):
        self.times, self.calls = times, 0
        self.error = error or OperationalError("x", {}, Exception("gone\nand more"))

    def ask(self, value):
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return value


@pytest.fixture
def quick(monkeypatch):
    """Wait in hundredths of seconds."""
    monkeypatch.setattr(storage, "_PAUSE", 0.01)
    monkeypatch.setattr(storage, "_SLOW_SECONDS", 0.05)


def make(inner, seconds=10.0, stop=None):
    told = Told()
    name = "--storage=x"
    return PatientStorage(inner, name, seconds, told, stop or Stop()), told


def test_calls_are_made_again_and_it_is_said_once(quick):
    inner = Broken(3)
    patient, told = make(inner)
    assert patient.ask(7) == 7 and inner.calls == 4 and patient.outages == 1
    assert len(told.lines) == 2 and "does not answer (" in told.lines[0]
    assert (
        "gone); waiting" in told.lines[0]
        and told.lines[1] == "--storage=x answers again"
    )
    assert patient.ask(8) == 8 and len(told.lines) == 2


def test_the_wait_has_an_end(quick):
    patient, told = make(Broken(10**6), 0.05)
    with pytest.raises(UserError, match="has not answered for 0.05 s"):
        patient.ask(1)
    assert len(told.lines) == 1


def test_signals_end_the_wait_for_a_silent_storage(quick):
    class Silent:
        def ask(self):
            threading.Event().wait(60)

    stop = Stop()
    stop.signal = signal.SIGTERM
    patient, told = make(Silent(), stop=stop)
    with pytest.raises(Interrupted):
        patient.ask()
    assert "it is silent" in told.lines[0]


def test_other_errors_and_other_threads_do_not_wait(quick):
    inner = Broken(1, KeyError("no"))
    with pytest.raises(KeyError):
        make(inner)[0].ask(1)
    patient, told = make(Broken(1))
    found = []

    def ask():
        try:
            patient.ask(1)
        except OperationalError as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found and not told.lines


def test_a_database_passes_for_one_behind_the_wait(tmp_path):
    patient, _ = make(open_storage(f"sqlite:///{tmp_path / 'x.db'}", tmp_path))
    study = optuna.create_study(storage=patient)
    study.tell(study.ask(), 0.5)
    assert study.best_value == 0.5
    assert type(study._storage).__name__ == "_CachedStorage"
    patient.engine.dispose()


@pytest.mark.parametrize("before", [b"", b"line\n"])
def test_a_line_comes_back_and_a_changed_one_does_not(before):
    value = {"a": 1, "text": 'é"check"', "list": [0.1, None]}
    line = lines.seal(value, before)
    assert line.endswith(b"\n") and lines.unseal(line, before) == value
    for place in range(len(line) - 1):
        changed = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        try:
            found = lines.unseal(changed, before)
        except ValueError:
            continue
        assert {n: found[n] for n in value} == value, "what is left has no sum"
    assert lines.unseal(b'{"a": 1}\n') == {"a": 1}
    for text in (b"[1]\n", b"\xff\n", b"\0\0\n", b"[" * 10**5 + b"\n", b"\n"):
        with pytest.raises(ValueError):
            lines.unseal(text)


def write(path, count):
    log = journal.Journal(path)
    for number in range(count):
        list(log.read_logs(number))
        log.append_logs([{"number": number}])
    return log


def read(path):
    return [line["number"] for line in journal.Journal(path).read_logs(0)]


def test_a_journal_that_was_cut_off_goes_on(tmp_path):
    path = tmp_path / "study.log"
    log = write(path, 3)
    content = path.read_bytes()
    for rest in (b'{"num', bytes(500), b"\xff"):
        path.write_bytes(content + rest)
        assert read(path) == [0, 1, 2]
        log.append_logs([{"number": 3}])
        assert read(path) == [0, 1, 2, 3]
    assert [line["number"] for line in log.read_logs(3)] == [3]
    path.write_bytes(content[:20])
    with pytest.raises(UserError, match="has become shorter"):
        log.append_logs([{"number": 4}])


def test_lines_of_other_programs_are_taken(tmp_path):
    path = tmp_path / "study.log"
    path.write_bytes(b'{"number": 0}\n')
    log = write(path, 1)
    with open(path, "ab") as file:
        file.write(b'{"number": 1}\n')
    log.append_logs([{"number": 2}])
    assert read(path) == [0, 0, 1, 2]


@pytest.mark.parametrize("change", ["garbage", "removed", "twice", "swapped", "digit"])
def test_a_damaged_journal_is_refused(tmp_path, change):
    path = tmp_path / "study.log"
    write(path, 4)
    own = path.read_bytes().splitlines(keepends=True)
    garbage, digit = b"\0\0\n", own[1].replace(b":1,", b":7,")
    lines_of = {
        "garbage": [own[0], garbage, *own[2:]],
        "removed": [own[0], *own[2:]],
        "twice": [*own[:2], *own[1:]],
        "swapped": [own[0], own[2], own[1], own[3]],
        "digit": [own[0], digit, *own[2:]],
    }
    path.write_bytes(b"".join(lines_of[change]))
    number = 3 if change == "twice" else 2
    with pytest.raises(UserError, match=f"study.log: line {number} is damaged"):
        read(path)


def test_a_journal_whose_lines_say_what_cannot_be(tmp_path):
    path = tmp_path / "study.log"
    path.write_bytes(b'{"op_code": 4, "worker_id": "x"}\n')
    with pytest.raises(UserError, match="study.log: line 1 is damaged"):
        open_storage("", tmp_path)


def test_a_lock_that_is_held_is_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "LOCK_SECONDS", 0.02)
    log = write(tmp_path / "study.log", 1)
    with open(tmp_path / "study.log") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="is locked by another process"):
            log.append_logs([{"number": 1}])
    log.append_logs([{"number": 1}])
    assert read(tmp_path / "study.log") == [0, 1]


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    log = write(tmp_path / "study.log", 2)

    def fail(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", fail)
        with pytest.raises(UserError, match="study.log cannot be written .No space"):
            log.append_logs([{"number": 2}])
    assert read(tmp_path / "study.log") == [0, 1]


def test_a_file_of_another_kind_is_no_journal_that_was_cut_off(tmp_path):
    path = tmp_path / "notes.txt"
    for content in (b"notes without an end of line", b"{", b'{"op_co'):
        path.write_bytes(content)
        log = journal.Journal(path)
        if content == b"notes without an end of line":
            with pytest.raises(UserError, match="line 1 is damaged .it is none of a"):
                log.append_logs([{"op_code": 0}])
            assert path.read_bytes() == content
        else:
            log.append_logs([{"op_code": 0}])
            assert list(log.read_logs(0)) == [{"op_code": 0}]
