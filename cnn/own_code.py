"""Python files of the user, known by what is in them: `own.py:Net@37c2684e6ae0`.

That is the name of what a file defines: the file's, the one in it, and the first 12
digits of the SHA-256 of the file's bytes. `read_name` makes it of `DIR/own.py:Net`, and
keeps the bytes; so does whoever finds a copy of them (`keep`). Each content is executed
once a process, where it is first asked for, so that what equal files define is equal.
It is code, which may do whatever its user may: run what you trust.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.util
import linecache
import re
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from cnn.errors import UserError, explain, suggest
from cnn.text import show_line

COPY = "own_model.py"  # in a run, of the file that its --model names
_DIGITS = 12  # of a hash
_PREFIX = "own_code_"  # of the names of modules
_FORM = re.compile(
    rf"(?P<path>.+\.py):(?P<name>[^:@/\\]*?)(@(?P<digest>[0-9a-f]{{{_DIGITS}}}))?",
    re.DOTALL,
)
_kept: dict[str, tuple[bytes, str]] = {}  # by digest: what a file holds, where it lies


def split(text: str) -> tuple[str, str, str] | None:
    """Split a name into file, name in it and digest, which may be empty.

    Returns:
        None where it is the name of nothing in a file.
    """
    found = _FORM.fullmatch(text)
    return found and (found["path"], found["name"], found["digest"] or "")


def read_name(flag: str, text: str) -> str:
    """Name what a file defines by its content, and keep that.

    Args:
        flag: whose value it is, for messages.
        text: `DIR/own.py:Net`. What has a digest, is of a file that is absent, or is
            no such name at all, is returned as it is.

    Raises:
        UserError: no name in the file is given, the file does not define it, or cannot
            be read.
    """
    if text.endswith(".py") and not split(text):
        text = f"{text}:"
    found = split(text)
    if found is None or found[2]:
        return text
    path, name = Path(found[0]).expanduser(), found[1]
    if not path.exists():
        return text
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--{flag}={text}: {path}: {explain(error)}") from None
    _check_defined(f"--{flag}={text}", path, name, content)
    return f"{path.name}:{name}@{keep(content, path)}"


def keep(content: bytes, path: Path) -> str:
    """Keep what a file holds, to be executed when it is asked for; return its digest.

    Args:
        path: where it lies, for messages.
    """
    digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
    _kept[digest] = content, str(path.absolute())
    return digest


def keep_copy(directory: Path, text: Any) -> None:
    """Keep the copy in a directory, `COPY`, of what a name is of, if it is there.

    What is wrong with it is said where it is to be executed.
    """
    if isinstance(text, str) and split(text) and get_content(text) is None:
        with contextlib.suppress(OSError):
            path = directory / COPY
            if path.is_file():
                keep(path.read_bytes(), path)


def get_content(text: str) -> bytes | None:
    """Return what the file of a name holds; None where nobody has kept it."""
    found = split(text)
    return _kept[found[2]][0] if found and found[2] in _kept else None


def load(flag: str, text: str) -> Any:
    """Execute a file, once a process, and return what it defines under a name.

    Args:
        flag: whose value it is, for messages.
        text: `own.py:Net@37c2684e6ae0`.

    Raises:
        UserError: there is no such file, executing it fails, or it does not define it.
    """
    path, name, digest = split(text)
    if not digest:
        raise UserError(
            f"--{flag}={text}: there is no file {path}; give the path of yours, as "
            "FILE.py:NAME, or that of a run that keeps it, DIR/own_model.py"
        )
    if digest not in _kept:
        raise UserError(
            f"--{flag}={text}: no file with this content is at hand: its run keeps it "
            f"as own_model.py, which is absent or was changed. Put it back, or give "
            f"--{flag}=FILE.py:{name}"
        )
    try:
        module = _execute(digest)
    except _Failed as error:
        raise UserError(f"--{flag}={text}: {error}") from None
    if not hasattr(module, name):
        known = [x for x in vars(module) if not x.startswith("_")]
        raise UserError(
            f"--{flag}={text}: {module.__file__} has no {name}{suggest(name, known)}"
        )
    return getattr(module, name)


class _Failed(Exception):
    """Executing a file has failed, as the message says."""


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads the bytes that are kept, whatever lies in their file by now."""

    def get_data(self, path: str) -> bytes:
        """Return the source; nothing that was compiled before counts."""
        if path != self.path:
            raise FileNotFoundError(path)
        return _kept[self.name.rpartition("_")[2]][0]

    def path_stats(self, path: str) -> dict[str, Any]:
        """Say that nothing compiled is to be looked for."""
        raise OSError


@functools.cache
def _execute(digest: str) -> types.ModuleType:
    """Execute a file as a module of its own.

    Raises:
        _Failed: naming the line that raised something.
    """
    content, path = _kept[digest]
    name = f"{_PREFIX}{digest}"
    loader = _Loader(name, path)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_file_location(name, path, loader=loader)
    )
    sys.modules[name] = module  # where dataclasses look for types
    lines = content.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[path] = (len(content), None, lines, path)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _Failed(f"{describe_failure(error, path)}") from error
    return module


def describe_failure(error: BaseException, path: str) -> str:
    """Say which line of a file raised something, and what."""
    where = path
    if isinstance(error, SyntaxError):
        where, what = f"{path}:{error.lineno}", error.msg
    else:
        lines = traceback.extract_tb(error.__traceback__)
        own = [x.lineno for x in lines if x.filename == path]
        where = f"{path}:{own[-1]}" if own else path
        what = explain(error)
    remedy = "mend that line"
    if isinstance(error, ModuleNotFoundError):
        remedy = (
            "install it; of your own files, put what is needed into this one: a run "
            "keeps one file"
        )
    said = show_line(f"{where}: {type(error).__name__}: {what}")
    return f"{said}; {remedy}"


def find_file(text: str) -> str:
    """Return where the file lies that a name is of; empty where nobody has kept it.

    Of one that was executed, where it lay then: that stands in its tracebacks.
    """
    found = split(text)
    if not found or found[2] not in _kept:
        return ""
    module = sys.modules.get(f"{_PREFIX}{found[2]}")
    return module.__file__ if module else _kept[found[2]][1]


def _check_defined(given: str, path: Path, name: str, content: bytes) -> None:
    """Refuse a name that a file does not define; what does not parse fails later."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    defined = [
        x.name for x in tree.body if isinstance(x, ast.ClassDef | ast.FunctionDef)
    ]
    if not name:
        known = ", ".join(f"{path}:{x}" for x in defined)
        known = f"; {path} defines {known}" if known else ""
        given = given.removesuffix(":")  # which `read_name` added
        raise UserError(f"{given}: name what {path} defines too, as FILE.py:Net{known}")
    mentioned = {x.id for x in ast.walk(tree) if isinstance(x, ast.Name)}
    mentioned |= {y for x in ast.walk(tree) for y in _list_imported(x)}
    stars = any(y == "*" for x in ast.walk(tree) for y in _list_imported(x))
    if name not in {*defined, *mentioned} and not stars:
        raise UserError(f"{given}: {path} has no {name}{suggest(name, defined)}")


def _list_imported(node: ast.AST) -> list[str]:
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return []
    return [x.asname or x.name for x in node.names]
