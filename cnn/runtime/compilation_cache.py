"""The directory in which jax keeps what it compiled: chosen, and mended.

jax writes an entry in place and never again: one that a kill or a full disk has cut off
would be compiled anew at every start, with a warning each. Entries that cannot be read
are removed, and one line says so; nothing is lost but time.
"""

import errno
import os
import re
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax

from cnn.errors import UserError
from cnn.runtime.options import DeviceOptions
from cnn.text import show_line

# If jax changes this text, its warnings are shown as they are.
_FAILED = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '(.+?)': (.*)"
)
_ZSTD = b"\x28\xb5\x2f\xfd"


def choose(text: str) -> None:
    """Set the directory, or none.

    Args:
        text: of `--compilation_cache`.

    Raises:
        UserError: the directory that was given cannot be written. Without the default
            one there is no cache, which is printed.
    """
    if text == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    try:
        directory = _make(text)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        reason = getattr(error, "strerror", None) or error
        problem = f"--compilation_cache={text} cannot be made or written"
        remedy = "give a directory that can be written, or off"
        if text != DeviceOptions().compilation_cache:
            raise UserError(f"{problem} ({reason}); {remedy}") from None
        note = f"note: compiled programs are not kept: {problem} ({reason}); {remedy}"
        print(note, file=sys.stderr)
        jax.config.update("jax_enable_compilation_cache", False)
        return
    _Warnings(directory).take()
    # Programs that call oneDNN cannot be written; nothing is lost but time.
    warnings.filterwarnings("ignore", "Error writing persistent.*MemoryError")
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _make(text: str) -> Path:
    directory = Path(text).expanduser()
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return directory


class _Warnings:
    """Shows jax's warnings of entries as one note, and removes what is damaged."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._told = directory, set()
        shown = warnings.showwarning
        self._show = shown._show if isinstance(shown, _Warnings) else shown

    def take(self) -> None:
        """Take the place of what shows warnings."""
        warnings.showwarning = self

    def __call__(self, message: Any, *where: Any, **more: Any) -> None:
        found = _FAILED.search(str(message))
        if not found:
            self._show(message, *where, **more)
            return
        action, name, reason = found.groups()
        if action == "reading":
            remove_damaged(self._directory, name)
        if action in self._told:
            return
        self._told.add(action)
        end = {
            "reading": "are damaged and compiled again",
            "writing": "cannot be kept, and are compiled again at the next start",
        }
        print(
            f"note: compiled programs in --compilation_cache={self._directory} "
            f"{end[action]} ({show_line(reason)})",
            file=sys.stderr,
        )


def remove_damaged(directory: Path, name: str) -> None:
    """Remove a program's entries that are not whole, as jax writes them: compressed."""
    for path in directory.glob("*-cache"):
        if not path.name.startswith(f"{name}-"):
            continue
        try:
            content = path.read_bytes()
            if not content.startswith(_ZSTD):  # checked by whoever has zstd
                zlib.decompress(content)
        except zlib.error:
            path.unlink(missing_ok=True)
        except OSError:
            continue
