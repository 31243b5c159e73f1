"""What is peculiar to the checkpoint library: its names, its errors, what it prints."""

import contextlib
import functools
import gc
import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from cnn.checkpoints import manifest
from cnn.errors import UserError, explain

# It reads a path as a pattern, a backslash as a slash, and /gs/ as the address of a
# bucket; it takes no path that is not Unicode (surrogates).
_STRANGE = re.compile(r"[]\[*?\\\udc80-\udcff]|^/(gs|s3|az|hf)/")
_SECONDS = 0.05  # in which the tasks of a reading that has failed come to their end


@contextlib.contextmanager
def give_plain_name(directory: Path) -> Iterator[Path]:
    """Give a directory a name that the checkpoint library takes, for a while."""
    directory = directory.absolute()
    if not _STRANGE.search(directory.as_posix()):
        yield directory
        return
    if jax.process_count() > 1:
        yield _give_shared_name(directory)
        return
    is_usable = not _STRANGE.search(Path(tempfile.gettempdir()).as_posix())
    home = tempfile.mkdtemp(prefix="cnn-", dir=None if is_usable else "/tmp")
    try:
        name = Path(home) / "checkpoints"
        name.symlink_to(directory, target_is_directory=True)
        yield name
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _give_shared_name(directory: Path) -> Path:
    """Give a directory the same plain name in all processes; it stays, for the others.

    Raises:
        OSError: another user has taken the name.
    """
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:32]
    name = Path("/tmp", f"cnn-{digest}")
    with contextlib.suppress(FileExistsError):
        name.symlink_to(directory, target_is_directory=True)
    is_own = not hasattr(os, "getuid") or name.lstat().st_uid == os.getuid()
    if not is_own or name.readlink() != directory:
        raise OSError(f"{name} is in the way; remove it")
    return name


@functools.cache
def silence() -> None:
    """Let the checkpoint library raise its errors, and not print them as well.

    Its threads log each of theirs with a traceback, its C++ prints another where it
    comes too late for them, and so do event loops that are half made.
    """
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def show(unraisable: Any) -> None:
        about, error = unraisable.object, unraisable.exc_value
        is_late = about is None and isinstance(error, RuntimeError)
        if not is_late and not getattr(about, "__module__", "").startswith("asyncio"):
            before(unraisable)

    sys.unraisablehook = show


@contextlib.contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn whatever the checkpoint library raises and logs into one error.

    It raises errors of many kinds for files that are not as it writes them, logs some
    of them on the way, and leaves tasks behind that complain when they are collected.

    Raises:
        DamagedCheckpoint: naming the checkpoint.
    """
    problem: UserError | None = None
    silence()
    try:
        yield
    except Exception as error:
        what = f"{path} cannot be read ({type(error).__name__}: {explain(error)})"
        is_told = isinstance(error, UserError)
        problem = error if is_told else manifest.DamagedCheckpoint(what)
        _forget(error)
    if problem:
        time.sleep(_SECONDS)
        gc.collect()
        raise problem


def _forget(error: BaseException) -> None:
    """Let go of what an error and those behind it hold, tasks among it."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and each.__traceback__ is not None:
            traceback.clear_frames(each.__traceback__)
            each.__traceback__ = None
            waiting += [each.__cause__, each.__context__]
            each.__cause__ = each.__context__ = None
