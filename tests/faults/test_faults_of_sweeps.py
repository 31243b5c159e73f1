"""Faults of sweeps and studies: workers, journals and databases that die."""

import contextlib
import csv
import fcntl
import functools
import importlib.util
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import pytest
from faulty import Room, fault, finish, hash_tree
from fixtures_runs import TINY, make_flags

TRIALS = {
    "model": "mlp",
    "mlp_widths": (8,),
    "train_examples": 100,
    "batch_size": 20,
    "epochs": 3,
    "validation_fraction": 0.1,
}
GRID = TRIALS | {"mode": "sweep", "executor": "map", "trials_at_once": 2}
GRID |= {"sweep": "learning_rate=0.01,0.1,0.3; seed=0:2"}
STUDY = TRIALS | {"mode": "sweep", "executor": "map", "trials_at_once": 2}
STUDY |= {"search": "optuna", "trials": 4, "worker": "me", "worker_timeout": 20}
STUDY |= {"sweep": "learning_rate=loguniform(0.01,1); momentum=0.5,0.9"}
STUDY |= {"epochs": 60}
ROWS = "sweep/sweep/workers/me/trials.jsonl"
_LOCK = "sweep/sweep/workers/me/.lock"
JOURNAL = "sweep/sweep/study.log"
TIMED = ("seconds",)
_PATIENCE = 150  # seconds in which a process comes as far as it is waited for

# Run main.py with something done to it after its imports, before it begins.
_HOOK = """
import runpy, sys
sys.argv = sys.argv[1:]
from cnn.runtime import settings
imported = settings.import_jax
def hook():
    imported()
{patch}
settings.import_jax = hook
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_PLAIN = """
import os, signal
from cnn.sweep import page, plots
plots.draw_plots = lambda *_: []
page.write_page = lambda home, *_: home / "report.html"
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def start_sweep(room, options, directory="sweep", patch=""):
    """Start a sweep as a process, which draws nothing: that takes most of its time.

    Args:
        patch: what is done to the modules of `cnn` before.
    """
    lines = f"{_PLAIN}{patch}".strip().split("\n")
    code = _HOOK.format(patch="\n".join(f"    {line}" for line in lines))
    cache = jax.config.jax_compilation_cache_dir or "off"
    flags = [f"--compilation_cache={cache}", f"--workdir={directory}"]
    command = ["-c", code, room.root / "main.py", *flags, *make_flags(options)]
    return room._start(command, None, None)


def run_sweep(room, options, directory="sweep", patch=""):
    """Run a sweep to its end; see `start_sweep`."""
    return finish(start_sweep(room, options, directory, patch))


