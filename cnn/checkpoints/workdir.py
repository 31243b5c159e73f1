"""A run's directory: its lock, its options, and directories made whole.

Nothing is written through a link: the run's files and directories lie in its own
directory, which as a whole, or its `checkpoints/`, may be a link.
"""

import contextlib
import errno
import glob
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cnn import config, own_code
from cnn.checkpoints import atomic, form
from cnn.errors import UserError, explain
from cnn.option import expand_path, format_value
from cnn.runtime import own_files
from cnn.text import quote, show_line

CONFIG_FILE, METRICS_FILE = "config.json", "metrics.jsonl"
OWN_MODEL = own_code.COPY
# Options that are compared by what they name, not by how they spell it.
SPELLED = ("dataset", "init_from", "teacher")
MANIFEST, DESCRIPTION = "manifest.json", "description.json"  # of a checkpoint
# What the options of any run have, and hardly another program's; `*`: other names.
_OPTIONS = {"model": str, "dataset": str, "*": object}
_LOCK, _SOFT = ".lock", ".lock.soft"
_MOMENT = 0.05  # seconds; who asks `is_running` holds the lock for less
_OWNER = 20  # characters that the number of a process has at most
# Files of a run; those behind the options are never there without them.
_WRITTEN = (OWN_MODEL, "dataset.json", CONFIG_FILE, METRICS_FILE, "result.json")
# Options that earlier versions wrote and that no longer exist.
_RETIRED = ("step_images_per_second", "decode_images_per_second", "tensorboard")


def split_directories(text: str, of_runs: bool = True) -> list[Path]:
    """Read `A,B,C` as directories, each once; see `split_groups`."""
    found = [path for group in split_groups(text, of_runs) for path in group]
    return list(dict.fromkeys(found))


def split_groups(text: str, of_runs: bool = True) -> list[list[Path]]:
    """Read `A,B,C` as directories of runs, whose own names may hold commas.

    A comma separates two where joining them names no directory. What names none may be
    a pattern, as `runs/*`, of directories that hold a run; `**` descends. `~` is the
    home directory.

    Args:
        of_runs: whether patterns match directories of runs alone, or all.

    Returns:
        What each of A, B and C names.

    Raises:
        UserError: no run, or no directory, matches a pattern.
    """
    parts, groups = [expand_path("workdir", x) for x in text.split(",")], []
    while parts:
        joined = [",".join(parts[:n]) for n in range(len(parts), 0, -1)]
        found = {name: _match_runs(name, of_runs) for name in joined}
        name = next((name for name in joined if found[name]), parts[0])
        if not found[name] and glob.has_magic(name):
            which = "directory that holds a run" if of_runs else "directory"
            raise UserError(f"--workdir={name} matches no {which}")
        groups.append(found[name] or [Path(name)])
        parts = parts[len(parts) - joined.index(name) :]
    return groups


