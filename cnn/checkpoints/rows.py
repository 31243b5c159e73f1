"""CSV files of a run's directory that are written row by row.

Rows go to NAME.partial.csv as they are computed, and NAME.csv takes its place whole, at
the end. Bytes of names that are not in the encoding of the system stay what they are.

A spreadsheet computes cells that look like a formula, whoever named the file or the
class. Such a path, which is a relative one, gets `./` before it, any other such cell an
apostrophe.

Source: https://owasp.org/www-community/attacks/CSV_Injection
"""

import array
import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from cnn.checkpoints import atomic
from cnn.errors import UserError, explain
from cnn.runtime import own_files
from cnn.text import format_row

_ALWAYS = re.compile(r"[=@\t\r\n]")
_SIGNED = re.compile(r"[+-]+[^+-].*[-+*/^&=<>(\[{|!@]", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may compute a cell instead of showing it."""
    if _NUMBER.fullmatch(text):
        return False
    return bool(_ALWAYS.match(text) or _SIGNED.match(text))


def escape_path(path: str) -> str:
    """Return a path that names the same file and is no formula."""
    return f".{os.sep}{path}" if is_formula(path) else path


def escape_text(text: str) -> str:
    """Return a text that is no formula, with an apostrophe before it if needed."""
    return f"'{text}" if is_formula(text) else text


def name_partial(path: Path) -> Path:
    """Name the file that holds the rows until all are there."""
    return path.with_suffix(f".partial{path.suffix}")


@contextlib.contextmanager
def open_rows(
    path: Path, columns: Sequence[str]
) -> Iterator[Callable[[Sequence[tuple[int, Sequence[str]]]], None]]:
    """Write a CSV file whose rows come in any order.

    Yields:
        What takes some rows, each the number that it is sorted by and its cells. They
        are on disk when it returns.

    Raises:
        UserError: the directory cannot be written, or another process writes there.
            Then, or when what is done inside raises, the rows so far stay in the
            partial file; without any it is removed.
    """
    partial = name_partial(path)
    numbers, starts = array.array("q"), array.array("q")
    try:
        file = own_files.open_own(partial, "ab+", buffering=0)
    except OSError as error:
        raise _explain(path, error) from None
    with file, _lock(file, path):
        file.truncate(0)

        def write(found: Sequence[tuple[int, Sequence[str]]]) -> None:
            texts = [_encode(cells) for _, cells in found]
            start = _write_all(file, path, b"".join(texts))
            for (number, _), text in zip(found, texts, strict=True):
                numbers.append(number)
                starts.append(start)
                start += len(text)

        try:
            _write_all(file, path, _encode(columns))
            yield write
        except BaseException:
            if not numbers:
                partial.unlink(missing_ok=True)
            raise
        try:
            _sort(file, path, np.asarray(numbers), np.asarray(starts))
        except OSError as error:
            raise _explain(path, error) from None


def _encode(cells: Sequence[str]) -> bytes:
    return format_row(cells).encode(errors="surrogateescape")


def _lock(file: IO[bytes], path: Path) -> contextlib.AbstractContextManager:
    try:
        return atomic.hold(file, wait=False)
    except BlockingIOError:
        raise UserError(
            f"{path} is being written by another process; wait for it"
        ) from None


def _write_all(file: IO[bytes], path: Path, content: bytes) -> int:
    """Append bytes, or leave the file as it was; return where they begin."""
    try:
        return atomic.append(file, content, is_synced=False)
    except OSError as error:
        raise _explain(path, error) from None


def _sort(file: IO[bytes], path: Path, numbers: np.ndarray, starts: np.ndarray) -> None:
    """Put the rows of the partial file in their order, under the file's name."""
    partial = name_partial(path)
    if np.all(numbers[1:] > numbers[:-1]):
        os.fsync(file.fileno())
        os.replace(partial, path)
        return
    sizes = np.diff(starts, append=file.seek(0, os.SEEK_END))
    with atomic.replace(path) as whole:
        file.seek(0)
        whole.write(file.read(int(starts[0])))
        for i in np.argsort(numbers):
            file.seek(int(starts[i]))
            whole.write(file.read(int(sizes[i])))
    partial.unlink()


def _explain(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written ({explain(error)})")
