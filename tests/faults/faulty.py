"""Faults: how each is injected from outside, what holds, and what it holds by.

A fault is a test that takes a `room`, starts the program there as a process of its own,
and says by `@fault` what docs/reliability.md has of it. `without` is the protection:
texts of the source and what they are replaced with. With --without-protection the same
test runs a copy of the program that lacks it, and has to fail.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import pytest
from fixtures_runs import ROOT, TINY, make_flags, read_lines

SECONDS = 180
# Of the program, what a copy of it needs.
_PROGRAM = ("main.py", "cnn", "configs")
_OUTCOMES = (AssertionError, pytest.fail.Exception, subprocess.TimeoutExpired)


@dataclasses.dataclass(frozen=True)
class Fault:
    """What the table says of a fault.

    Attributes:
        injected: how, in a few words.
        holds: what then holds, in a few words.
        without: the protection: (file, text, what replaces it), the text being there
            exactly once.
        n: how often the fault is injected.
    """

    injected: str
    holds: str
    without: tuple[tuple[str, str, str], ...]
    n: int


def fault(
    injected: str,
    holds: str,
    without: Sequence[tuple[str, str, str]],
    n: int = 1,
    slow: bool = True,
) -> Callable:
    """Make a test a fault; see `Fault`. `slow`: whether it takes more than 5 s."""

    def mark(check: Callable[["Room"], None]) -> Callable[["Room"], None]:
        @functools.wraps(check)
        def test(room: Room) -> None:
            if room.is_protected:
                check(room)
                return
            with pytest.raises(_OUTCOMES):
                check(room)

        test.fault = Fault(injected, holds, tuple(without), n)
        return pytest.mark.slow(test) if slow else test

    return mark


def copy_without(without: Sequence[tuple[str, str, str]], to: Path) -> Path:
    """Copy the program without a protection; returns where it is."""
    to.mkdir()
    for name in _PROGRAM:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, to / name)
    for file, text, instead in without:
        whole = (to / file).read_text()
        assert whole.count(text) == 1, f"{file} has {whole.count(text)} of {text!r}"
        changed = whole.replace(text, instead)
        compile(changed, file, "exec")
        (to / file).write_text(changed)
    return to


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code, a shell's, and what it printed."""

    code: int
    out: str
    err: str

    def check_done(self) -> "Ended":
        """Require that it did what it was asked for, without a traceback."""
        assert self.code == 0, self
        assert "Traceback" not in self.out + self.err, self
        return self

    def check_refused(self, *words: str) -> "Ended":
        """Require exit code 2 and one message of one line, which has these words."""
        assert self.code == 2, self
        lines = [x for x in self.err.splitlines() if not x.startswith("note: ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), self
        for word in words:
            assert word in lines[0], (word, self)
        return self


@dataclasses.dataclass(frozen=True)
class Room:
    """Where a fault is injected.

    Attributes:
        path: an empty directory; processes are started in it.
        root: of the program.
        is_protected: whether the program is whole.
    """

    path: Path
    root: Path = ROOT
    is_protected: bool = True

    def start(
        self,
        *arguments: object,
        env: dict[str, str] | None = None,
        limits: dict[str, int] | None = None,
    ) -> subprocess.Popen:
        """Start main.py with flags, its output in pipes.

        Args:
            env: variables besides those of this process.
            limits: of the process, as `RLIMIT_NOFILE`: 48.
        """
        cache = jax.config.jax_compilation_cache_dir or "off"
        command = [self.root / "main.py", f"--compilation_cache={cache}", *arguments]
        return self._start(command, env, limits)

    def _start(
        self, command: Sequence, env: dict | None, limits: dict | None
    ) -> subprocess.Popen:
        def limit() -> None:
            for name, value in (limits or {}).items():
                resource.setrlimit(getattr(resource, name), (value, value))

        plain = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=1",
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=self.path,
            env=os.environ | plain | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=limit,
        )

    def main(self, *arguments: object, seconds: float = SECONDS, **how) -> Ended:
        """Run main.py with flags to its end; `how` as of `start`."""
        return finish(self.start(*arguments, **how), seconds)

    def python(
        self, code: str, *arguments: object, seconds: float = SECONDS, **how
    ) -> Ended:
        """Run code that may import `cnn` as a process; `how` as of `start`."""
        how = {"env": None, "limits": None} | how
        return finish(self._start(["-c", code, *arguments], **how), seconds)

    def train(self, directory: object, seconds: float = SECONDS, **changes) -> Ended:
        """Train a tiny run of digits, `TINY` with changes, in a directory."""
        return self.main(
            f"--workdir={directory}", *make_flags(TINY | changes), seconds=seconds
        )

    @contextlib.contextmanager
    def small_disk(self, size: int) -> Iterator[Path]:
        """Give a directory on a disk of so many bytes; skips where none can be made."""
        disk = self.path / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a small disk can be made by root alone")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def finish(process: subprocess.Popen, seconds: float = SECONDS) -> Ended:
    """Wait for a process; it is killed when the seconds are over.

    Raises:
        TimeoutExpired: they were.
    """
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    code = process.returncode
    return Ended(code if code >= 0 else 128 - code, out, err)


def hash_tree(directory: Path) -> dict[str, str]:
    """Return what lies in a directory: by path a file's SHA-256, a link's target."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "a directory"
    return found


def read_run(directory: Path) -> tuple:
    """Return what an undisturbed run and a disturbed one must have in common."""
    result = json.loads((directory / "result.json").read_text())
    return result["state_sha256"], result["steps"], read_lines(directory)


@functools.cache
def run_undisturbed(**changes) -> tuple:
    """Return `read_run` of a tiny run that nothing happened to."""
    with tempfile.TemporaryDirectory() as directory:
        room = Room(Path(directory))
        room.train("run", **changes).check_done()
        return read_run(room.path / "run")
