"""Files of a run's directory: written where they lie, never through a link.

What a link leads to, or what has another name too, was not written by the run.
"""

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO

from cnn.errors import UserError

# Windows has neither; not to block keeps a pipe from being waited for.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def check_no_link(path: Path) -> None:
    """Refuse a path that is a link: what is written there would lie elsewhere.

    Raises:
        UserError: it is one.
    """
    if path.is_symlink():
        raise UserError(
            f"{path} is a link to {os.readlink(path)}, and nothing is written through "
            "links in a run's directory; remove the link, or choose another directory"
        )


def open_own(path: Path, mode: str, buffering: int = -1, is_shared: bool = False) -> IO:
    """Open a file for writing or appending, if it lies there and nowhere else.

    Args:
        mode: as of `open`; `buffering` likewise.
        is_shared: whether it may have other names, as hard links.

    Raises:
        UserError: it is a link, no file, or has another name, under which it would
            change too.
        OSError: it cannot be opened.
    """

    def open_checked(name: str, flags: int) -> int:
        file = os.open(name, flags | _FLAGS, 0o666)
        status, problem = os.fstat(file), ""
        if not stat.S_ISREG(status.st_mode):
            problem = "is no file; move it away"
        elif status.st_nlink > 1 and not is_shared:
            problem = "has another name too, a hard link; put a copy in its place"
        if problem:
            os.close(file)
            raise UserError(f"{path} {problem}, or choose another directory")
        return file

    check_no_link(path)
    return open(path, mode, buffering, opener=open_checked)


def check_kind(path: Path) -> None:
    """Refuse what must not be opened: a pipe is waited for, a device read for ever.

    Raises:
        OSError: it is one of these, or a socket.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no file but a device, a pipe or a socket")


def read(path: Path) -> bytes:
    """Read a file.

    Raises:
        OSError: as `check_kind`, or it cannot be read.
    """
    check_kind(path)
    return path.read_bytes()


def unshare(path: Path) -> None:
    """Put a copy in the place of a file that has other names too, which keep it.

    Raises:
        UserError: it is a link.
    """
    check_no_link(path)
    if not path.is_file() or path.stat().st_nlink == 1:
        return
    opened, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(opened)
    shutil.copy(path, temporary)
    os.replace(temporary, path)