def _match_runs(text: str, of_runs: bool) -> list[Path]:
    """Return the directory of that name, or those whose paths match a pattern."""
    if os.path.isdir(text):
        return [Path(text)]
    found = [""]
    for part in Path(text).parts:
        # A name that is there is no pattern, as `[1]` in `runs/a[1]/*`.
        found = [
            os.path.join(base, name)
            for base in found
            for name in (
                [part]
                if os.path.lexists(os.path.join(base, part))
                else sorted(glob.glob(part, root_dir=base or None, recursive=True))
            )
        ]
    if not of_runs:
        return [Path(path) for path in found if os.path.isdir(path)]
    return [Path(path) for path in found if os.path.isfile(f"{path}/{CONFIG_FILE}")]


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Make the directory if it does not exist, and lock it for this process.

    Directories that it made are removed again after a UserError or an OSError, if they
    stay empty.

    Raises:
        UserError: it cannot be written, is the root of a disk, or another process
            holds it.
    """
    if workdir.absolute() == Path(workdir.absolute().anchor):
        raise UserError(
            f"--workdir={workdir} is the root of all files; name a directory below it"
        )
    try:
        made = [path for path in (workdir, *workdir.parents) if not path.exists()]
        workdir.mkdir(parents=True, exist_ok=True)
        file = own_files.open_own(workdir / _LOCK, "a+", is_shared=True)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written ({explain(error)}); "
            "or choose another directory"
        ) from None
    with file, _hold(workdir, file):
        if not atomic.is_at(file, workdir / _LOCK):
            raise UserError(
                f"--workdir={workdir} was removed by another process; try again"
            )
        # Under another name, as in a copy made of hard links, it may be anything.
        if os.fstat(file.fileno()).st_nlink == 1:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        try:
            yield
        except (UserError, OSError):
            left = {*os.listdir(workdir)} if workdir.is_dir() else set()
            if made and {_LOCK} <= left <= {_LOCK, _SOFT}:
                os.unlink(workdir / _LOCK)
                (workdir / _SOFT).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another process wrote there
                    for path in made:
                        path.rmdir()
            raise


def check_idle(workdir: Path) -> None:
    """Refuse a directory that another process is writing to; none is made.

    Raises:
        UserError: as `lock`.
    """
    if (workdir / _LOCK).exists():
        with lock(workdir):
            pass


def is_running(workdir: Path) -> bool:
    """Return whether a process holds a directory's lock; nothing is written."""
    return (workdir / _SOFT).exists() or atomic.is_held(workdir / _LOCK)


def _hold(workdir: Path, file: IO) -> contextlib.AbstractContextManager:
    with contextlib.suppress(BlockingIOError):
        return atomic.hold(file, wait=False)
    time.sleep(_MOMENT)
    try:
        return atomic.hold(file, wait=False)
    except BlockingIOError:
        file.seek(0)
        owner = file.read(_OWNER).strip()
        owner = owner if owner.isdecimal() else "unknown"
        remedy = "wait for it, or choose another directory"
        if (workdir / _SOFT).exists():
            remedy += f"; if there is no such process, remove {workdir / _SOFT}"
        raise UserError(
            f"--workdir={workdir} is in use by process {owner}; {remedy}"
        ) from None


@contextlib.contextmanager
def make_directory(path: Path) -> Iterator[Path]:
    """Give the name of a directory to make, which is moved to `path` at the end.

    It lies in `.NAME.new/`, whose lock is this process's, and which is gone afterwards.

    Raises:
        UserError: it cannot be written, another process writes it, or what is at
            `.NAME.new/` is not what one has left.
        OSError: there is something at `path`, or what is inside raises it.
    """
    home = atomic.name_new(path)
    if home.exists() and not _is_left(home):
        raise UserError(f"{home} is in the way; move it away")
    try:
        with lock(home):
            clear(home)  # of what one that was killed has left
            try:
                yield home / path.name
                os.rename(home / path.name, path)
            finally:
                _remove_locked(home)
    except UserError as error:
        raise UserError(str(error).replace(f"--workdir={home}", str(path))) from None


def remove_left(path: Path) -> None:
    """Remove what a `make_directory` that was killed has left beside a path."""
    home = atomic.name_new(path)
    if home.exists() and _is_left(home):
        with contextlib.suppress(UserError), lock(home):
            _remove_locked(home)


def _is_left(home: Path) -> bool:
    """Return whether a directory is empty, or was locked once."""
    return home.is_dir() and ((home / _LOCK).exists() or not any(home.iterdir()))


