"""A study as a file that several processes append lines to.

Optuna's own format, which its dashboard reads. The lock is the system's: that of a
process that has died is gone with it. A line that a death or a full disk has cut off is
removed before the next is appended; any other that is not what was written is refused,
because all that came later refers to the lines before it by their number.

Source: optuna.storages.journal.JournalFileBackend
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cnn.checkpoints import atomic
from cnn.errors import UserError, explain
from cnn.runtime import own_files
from cnn.sweep.lines import seal, unseal

LOCK_SECONDS = 2.0
_PAUSE = 0.005
_KNOWN = len(b'{"op_code"')  # bytes by which the start of a first line is known


class Journal:
    """What Optuna calls the backend of a JournalStorage."""

    def __init__(self, path: Path) -> None:
        """Make the file if it does not exist.

        Raises:
            UserError: it cannot be written.
        """
        self._path = path
        # Where the line of the next number begins, and the one before it.
        self._number, self._start, self._before = 0, 0, b""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise self._explain("written", error) from None

    @property
    def line(self) -> int:
        """Return the number, from 1, of the line that was read last."""
        return self._number

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Read the lines from a number on, from 0.

        Raises:
            UserError: the file cannot be read, or one of them is damaged.
        """
        if log_number_from < self._number:
            self._number, self._start, self._before = 0, 0, b""
        try:
            with self._open("rb") as file:
                self._seek(file)
                for line in file:
                    if not line.endswith(b"\n"):
                        return  # it is being written, or was cut off
                    try:
                        found = unseal(line, self._before)
                    except ValueError as error:
                        raise self.refuse(self._number + 1, str(error)) from None
                    self._number += 1
                    self._start += len(line)
                    self._before = line
                    if self._number > log_number_from:
                        yield found
        except OSError as error:
            raise self._explain("read", error) from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines; all are on disk when this returns, or none.

        Raises:
            UserError: the file cannot be written.
            BlockingIOError: another process holds its lock.
        """
        try:
            with self._open("r+b", buffering=0) as file, _hold(file):
                self._seek(file)
                rest = file.read()
                whole = rest[: rest.rfind(b"\n") + 1]
                end = self._start + len(whole)
                before = whole[whole.rfind(b"\n", 0, -1) + 1 :] or self._before
                lines = []
                for log in logs:
                    before = seal(log, before)
                    lines.append(before)
                if not end and rest[:_KNOWN] != lines[0][: len(rest[:_KNOWN])]:
                    raise self.refuse(1, "it is none of a study's")
                file.truncate(end)
                atomic.append(file, b"".join(lines))
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._explain("written", error) from None

    def refuse(self, line: int, why: str) -> UserError:
        """Make the error of a damaged line."""
        return UserError(
            f"{self._path}: line {line} is damaged ({why}). Put a whole copy of the "
            "file back, or give another --study; what has ended stays in trials.jsonl"
        )

    def _open(self, mode: str, buffering: int = -1) -> IO[bytes]:
        own_files.check_kind(self._path)
        return open(self._path, mode, buffering)

    def _seek(self, file: IO[bytes]) -> None:
        """Go to where the next line begins."""
        if file.seek(0, os.SEEK_END) < self._start:
            raise self.refuse(self._number, "the file has become shorter")
        file.seek(self._start)

    def _explain(self, what: str, error: OSError) -> UserError:
        return UserError(f"{self._path} cannot be {what} ({explain(error)})")


@contextlib.contextmanager
def _hold(file: IO[bytes]) -> Iterator[None]:
    """Lock an open file."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            lock = atomic.hold(file, wait=False)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise BlockingIOError(
                    f"{file.name} is locked by another process"
                ) from None
            time.sleep(_PAUSE)
    with lock:
        yield