def read_trials(directory, numbers=True):
    """Read trials.csv without what measures time.

    Args:
        numbers: whether to read the numbers of the trials too: those of settings that
            ran again are others.
    """
    with open(directory / "sweep" / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    left_out = TIMED if numbers else (*TIMED, "trial")
    rows = [{k: v for k, v in row.items() if k not in left_out} for row in rows]
    return rows if numbers else sorted(rows, key=str)


@functools.cache
def sweep_undisturbed(options, numbers=True):
    """Return `read_trials` of a sweep that nothing happened to."""
    with tempfile.TemporaryDirectory() as directory:
        room = Room(Path(directory))
        run_sweep(room, dict(options)).check_done()
        return read_trials(room.path / "sweep", numbers)


def check_same(room, options, numbers=True, directory="sweep"):
    """Require the table of the undisturbed sweep."""
    wanted = sweep_undisturbed(tuple(options.items()), numbers)
    assert read_trials(room.path / directory, numbers) == wanted


def wait_until(process, is_so):
    """Wait for something while a process runs; returns whether it came."""
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and not is_so():
        assert time.monotonic() < until, "it came to nothing"
        time.sleep(0.002)
    return process.poll() is None


def count_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill(process):
    process.kill()
    process.communicate()


class Server:
    """A PostgreSQL of its own: `address` for --storage."""

    def __init__(self, home):
        """Make its files; it does not run yet."""
        self._home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        driver = "psycopg" if importlib.util.find_spec("psycopg") else "psycopg2"
        self.address = f"postgresql+{driver}://me@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-D", home / "data", "-A", "trust", "-U", "me", "--no-sync")

    def _run(self, *command):
        own = {"user": _find_user()} if os.getuid() == 0 else {}
        command = [str(part) for part in command]
        # To files: the server keeps what it inherits.
        with open(self._home / "out", "w") as out:
            done = subprocess.run(
                command, stdout=out, stderr=out, cwd=self._home, timeout=120, **own
            )
        assert done.returncode == 0, (self._home / "out").read_text()

    def start(self):
        options = f"-k {self._home} -p {self._port} -c fsync=off"
        self._run("pg_ctl", "-D", self._home / "data", "-w", "-o", options, "start")

    def stop(self):
        self._run("pg_ctl", "-D", self._home / "data", "-m", "immediate", "stop")

    @contextlib.contextmanager
    def freeze(self):
        """Stop all its processes where they are."""
        pid = int((self._home / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        everyone = [pid, *map(int, children)]
        for one in everyone:
            os.kill(one, signal.SIGSTOP)
        try:
            yield
        finally:
            for one in everyone:
                os.kill(one, signal.SIGCONT)


def _find_user():
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@contextlib.contextmanager
def run_server():
    """Run a server; skips where there is none, or nothing that speaks with it."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("no PostgreSQL on this machine: initdb is not found")
    if not any(map(importlib.util.find_spec, ("psycopg", "psycopg2"))):
        pytest.skip("no driver for PostgreSQL: pip install 'psycopg[binary]'")
    with tempfile.TemporaryDirectory(prefix="pg") as home:
        if os.getuid() == 0:
            shutil.chown(home, _find_user())
        server = Server(Path(home))
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):  # it is stopped already
                server.stop()


_RETRY = (
    "cnn/sweep/storage.py",
    "            if not _is_lost(attempt.error):",
    "            if True:",
)


@fault(
    injected="PostgreSQL is stopped hard while a worker trains, and started after 4 s",
    holds="the worker says once that it waits, goes on, and ends with the same table",
    without=[_RETRY],
)
def test_the_database_restarts(room):
    with run_server() as server:
        process = start_sweep(room, STUDY | {"storage": server.address})
        lines = room.path / ROWS
        assert wait_until(process, lambda: count_lines(lines)), process.communicate()
        server.stop()
        time.sleep(4)
        server.start()
        ended = finish(process).check_done()
    assert ended.out.count("does not answer") == 1, ended
    assert ended.out.count("answers again") == 1, ended
    check_same(room, STUDY)


@fault(
    injected="PostgreSQL is stopped while a worker trains and started after its end",
    holds="one message when the wait is over, exit code 2; the same command tells the "
    "study what had ended, trains the rest and ends with the same table",
    without=[_RETRY],
)
def test_the_database_stays_away(room):
    with run_server() as server:
        options = STUDY | {"storage": server.address, "worker_timeout": 0.5}
        process = start_sweep(room, options)
        lines = room.path / ROWS
        assert wait_until(process, lambda: count_lines(lines)), process.communicate()
        server.stop()
        ended = finish(process)
        ended.check_refused("has not answered for 5 s", "run the same command")
        server.start()
        saved = lines.read_bytes()
        run_sweep(room, options).check_done()
    assert lines.read_bytes().startswith(saved)
    check_same(room, STUDY, numbers=False)


@fault(
    injected="every process of PostgreSQL gets SIGSTOP; then the worker SIGTERM",
    holds="the worker leaves with exit code 143 and one line; the same command ends "
    "with the same table",
    without=[
        (
            "cnn/sweep/storage.py",
            "            while not attempt.ended.wait(patience):",
            "            while not attempt.ended.wait():",
        )
    ],
)
def test_the_database_is_silent_and_the_worker_is_to_leave(room):
    with run_server() as server:
        options = STUDY | {"storage": server.address}
        process = start_sweep(room, options)
        lines = room.path / ROWS
        assert wait_until(process, lambda: count_lines(lines)), process.communicate()
        with server.freeze():
            time.sleep(2)
            process.terminate()
            ended = finish(process, 60)
        assert ended.code == 143 and "Traceback" not in ended.err, ended
        assert "run the same command to continue" in ended.out, ended
        run_sweep(room, options).check_done()
    check_same(room, STUDY, numbers=False)


@fault(
    injected="two workers on PostgreSQL: one gets SIGKILL, the server restarts, the "
    "other gets SIGTERM and starts again",
    holds="every setting ends once, with the same rows as of one worker alone",
    without=[_RETRY],
)
def test_workers_and_their_database_die_in_turn(room):
    longer = STUDY | {"trials": 8}
    with run_server() as server:
        options = longer | {"storage": server.address, "worker_timeout": 3}
        workers = {n: start_sweep(room, options | {"worker": n}) for n in "ab"}
        home = room.path / "sweep/sweep/workers"
        lines = home / "a/trials.jsonl"
        wait_until(workers["a"], lambda: count_lines(lines))
        kill(workers["a"])
        server.stop()
        time.sleep(2)
        server.start()
        workers["b"].terminate()
        assert finish(workers["b"]).code in (0, 143)
        run_sweep(room, options | {"worker": "b"}).check_done()
    check_same(room, longer, numbers=False)


@fault(
    injected="a worker gets SIGKILL, and study.log is cut in the middle of a line",
    holds="the line is cut off; the same command ends with the same table",
    without=[
        (
            "cnn/sweep/journal.py",
            "                end = self._start + len(whole)",
            "                end = self._start + len(rest)",
        )
    ],
)
def test_the_journal_is_cut_in_the_middle_of_a_line(room):
    process = start_sweep(room, STUDY)
    assert wait_until(process, lambda: count_lines(room.path / ROWS))
    kill(process)
    journal = room.path / JOURNAL
    content = journal.read_bytes()
    journal.write_bytes(content[: content.rindex(b"\n", 0, -1) + 40])
    run_sweep(room, STUDY).check_done()
    check_same(room, STUDY, numbers=False)


@fault(
    injected="the lock file of Optuna's that a dead process has left lies beside it",
    holds="nobody waits for it: the system's own lock died with its process",
    without=[
        (
            "cnn/sweep/storage.py",
            "        journal = Journal(path)",
            "        journal = optuna.storages.journal.JournalFileBackend(str(path))",
        ),
    ],
)
def test_the_journal_is_locked_by_a_process_that_died(room):
    (room.path / JOURNAL).parent.mkdir(parents=True)
    lock = (room.path / JOURNAL).with_suffix(".log.lock")
    lock.symlink_to(JOURNAL)
    finish(start_sweep(room, STUDY), 120).check_done()
    assert lock.is_symlink()
    check_same(room, STUDY)


@fault(
    injected="another process holds the lock of study.log for ever",
    holds="the worker says that it waits, and leaves with one message when the time "
    "is over",
    without=[
        (
            "cnn/sweep/journal.py",
            "            if time.monotonic() > until:",
            "            if until is None:",
        )
    ],
)
def test_the_journal_is_locked_for_ever(room):
    process = start_sweep(room, STUDY | {"worker_timeout": 0.5})
    journal = room.path / JOURNAL
    assert wait_until(process, lambda: count_lines(journal) > 8)
    with open(journal) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = finish(process, 60)
    ended.check_refused("study.log", "has not answered for 5 s", "is locked")
    assert "waiting for it" in ended.out, ended


@fault(
    injected="a line of study.log becomes NUL bytes, another garbage, one is removed",
    holds="one message with the file and the line, exit code 2; nothing is written",
    without=[
        (
            "cnn/sweep/journal.py",
            "                    except ValueError as error:\n"
            "                        raise self.refuse(self._number + 1, str(error)) "
            "from None",
            "                    except ValueError:\n                        continue",
        )
    ],
    n=3,
)
def test_a_line_of_the_journal_is_no_line_of_it(room):
    run_sweep(room, STUDY | {"epochs": 1}).check_done()
    journal = room.path / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    for bad in (bytes(len(lines[9]) - 1) + b"\n", b"\xffgarbage {\n", b""):
        journal.write_bytes(b"".join([*lines[:9], bad, *lines[10:]]))
        before = hash_tree(room.path)
        ended = run_sweep(room, STUDY | {"epochs": 1, "trials": 5})
        ended.check_refused("study.log: line 10 is damaged", "--study")
        after = hash_tree(room.path)
        assert {n for n in after if after[n] != before[n]} <= {_LOCK} and len(
            after
        ) == len(before)


_FUZZ_JOURNAL = """
import sys
from pathlib import Path
import optuna
from mutations import mutate
from cnn.errors import UserError
from cnn.sweep.storage import open_storage
optuna.logging.set_verbosity(optuna.logging.ERROR)
home = Path(sys.argv[1])
content = (home / "study.log").read_bytes()
def read():
    study = optuna.load_study(study_name="sweep", storage=open_storage("", home))
    trials = study.get_trials(deepcopy=False)
    return [(t.number, t.state, t.value, t.params, t.user_attrs) for t in trials]
whole, prefixes, counts = read(), [], [0, 0]
for end in [i + 1 for i, byte in enumerate(content) if byte == 10]:
    (home / "study.log").write_bytes(content[:end])
    try:
        prefixes.append(read())
    except KeyError:
        pass
for seed in range(500):
    changed = mutate(content, seed)
    (home / "study.log").write_bytes(changed)
    try:
        found = read()
    except UserError as error:
        assert "study.log: line" in str(error) and "\\n" not in str(error), seed
        counts[0] += 1
        continue
    except KeyError:  # no study is there yet: all of it is cut off
        found = []
    counts[1] += 1
    assert found == whole or found in [[], *prefixes], seed
(home / "study.log").write_bytes(content)
print(*counts)
"""


@fault(
    injected="500 mutations of study.log, read in a child with 4 GB of memory",
    holds="the values that were written, up to where it was cut off, or one message "
    "with the file and the line",
    without=[
        (
            "cnn/sweep/lines.py",
            "    if found is not None and int(found[1], 16) != zlib.crc32(body, "
            "zlib.crc32(before)):",
            "    if found is not None and before is None:",
        )
    ],
    n=500,
)
def test_mutations_of_the_journal(room):
    run_sweep(room, STUDY | {"epochs": 1}).check_done()
    ended = fuzz(room, _FUZZ_JOURNAL, room.path / "sweep/sweep").check_done()
    refused, read = map(int, ended.out.split())
    assert refused > 300 and refused + read == 500, ended


_FUZZ_ROWS = """
import sys
from pathlib import Path
from mutations import mutate
from cnn.runtime.terminal import Terminal
from cnn.sweep import table
path = Path(sys.argv[1]) / "trials.jsonl"
content, csv = path.read_bytes(), path.with_name("trials.csv").read_bytes()
beside = path.with_name("trials.jsonl.damaged")
whole = {row["trial"]: row for row in table.read_rows(path)}
class Told(Terminal):
    def say(self, text=""):
        told.append(text)
for seed in range(500):
    changed, told = mutate(content, seed), []
    path.write_bytes(changed)
    beside.unlink(missing_ok=True)
    table.mend(path, Told())
    rows = table.read_rows(path)
    # Of a sum whose name has changed, that stays beside what it was of.
    names = [(row[n], x) for row in rows for n, x in whole[row["trial"]].items()]
    assert all(found == written for found, written in names), seed
    lost = len(rows) < len(whole)
    fewer = changed.count(b"\\n") < content.count(b"\\n")  # lines that are gone
    assert not lost or told or fewer, seed
    assert [line.count(str(path)) for line in told] == [1] * beside.exists(), seed
    path.with_name("trials.csv").write_bytes(mutate(csv, seed))
    path.write_bytes(content)
    table.write_csv(path.with_name("trials.csv"), table.read_rows(path))
    assert path.with_name("trials.csv").read_bytes() == csv, seed
"""


@fault(
    injected="500 mutations each of trials.jsonl and of trials.csv, in a child with "
    "4 GB of memory",
    holds="a damaged line is put aside with one message, what is left has the values "
    "that were written; trials.csv is made again, the same to the byte",
    without=[
        (
            "cnn/sweep/lines.py",
            "    if found is not None and int(found[1], 16) != zlib.crc32(body, "
            "zlib.crc32(before)):",
            "    if found is not None and before is None:",
        )
    ],
    n=1000,
)
def test_mutations_of_the_table(room):
    run_sweep(room, GRID).check_done()
    fuzz(room, _FUZZ_ROWS, room.path / "sweep/sweep").check_done()


def fuzz(room, code, directory):
    """Run code that reads mutations, in a child with limited memory and time."""
    path = f"{room.root}:{Path(__file__).parent}"
    limits = {"RLIMIT_AS": 4 * 2**30}
    return room.python(code, directory, env={"PYTHONPATH": path}, limits=limits)


@fault(
    injected="a digit of a line of trials.jsonl is changed, after a kill",
    holds="the line is put aside, its trial runs again, and the table is the same",
    without=[
        (
            "cnn/sweep/lines.py",
            "    if found is not None and int(found[1], 16) != zlib.crc32(body, "
            "zlib.crc32(before)):",
            "    if found is not None and before is None:",
        )
    ],
)
def test_a_row_of_the_table_is_damaged(room):
    run_sweep(room, GRID).check_done()
    path = room.path / "sweep/sweep/trials.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    name = b'"validation_accuracy":'
    before, _, after = lines[1].partition(name)
    lines[1] = before + name + b" 1.0" + after[after.index(b",") :]
    path.write_bytes(b"".join(lines))
    ended = run_sweep(room, GRID).check_done()
    assert "1 of 6 lines are damaged" in ended.out, ended
    assert path.with_name("trials.jsonl.damaged").read_bytes() == lines[1]
    check_same(room, GRID)


_ODD = """
from cnn.training import metrics
given, number = metrics.summarise, iter(range(1000))
def summarise(sums):
    found = given(sums)
    return found | ({"accuracy": float("nan")} if next(number) in (0, 2) else {})
metrics.summarise = summarise
"""


@fault(
    injected="the metric of the first and the third evaluation is not a number",
    holds="it is said and never the best; the run has the state of the undisturbed one",
    without=[
        (
            "cnn/training/counters.py",
            "        is_better = math.isfinite(value) and (",
            "        is_better = value is not None and (",
        ),
        (
            "cnn/training/counters.py",
            "        has_best = self.best_step >= 0 and math.isfinite(self.best_value)",
            "        has_best = self.best_step >= 0",
        ),
    ],
)
def test_the_metric_is_not_a_number(room):
    run_sweep(room, TINY, "run", _ODD).check_done()
    room.train("whole").check_done()
    result, whole = (
        json.loads((room.path / name / "result.json").read_text())
        for name in ("run", "whole")
    )
    assert result["state_sha256"] == whole["state_sha256"]
    length = result["steps"] // TINY["epochs"]
    assert result["best_step"] in (length, 3 * length), result
    assert result["best_validation"] == result["best_validation"] > 0


@fault(
    injected="the metrics of two of six trials are not numbers",
    holds="they have failed, with the reason; the others and their table are the same; "
    "exit code 1",
    without=[
        (
            "cnn/sweep/batch.py",
            '        for name in ("loss", options.select_by):',
            '        for name in ("loss",):',
        )
    ],
)
def test_the_metric_of_a_trial_is_not_a_number(room):
    options = GRID | {"executor": "loop"}
    options.pop("trials_at_once")
    # Trial by trial: at the start, after each of three epochs, on the test set.
    odd = _ODD.replace("in (0, 2)", "in (3, 6)")
    ended = run_sweep(room, options, patch=odd)
    assert ended.code == 1 and "Traceback" not in ended.err, ended
    found = read_trials(room.path / "sweep")
    wanted = sweep_undisturbed(tuple(options.items()))
    failed = [row for row in found if row["status"] == "failed"]
    assert len(failed) == 2
    assert all("accuracy is not finite after step" in row["reason"] for row in failed)
    assert [r for r in found if r not in failed] == [
        row for row, own in zip(wanted, found, strict=True) if own not in failed
    ]


@fault(
    injected="the device has no memory for one of six trials",
    holds="it has failed, with the reason; the others are the same; exit code 1",
    without=[
        (
            "cnn/sweep/session.py",
            "            if not is_shortage(error) or len(some) > 1:",
            "            if error is not None:",
        )
    ],
)
def test_a_trial_has_no_memory(room):
    options = GRID | {"executor": "loop"}
    options.pop("trials_at_once")
    patch = """
from cnn.training import progress
given, number = progress.begin, iter(range(1000))
def begin(setup):
    if next(number) == 2:
        raise MemoryError
    return given(setup)
progress.begin = begin
"""
    ended = run_sweep(room, options, patch=patch)
    assert ended.code == 1 and "Traceback" not in ended.err, ended
    found = read_trials(room.path / "sweep")
    wanted = sweep_undisturbed(tuple(options.items()))
    (failed,) = [row for row in found if row["status"] == "failed"]
    assert "memory" in failed["reason"]
    assert [row for row in found if row != failed] == [
        row for row, own in zip(wanted, found, strict=True) if own != failed
    ]


@fault(
    injected="SIGKILL when a worker has saved its rows, before it tells the study",
    holds="the next start tells them; nothing is trained twice, the table is the same",
    without=[
        (
            "cnn/sweep/worker.py",
            "        home = self._session.home.parent / worker\n",
            "        return None\n        home = self._session.home.parent / worker\n",
        )
    ],
)
def test_a_worker_is_killed_before_it_tells(room):
    patch = f"""
from cnn.sweep.study import Study
def tell(*arguments):
    {KILL}
Study.tell = tell
"""
    assert run_sweep(room, STUDY, patch=patch).code > 128
    saved = (room.path / ROWS).read_bytes()
    assert saved.count(b"\n") == 2
    run_sweep(room, STUDY).check_done()
    whole = (room.path / ROWS).read_bytes()
    assert whole.startswith(saved) and whole.count(b"\n") == STUDY["trials"]
    check_same(room, STUDY)


@fault(
    injected="SIGKILL between failing a dead worker's setting and queueing it again",
    holds="whoever comes next queues it; the table is the same",
    without=[
        (
            "cnn/sweep/study.py",
            '            is_given_up = trial.state.name == "FAIL" and GIVEN_UP in '
            "trial.user_attrs",
            "            is_given_up = False",
        )
    ],
)
def test_a_worker_is_killed_while_it_takes_over(room):
    process, drawn = start_sweep(room, STUDY), b'"param_name":"momentum"'
    assert wait_until(process, lambda: count_lines(room.path / ROWS))
    journal = room.path / JOURNAL
    assert wait_until(process, lambda: journal.read_bytes().count(drawn) == 4)
    kill(process)
    patch = f"""
import optuna
def enqueue_trial(*arguments, **options):
    {KILL}
optuna.Study.enqueue_trial = enqueue_trial
"""
    assert run_sweep(room, STUDY, patch=patch).code > 128
    run_sweep(room, STUDY).check_done()
    check_same(room, STUDY, numbers=False)


@fault(
    injected="a worker's directory is removed, with the rows of all that it ran",
    holds="it is said, the settings run again, and the table is the same",
    without=[
        (
            "cnn/sweep/worker.py",
            "            if lost := study.retry_lost(str(session.home), "
            "worker.list_whole()):",
            "            if lost := 0:",
        )
    ],
)
def test_the_directory_of_a_worker_is_removed(room):
    run_sweep(room, STUDY).check_done()
    shutil.rmtree((room.path / ROWS).parent)
    ended = run_sweep(room, STUDY).check_done()
    assert "4 settings whose rows are lost run again" in ended.out, ended
    check_same(room, STUDY, numbers=False)


@fault(
    injected="SIGKILL between a trial's row and trials.csv, at each of three batches",
    holds="the same command runs no trial again and ends with the same table",
    without=[
        (
            "cnn/sweep/table.py",
            '            atomic.append(self._file, b"".join(map(seal, rows)))\n',
            "            pass\n",
        )
    ],
    n=3,
)
def test_a_sweep_is_killed_before_its_table(room):
    patch = f"""
from cnn.sweep import table
def write_csv(*arguments):
    {KILL}
table.write_csv = write_csv
"""
    lines = room.path / "sweep/sweep/trials.jsonl"
    for batch in range(3):
        assert run_sweep(room, GRID, patch=patch).code > 128
        assert count_lines(lines) == 2 * (batch + 1)
    saved = lines.read_bytes()
    run_sweep(room, GRID).check_done()
    assert lines.read_bytes() == saved
    check_same(room, GRID)


HALVING = GRID | {"halving": 2, "epochs": 4}
HALVING["sweep"] = "learning_rate=0.001,0.01,0.1,0.3; seed=0:2"


@fault(
    injected="SIGKILL at the end of each rung of halving, before and after its pruning",
    holds="the same command ends with the same table",
    without=[
        (
            "cnn/sweep/searches.py",
            '        if row["status"] == "pruned" and row["rung"] < number:',
            "        if number >= 0:",
        )
    ],
    n=3,
)
def test_halving_is_killed_at_every_rung(room):
    lines = room.path / "sweep/sweep/trials.jsonl"
    for place in ("searches._prune", "table.write_csv", "table.write_csv"):
        patch = f"""
from cnn.sweep import searches, table
given = {place}
def killed(*arguments):
    if given is table.write_csv_given and len(arguments[1]) <= {count_lines(lines)}:
        return given(*arguments)
    {KILL}
table.write_csv_given = table.write_csv
{place} = killed
"""
        assert run_sweep(room, HALVING, patch=patch).code > 128, place
    assert count_lines(lines)
    run_sweep(room, HALVING).check_done()
    check_same(room, HALVING)


@fault(
    injected="a second process starts in the directory of a sweep that runs",
    holds="it is refused with one message; the first ends with the same table",
    without=[
        (
            "cnn/sweep/sweep.py",
            "    with workdir.lock(directory):\n        started = time.perf_counter()\n"
            "        session = Session(config, home, terminal, stop)",
            "    if directory:\n        started = time.perf_counter()\n"
            "        session = Session(config, home, terminal, stop)",
        )
    ],
)
def test_two_sweeps_in_one_directory(room):
    process = start_sweep(room, GRID)
    assert wait_until(process, (room.path / "sweep/sweep/config.json").exists)
    process.send_signal(signal.SIGSTOP)  # so that it is there still
    second = run_sweep(room, GRID)
    process.send_signal(signal.SIGCONT)
    second.check_refused("is in use by process", str(process.pid))
    finish(process).check_done()
    check_same(room, GRID)


@fault(
    injected="the disk of a sweep is full, then has room",
    holds="one message that names the file, exit code 2; the same command ends with "
    "the same table",
    without=[
        (
            "cnn/sweep/table.py",
            "        except OSError as error:\n            raise UserError(\n"
            '                f"{self._path}',
            "        except EOFError as error:\n            raise UserError(\n"
            '                f"{self._path}',
        )
    ],
)
def test_the_disk_of_a_sweep_is_full(room):
    with room.small_disk(2**22) as disk:
        filler = disk / "filler"
        process = start_sweep(room, GRID | {"epochs": 60}, disk / "sweep")
        lines = disk / "sweep/sweep/trials.jsonl"
        assert wait_until(process, lambda: count_lines(lines))
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        ended = finish(process)
        assert ended.code == 2 and "Traceback" not in ended.err, ended
        assert ended.err.count("error: ") == 1 and "No space" in ended.err, ended
        assert str(disk) in ended.err, "it names the file"
        filler.unlink()
        run_sweep(room, GRID | {"epochs": 60}, disk / "sweep").check_done()
        check_same(room, GRID | {"epochs": 60}, directory=disk / "sweep")


@fault(
    injected="the kept state of the best trial is damaged, then a link, then gone; "
    "other files lie beside it",
    holds="it is said and not published; nothing of others is removed, the table stays",
    without=[
        (
            "cnn/sweep/outcome.py",
            "    is_there = is_whole(kept)",
            "    is_there = kept.exists()",
        )
    ],
    n=3,
)
def test_the_state_of_the_best_trial_is_lost(room):
    run_sweep(room, GRID).check_done()
    home = room.path / "sweep/sweep"
    other = room.path / "other"
    other.mkdir()
    (other / "mine").write_text("mine")
    (home / "kept/notes").mkdir()
    (home / "kept/notes/mine").write_text("mine")
    (kept,) = (path for path in (home / "kept").iterdir() if path.name.isdecimal())
    files = (kept / "checkpoints").rglob("*")
    file = max(files, key=lambda x: x.stat().st_size * x.is_file())
    for damage in ("cut", "link", "gone"):
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
        elif damage == "link":
            shutil.rmtree(kept)
            kept.symlink_to(other)
        else:
            kept.unlink()
        ended = run_sweep(room, GRID).check_done()
        assert "was not kept; this trains it again" in ended.out, ended
        assert not (home / "best").exists()
        assert (other / "mine").exists() and (home / "kept/notes/mine").exists()
    check_same(room, GRID)


@fault(
    injected="the clock of one of two workers jumps by minutes, back and forth",
    holds="both keep what they run: nothing is given up, the table is the same",
    without=[
        (
            "cnn/sweep/study.py",
            "beats, now, count = self._study.user_attrs, time.monotonic(), 0",
            "beats, now, count = self._study.user_attrs, time.time(), 0",
        )
    ],
)
def test_the_clock_of_workers_jumps(room):
    patch = """
import itertools, time
jumps, given = itertools.cycle((0, 100, -60, 200)), time.time
time.time = lambda: given() + next(jumps)
"""
    other = start_sweep(room, STUDY | {"worker": "other"})
    mine = run_sweep(room, STUDY, patch=patch).check_done()
    finish(other).check_done()
    assert "dead worker" not in mine.out, mine
    assert "given up" not in (room.path / JOURNAL).read_text()
    check_same(room, STUDY, numbers=False)


@fault(
    injected="a worker gets SIGKILL at three random moments",
    holds="the same command ends with the same table; each setting has one row",
    without=[
        (
            "cnn/sweep/study.py",
            "                self._study.enqueue_trial(params, user_attrs=about)",
            "                pass",
        )
    ],
    n=3,
)
def test_a_worker_is_killed_at_random(room):
    draw, journal = random.Random(7), room.path / JOURNAL
    for _ in range(3):
        process, before = start_sweep(room, STUDY), count_lines(journal)
        more = draw.randrange(10, 60)
        if wait_until(process, lambda: count_lines(journal) > before + more):  # noqa: B023
            kill(process)
    run_sweep(room, STUDY).check_done()
    check_same(room, STUDY, numbers=False)
