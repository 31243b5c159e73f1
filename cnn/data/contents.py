"""The bytes of image files on disk, and what is wrong with files that have none.

What is no file is never opened: a pipe would be waited for, a device read for ever.
"""

import os
import pathlib
import stat
from typing import BinaryIO

from cnn.data.decode import BadImage
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.runtime import background

_REMEDY = "mend or delete it, or leave such files out with --bad_images=skip"


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open an image file.

    Raises:
        BadImage: it is a folder, a pipe, a device or the like.
        OSError: it cannot be looked at or opened.
    """
    background.note(os.fspath(path))
    kind = os.stat(path).st_mode
    if stat.S_ISDIR(kind):
        raise BadImage("it is no file but a folder")
    if not stat.S_ISREG(kind):
        raise BadImage("it is no file but a device, a pipe or a socket")
    return pathlib.Path(path).open("rb")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Read the bytes of an image file.

    Raises:
        BadImage: as `open_file`.
        OSError: likewise, or it cannot be read.
    """
    with open_file(path) as file:
        return file.read()


def describe_error(error: Exception) -> str:
    """Say what is wrong with a file that cannot be read, without its name."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def refuse(path: pathlib.Path, error: Exception, options: DataOptions) -> str:
    """Return what is wrong with a skipped file; with `--bad_images=error` raise it."""
    reason = describe_error(error)
    if options.bad_images == "error":
        raise UserError(f"{path}: {reason}; {_REMEDY}") from error
    return reason