def _remove_locked(home: Path) -> None:
    clear(home)
    for name in (_SOFT, _LOCK):
        (home / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # what cannot be removed stays
        home.rmdir()


def clear(directory: Path) -> None:
    """Remove everything but the locks from a directory that is this process's."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (_LOCK, _SOFT):
            path.unlink()


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is absent or damaged.
    """
    try:
        return json.loads(own_files.read(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({explain(error)})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def holds_run(directory: Path) -> bool:
    """Return whether a directory is that of a run."""
    return (directory / CONFIG_FILE).is_file()


def read_config(directory: Path) -> dict[str, Any]:
    """Read the options of a run; if its file is lost, those of its newest checkpoint.

    Raises:
        UserError: the directory holds no run, or its options are damaged.
    """
    path = directory / CONFIG_FILE
    try:
        stored = read_json(path)
    except UserError:
        described = _find_description(directory)
        if described is not None:
            path, found = described, read_json(described)
            stored = found.get("options") if isinstance(found, dict) else None
        elif path.exists():
            raise
        else:
            remedy = "train it first, or give the directory of a run"
            if (directory / "sweep" / CONFIG_FILE).exists():
                best = directory / "sweep" / "best"
                remedy = f"it holds a sweep: give a run of it, as {best}, or average "
                remedy += "its trials by --mode=evaluate --ensemble"
            raise UserError(
                f"--workdir={directory} holds no run ({CONFIG_FILE} is missing); "
                f"{remedy}"
            ) from None
    problem = form.find_problem(stored, _OPTIONS)
    try:
        config.check_stored({} if problem else stored)
    except UserError as error:
        problem = str(error)
    if problem:
        remedy = "put a whole one back, or give another --workdir"
        if path.name == CONFIG_FILE and _find_description(directory):
            remedy = "remove it, and the options of the newest checkpoint count"
        raise UserError(f"{path} is damaged: {show_line(problem)}; {remedy}")
    own_code.keep_copy(directory, stored["model"])
    return {name: x for name, x in stored.items() if name not in _RETIRED}


def write_config(directory: Path, options: Mapping[str, Any]) -> None:
    """Write the options of a run, after the file of the user that they name.

    Args:
        options: every option by flag name, as JSON has them.

    Raises:
        UserError: as `write_own_model`.
    """
    write_own_model(directory, options)
    atomic.write_json(directory / CONFIG_FILE, options)


def write_own_model(directory: Path, options: Mapping[str, Any]) -> None:
    """Write the file of the user that defines a run's model, if one does, whole.

    Raises:
        UserError: another file of that name lies there.
    """
    content, path = own_code.get_content(options["model"]), directory / OWN_MODEL
    if content is None:
        return
    if path.exists() and own_files.read(path) != content:
        raise UserError(
            f"{path} holds another model than --model={options['model']} and is not "
            "overwritten; move it away, or choose another --workdir"
        )
    atomic.write_bytes(path, content)


def spell_own_model(model: str, *directories: Path) -> str:
    """Spell a model of the user's as one of some runs does, if it is theirs.

    Args:
        model: `own.py:Net`, of a file that is absent, which is then the run's; or with
            the digest of its content, whatever the file is called.
        directories: of runs, or of what is none.
    """
    found = own_code.split(model)
    for directory in directories if found else ():
        if not holds_run(directory):
            continue
        stored = read_config(directory)["model"]
        theirs, (path, name, digest) = own_code.split(stored), found
        here = name, digest or Path(path).name
        if theirs and here == (theirs[1], theirs[2] if digest else theirs[0]):
            return stored
    return model


def read_options(directory: Path) -> dict[str, Any]:
    """Read the options of a run as they are stored, some hundred times as fast.

    They are those of `read_config`; but what their values are is not checked.

    Raises:
        UserError: as `read_config`.
    """
    try:
        stored = read_json(directory / CONFIG_FILE)
    except UserError:
        return read_config(directory)
    if form.find_problem(stored, _OPTIONS):
        return read_config(directory)
    return stored


def _find_description(directory: Path) -> Path | None:
    """Find what the newest finished checkpoint of a run says of itself."""
    found = directory.glob(f"checkpoints/*/{DESCRIPTION}")
    finished = [
        path
        for path in found
        if path.parent.name.isdecimal() and (path.parent / MANIFEST).exists()
    ]
    return max(finished, key=lambda path: int(path.parent.name), default=None)


def check_place(directory: Path) -> None:
    """Refuse a directory that could not be made or written, in the words of its lock.

    Nothing is made, so that a run that is refused leaves nothing behind.
    """
    wanted = directory.absolute()
    there = next(path for path in (wanted, *wanted.parents) if path.exists())
    if there.is_dir():
        reason = 0 if os.access(there, os.W_OK | os.X_OK) else errno.EACCES
    else:
        reason = errno.EEXIST if there == wanted else errno.ENOTDIR
    if reason:
        why = explain(OSError(reason, ""))
        raise UserError(
            f"--workdir={directory} cannot be written ({why}); or choose another "
            "directory"
        )


def check_own(directory: Path) -> None:
    """Refuse a directory whose files are not a run's, or cannot be written.

    Raises:
        UserError: naming the file; it would be overwritten, or is a directory.
    """
    for place in (directory / name for name in _WRITTEN):
        is_appended = place.name == METRICS_FILE and place.exists()
        if place.is_dir() or (is_appended and not os.access(place, os.W_OK)):
            code = errno.EISDIR if place.is_dir() else errno.EACCES
            raise UserError(
                f"{place} cannot be written ({explain(OSError(code, ''))}); or choose "
                "another --workdir"
            )
    path = directory / CONFIG_FILE
    if _find_description(directory):
        return
    if not path.exists():
        for name in _WRITTEN[3:]:
            if (directory / name).exists():
                raise UserError(
                    f"{directory / name} is no run's, as {CONFIG_FILE} is not there, "
                    "and is not overwritten; move it away, or choose another --workdir"
                )
        return
    if form.find_problem(read_json(path), _OPTIONS):
        raise UserError(
            f"{path} is no run's and is not overwritten; choose another --workdir"
        )


def _is_same_place(*texts: str) -> bool:
    """Return whether two paths, or datasets such as `folder:PATH`, are one place."""
    kinds, places = set(), set()
    for text in texts:
        kind, _, path = text.rpartition(":")
        kinds.add(kind)
        places.add(Path(path).expanduser().resolve() if path else "")
    return len(kinds) == len(places) == 1


def _explain_changed_model(
    directory: Path, stored: str, run_options: Mapping[str, Any]
) -> str:
    """Say what to do where the user's file of a run's model was changed since."""
    before, now = own_code.split(stored), own_code.split(run_options["model"])
    if not (before and now) or before[2] == now[2]:
        return ""
    return (
        f". {own_code.find_file(run_options['model'])} is not the file that the run "
        f"began with, which it keeps as {directory / OWN_MODEL}: --model="
        f"{quote(stored)} resumes it with that one"
    )


def check_same_run(
    directory: Path, run_options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, str]:
    """Refuse to resume a run under options that would make it another one.

    Args:
        run_options: this start's options of which a change makes another run, by
            name, as JSON has them.
        defaults: values of options that did not exist when the run began.

    Returns:
        The run's values of `SPELLED` where these now name another place: whether the
        same lies there is for the caller to find out.

    Raises:
        UserError: naming the options that differ, with both values.
    """
    check_own(directory)
    if not (directory / CONFIG_FILE).exists() and not _find_description(directory):
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
        message = (
            f"{directory} holds another run, one with {', '.join(different)}. Give its "
            "own options to resume it, or another --workdir to start from scratch"
        )
        message += _explain_changed_model(directory, stored["model"], run_options)
        epochs = stored.get("epochs") != run_options.get("epochs")
        if epochs and any((directory / "checkpoints").glob("*")):
            message += (
                ". To train it for longer, take another --workdir and --extend="
                f"{quote(str(directory))} with --epochs=N, which counts all; or, with "
                f"other options, --init_from={quote(str(directory))} --keep_optimizer, "
                "the epochs still to come in --epochs, and their schedule"
            )
        raise UserError(message)
    return respelled
