"""A run's directory: its name, its lock, its options, and files written whole."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnn.errors import UserError
from cnn.options import format_value

CONFIG_FILE = "config.json"


def name_workdir(preset: str, overrides: Mapping[str, Any]) -> Path:
    """Name a run's default directory after its preset and what differs from it.

    Args:
        preset: the preset's name.
        overrides: the options given on the command line, in their order.

    Returns:
        `runs/PRESET,option=value,…`; characters that a path cannot hold become `_`.
    """
    parts = [preset]
    parts += [f"{name}={format_value(value)}" for name, value in overrides.items()]
    name = ",".join(parts).replace("/", "_").replace("\0", "_")
    if len(name.encode()) > 200:
        raise UserError(
            "The default directory's name would be too long for so many options; "
            "name it yourself with --workdir=DIR"
        )
    return Path("runs") / name


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Make the directory if need be and hold it against other processes.

    Raises:
        UserError: it cannot be written, or another process holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / ".lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written ({error.strerror}); "
            "choose another directory"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UserError(
                f"--workdir={workdir} is in use by process {owner}; wait for it, or "
                "choose another directory"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: the directory cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all, indented."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is absent or damaged.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def check_same_run(directory: Path, run_options: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under options that would make it another.

    Args:
        directory: the run's.
        run_options: this start's options of which a change makes another run, by
            name, as JSON has them.

    Raises:
        UserError: naming the options that differ, with both values.
    """
    path = directory / CONFIG_FILE
    if not path.exists():
        return
    stored = read_json(path)
    different = [
        f"--{name}={_show(stored.get(name))} (now {_show(value)})"
        for name, value in run_options.items()
        if stored.get(name) != value
    ]
    if different:
        raise UserError(
            f"{directory} holds another run, one with {', '.join(different)}. Give its "
            "own options to go on with it, or another --workdir to start anew"
        )


def _show(value: Any) -> str:
    return format_value(tuple(value) if isinstance(value, list) else value)
