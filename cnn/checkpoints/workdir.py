"""A run's directory: its name, its lock, its options, and files written whole."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cnn.errors import UserError
from cnn.option import format_value

CONFIG_FILE = "config.json"
_LOCK = ".lock"
# Options that are compared by what they name, not by how they spell it.
SPELLED = ("dataset", "init_from")
# Options that earlier versions wrote and that no longer exist.
_RETIRED = ("step_images_per_second", "decode_images_per_second")


def name_workdir(preset: str, overrides: Mapping[str, Any]) -> Path:
    """Name a run's default directory after its preset and the command line's options.

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


def split_directories(text: str) -> list[Path]:
    """Read `A,B,C` as directories, whose own names may hold commas.

    A comma separates two where joining them names no directory.
    """
    parts, directories = text.split(","), []
    while parts:
        count = next(
            (n for n in range(len(parts), 1, -1) if Path(",".join(parts[:n])).is_dir()),
            1,
        )
        directories.append(Path(",".join(parts[:count])))
        parts = parts[count:]
    return directories


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Make the directory if it does not exist, and lock it for this process.

    Directories that it made are removed again after a UserError, if they stay empty.

    Raises:
        UserError: it cannot be written, or another process holds it.
    """
    try:
        made = [path for path in (workdir, *workdir.parents) if not path.exists()]
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / _LOCK, "a+")  # noqa: SIM115
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
        if not _is_at(file, workdir / _LOCK):
            raise UserError(
                f"--workdir={workdir} was removed by another process; try again"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        except UserError:
            if made and os.listdir(workdir) == [_LOCK]:
                os.unlink(workdir / _LOCK)
                with contextlib.suppress(OSError):  # another process wrote there
                    for path in made:
                        path.rmdir()
            raise


def _is_at(file: IO, path: Path) -> bool:
    """Return whether an open file is still the one of that path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: the directory cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
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


def read_config(directory: Path) -> dict[str, Any]:
    """Read the options of a run.

    Raises:
        UserError: the directory holds no run, or its options are damaged.
    """
    path = directory / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"--workdir={directory} holds no run ({CONFIG_FILE} is missing); train it "
            "first, or give the directory of a run"
        )
    stored = read_json(path)
    if not isinstance(stored, dict):
        raise UserError(f"{path} is damaged: it holds no options")
    return {name: x for name, x in stored.items() if name not in _RETIRED}


def _is_same_place(*texts: str) -> bool:
    """Return whether two paths, or datasets such as `folder:PATH`, are one place."""
    kinds, places = set(), set()
    for text in texts:
        kind, _, path = text.rpartition(":")
        kinds.add(kind)
        places.add(Path(path).expanduser().resolve() if path else "")
    return len(kinds) == len(places) == 1


def check_same_run(
    directory: Path, run_options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, str]:
    """Refuse to resume a run under options that would make it another one.

    Args:
        run_options: this start's options of which a change makes another run, by
            name, as JSON has them.
        defaults: values of options that did not exist when the run began.

    Returns:
        The run's values of `--dataset` and `--init_from` where these now name another
        place: whether the same lies there is for the caller to find out.

    Raises:
        UserError: naming the options that differ, with both values.
    """
    if not (directory / CONFIG_FILE).exists():
        return {}
    stored = {**defaults, **read_config(directory)}
    changed = [
        name
        for name, value in run_options.items()
        if stored[name] != value
        and not (name in SPELLED and _is_same_place(stored[name], value))
    ]
    respelled = {
        name: stored[name]
        for name in changed
        if name in SPELLED and stored[name] and run_options[name]
    }
    different = [
        f"--{name}={format_value(stored[name])} (now {format_value(run_options[name])})"
        for name in changed
        if name not in respelled
    ]
    if different:
        raise UserError(
            f"{directory} holds another run, one with {', '.join(different)}. Give its "
            "own options to resume it, or another --workdir to start from scratch"
        )
    return respelled
