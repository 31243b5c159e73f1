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
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import pytest
from faulty import Room, fault, finish, hash_tree, read_run
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
LONG = {"epochs": 60}
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
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def start_sweep(room, options, directory="sweep", **how):
    """Start a sweep as a process."""
    return room.start(f"--workdir={directory}", *make_flags(options), **how)


def run_sweep(room, options, directory="sweep", **how):
    """Run a sweep to its end."""
    return finish(start_sweep(room, options, directory, **how))


def run_hooked(room, patch, options, directory="sweep"):
    """Run main.py after doing something to the modules of `cnn`."""
    lines = ("import os, signal\n" + patch).strip().split("\n")
    code = _HOOK.format(patch="\n".join(f"    {line}" for line in lines))
    cache = jax.config.jax_compilation_cache_dir or "off"
    flags = [f"--compilation_cache={cache}", f"--workdir={directory}"]
    return room.python(code, room.root / "main.py", *flags, *make_flags(options))


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
    options = STUDY | LONG | {"trials": 6}
    with run_server() as server:
        process = start_sweep(room, options | {"storage": server.address})
        lines = room.path / "sweep/sweep/workers/me/trials.jsonl"
        assert wait_until(process, lambda: count_lines(lines)), process.communicate()
        server.stop()
        time.sleep(4)
        server.start()
        ended = finish(process).check_done()
    assert ended.out.count("does not answer") == 1, ended
    assert ended.out.count("answers again") == 1, ended
    check_same(room, options)
