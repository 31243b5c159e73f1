"""Files and lines written whole or not at all, by one process at a time."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import SoftFileLock, Timeout

from cnn.errors import UserError, explain

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_TRIES, _PAUSE = 200, 0.05  # seconds, to open what another process writes
_SOFT_SECONDS = 1.0  # in which the lock of a process that has died is taken over


def hold(file: IO, wait: bool) -> contextlib.AbstractContextManager:
    """Lock an open file, or where the system has no such locks, a file beside it.

    The one beside it says whose it is; that of a process of this machine which has
    died does not count.

    Args:
        wait: for the process that holds it.

    Returns:
        What unlocks it at the end.

    Raises:
        BlockingIOError: another process holds it.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return contextlib.nullcontext()  # closing the file unlocks it
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise BlockingIOError from None
    try:
        lock = SoftFileLock(f"{file.name}.soft")
        return lock.acquire(timeout=-1 if wait else _SOFT_SECONDS)
    except Timeout:
        raise BlockingIOError from None


def is_held(path: Path) -> bool:
    """Return whether another process has locked a file, where the system tells that.

    The lock is shared for a moment: who wants it alone just then has to try again.
    """
    if fcntl is None:
        return False
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(file)


def is_at(file: IO, path: Path) -> bool:
    """Return whether an open file is still the one of that path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, as `write_bytes` does.

    Parts of paths that are not in the encoding of the system keep their bytes.
    """
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_bytes(path: Path, content: bytes, mode: int = 0) -> None:
    """Write a file whole or not at all.

    Args:
        mode: its permissions; 0: as the system gives them.

    Raises:
        UserError: as `replace`.
    """
    with replace(path, mode) as file:
        file.write(content)


@contextlib.contextmanager
def replace(path: Path, mode: int = 0) -> Iterator[IO[bytes]]:
    """Give an empty file that takes the place of `path` when all is written.

    It is `.NAME.new` until then. One that a killed process has left is taken over, as
    its lock is free.

    Args:
        mode: as of `write_bytes`.

    Raises:
        UserError: it cannot be written, or another process writes it.
    """
    temporary = name_new(path)
    try:
        with _open_alone(path, temporary) as file:
            try:
                file.truncate(0)
                yield file
                file.flush()
                os.fsync(file.fileno())
                if mode:
                    os.chmod(temporary, mode)
                if fcntl is None:
                    file.close()  # Windows moves no open file
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                with contextlib.suppress(OSError):
                    file.close()  # which tries to write the rest
                raise
    except OSError as error:
        raise UserError(f"{path} cannot be written ({explain(error)})") from None


def name_new(path: Path) -> Path:
    """Name what takes the place of a path when it is whole."""
    return path.with_name(f".{path.name}.new")


@contextlib.contextmanager
def _open_alone(path: Path, temporary: Path) -> Iterator[IO[bytes]]:
    """Open a file that no other process has open here.

    Raises:
        UserError: one has for seconds.
    """
    for _ in range(_TRIES):
        if temporary.is_symlink():  # it would be written through
            temporary.unlink()
        with open(temporary, "ab", opener=_open_no_link) as file:
            if os.fstat(file.fileno()).st_nlink > 1:  # so would its other name
                temporary.unlink(missing_ok=True)
                continue
            try:
                with hold(file, wait=False):
                    if is_at(file, temporary):  # else it has taken its place
                        yield file
                        return
            except BlockingIOError:
                time.sleep(_PAUSE)
    raise UserError(f"{path} is being written by another process; wait for it")


def _open_no_link(name: str, flags: int) -> int:
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(name, flags, 0o666)


def append(file: IO[bytes], content: bytes, is_synced: bool = True) -> int:
    """Write at the end of an unbuffered file, or leave the file as it was.

    Args:
        is_synced: whether it is to outlast the machine, not the process alone.

    Returns:
        Where it begins, in bytes.

    Raises:
        OSError: the disk does not take it.
    """
    start, left = file.seek(0, os.SEEK_END), memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
        if is_synced:
            os.fsync(file.fileno())
    except OSError:
        file.truncate(start)
        raise
    return start


def write_json(path: Path, value: Any, mode: int = 0) -> None:
    """Write JSON whole or not at all, indented; `mode` as of `write_bytes`."""
    write_bytes(path, f"{json.dumps(value, indent=2)}\n".encode(), mode)
