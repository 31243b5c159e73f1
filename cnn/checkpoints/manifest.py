"""Directories of checkpoints as files: whole or not there, and checked when read.

A checkpoint is `STEP/` (`path` below; `directory` holds all of a run) with, written
last, `manifest.json`: SHA-256 of every other file in it. A directory without a manifest
was never finished and is no checkpoint. It is written as `STEP.new/` and renamed, so
that it never replaces a whole one before it is whole itself.

Only what a run wrote is removed or replaced: a directory of that name, no link, in
which nothing lies that a checkpoint does not have. Anything else in `checkpoints/`
stays.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from cnn import own_code
from cnn.checkpoints import atomic, description, form, workdir
from cnn.checkpoints.workdir import DESCRIPTION, MANIFEST
from cnn.config import Config
from cnn.errors import UserError, explain

NEW = ".new"
# A checkpoint, one that is not finished, and the same while the library writes it.
_NAME = re.compile(r"(0|[1-9][0-9]*)(\.new(\.orbax-checkpoint-tmp)?)?")
# What lies in it, finished or not: the trees, the library's notes, and ours.
_CONTENTS = re.compile(
    r"(weights|training|average)(\.orbax-checkpoint-tmp)?"
    r"|_CHECKPOINT_METADATA|_METADATA|commit_success\.txt|orbax\.checkpoint"
    r"|(description|manifest)\.json|\.(description|manifest)\.json\.(new|[0-9]+)"
)
_REMEDY = (
    "use another --checkpoint, or move it away so that training resumes from the one "
    "before it"
)


class DamagedCheckpoint(UserError):
    """A checkpoint is not what was written, or what it says cannot be."""

    def __init__(self, problem: str) -> None:
        """Tell what is wrong, naming the file, on one line."""
        text = " ".join(problem.split())
        super().__init__(f"The checkpoint is damaged: {text}; {_REMEDY}")


def list_steps(directory: Path) -> list[int]:
    """List the finished checkpoints of a directory, oldest first."""
    names = [path.parent.name for path in directory.glob(f"*/{MANIFEST}")]
    found = [_NAME.fullmatch(name) for name in names]
    return sorted(int(match[1]) for match in found if match and not match[2])


def find_damage(path: Path, only: str = "") -> str:
    """Compare all files of a checkpoint, or `only` one, with its manifest.

    Returns:
        What is wrong, naming the file; empty when nothing is.
    """
    try:
        manifest = workdir.read_json(path / MANIFEST)
    except UserError as error:
        return str(error)
    if form.find_problem(manifest, {DESCRIPTION: str, "*": str}):
        return f"{path / MANIFEST} has changed since it was written"
    for name in [only] if only else manifest:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{path / MANIFEST} names files outside of {path}"
        if not (path / name).is_file():
            return f"{path / name} is missing"
        if _hash_file(path / name) != manifest[name]:
            return f"{path / name} has changed since it was written"
    return ""


def check_whole(path: Path, only: str = "") -> None:
    """Refuse a checkpoint that `find_damage` finds damaged.

    Raises:
        DamagedCheckpoint: naming the first file that differs.
    """
    damage = find_damage(path, only)
    if damage:
        raise DamagedCheckpoint(damage)


def find_newest(directory: Path) -> tuple[Path | None, list[str]]:
    """Find the newest whole checkpoint of a run.

    Returns:
        Its directory, None when there is no checkpoint; and what is wrong with the
        later ones, a line each.

    Raises:
        UserError: all are damaged.
    """
    finish_interrupted(directory)
    return find_finished(directory)


def find_finished(directory: Path) -> tuple[Path | None, list[str]]:
    """Find the newest whole checkpoint as `find_newest` does, and change nothing."""
    steps = list_steps(directory)
    found, damaged = _find_whole(directory, steps)
    if steps and found is None:
        raise UserError(
            f"Every checkpoint in {directory} is damaged. Put a whole one back, or "
            "start from scratch in another --workdir"
        )
    return found, damaged


def find_before(directory: Path, step: int) -> tuple[Path | None, list[str]]:
    """Find the newest whole checkpoint of at most so many steps, and change nothing.

    Returns:
        As `find_newest`; None where every one is later or damaged.
    """
    steps = [one for one in list_steps(directory) if one <= step]
    return _find_whole(directory, steps)


def _find_whole(directory: Path, steps: list[int]) -> tuple[Path | None, list[str]]:
    """Find the last whole one of checkpoints, and what is wrong with later ones."""
    damaged = []
    for step in reversed(steps):
        try:
            check_whole(directory / str(step))
            return directory / str(step), damaged
        except DamagedCheckpoint as error:
            damaged.append(f"checkpoint {step} is left out: {error}")
    return None, damaged


def find_step(run: Path, which: str) -> int:
    """Find the step of a run's checkpoint that `--checkpoint` names.

    Args:
        which: `latest`, `best` or a step.

    Raises:
        UserError: there is none.
    """
    steps = list_steps(run / "checkpoints")
    if not steps:
        raise UserError(
            f"{run} holds no checkpoint; train it first, or give the --workdir of a run"
        )
    if which == "latest":
        return steps[-1]
    if which == "best":
        newest = read_description(run / "checkpoints" / str(steps[-1]))
        best = newest["records"]["best_step"]
        if best >= 0 and best not in steps:
            raise UserError(
                f"The best checkpoint of {run}, step {best}, is gone: "
                f"{run / 'checkpoints' / str(best)} is not there any more; put it "
                f"back, or use --checkpoint=latest or one of the steps {_list(steps)}"
            )
        if best not in steps:
            raise UserError(
                f"{run} has no best checkpoint: the run had no validation set; train "
                "with --validation_fraction=0.1, or use --checkpoint=latest"
            )
        return best
    if which.isdecimal() and int(which) in steps:
        return int(which)
    raise UserError(
        f"--checkpoint={which} is not there; {run} has latest, best and steps "
        f"{_list(steps)}"
    )


def _list(steps: list[int]) -> str:
    return ", ".join(str(step) for step in steps)


def read_description(path: Path) -> dict:
    """Read a checkpoint's description.json, with defaults for options that are absent.

    Raises:
        DamagedCheckpoint: it was changed, or what it says cannot be.
    """
    check_whole(path, DESCRIPTION)
    try:
        found = workdir.read_json(path / DESCRIPTION)
    except UserError as error:
        raise DamagedCheckpoint(str(error)) from None
    if problem := description.find_problem(found):
        raise DamagedCheckpoint(f"{path / DESCRIPTION} says what cannot be: {problem}")
    own_code.keep_copy(path.parent.parent, found["options"].get("model"))
    return found | {"options": Config().to_flat() | found["options"]}


def finish(new: Path) -> None:
    """Write the manifest of `STEP.new/` and rename it to `STEP/`, replacing that.

    Raises:
        UserError: the directory cannot be written.
    """
    files = sorted(file for file in new.rglob("*") if file.is_file())
    digests = {str(file.relative_to(new)): _hash_file(file) for file in files}
    atomic.write_json(new / MANIFEST, digests)
    _put_in_place(new)


def finish_interrupted(directory: Path) -> None:
    """Rename each whole `STEP.new/` whose process ended before it could."""
    for new in directory.glob(f"*{NEW}"):
        is_own = _NAME.fullmatch(new.name) and not find_foreign(new)
        if is_own and not find_damage(new):
            _put_in_place(new)


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Keep other runs, whose `checkpoints/` may be a link to this, from writing here.

    The directory is made if need be, and removed again if it stays empty.

    Raises:
        UserError: another process holds it, or it cannot be made.
    """
    is_new = not os.path.lexists(directory)
    try:
        if is_new:
            directory.mkdir()
        opened = _lock(directory)
    except BlockingIOError:
        raise UserError(
            f"{directory} is in use by another run, which has it or a link to it; "
            "wait for it, or choose another --workdir"
        ) from None
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written ({explain(error)}); or choose another "
            "--workdir"
        ) from None
    try:
        yield
    finally:
        if opened is not None:
            os.close(opened)
        if is_new:
            with contextlib.suppress(OSError):  # it holds something
                directory.rmdir()


def _lock(directory: Path) -> int | None:
    """Lock a directory itself; returns what to close, None without such locks.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it is no directory, or cannot be read.
    """
    if atomic.fcntl is None:  # Windows
        return None
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        atomic.fcntl.flock(opened, atomic.fcntl.LOCK_EX | atomic.fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(opened)
            raise BlockingIOError from None
    return opened


def find_foreign(path: Path) -> Path | None:
    """Find what lies in a `STEP/` or `STEP.new/` and was not written by a run.

    Returns:
        Its path: the directory's own where that is a link or no directory, else the
        first in it; None without.
    """
    if path.is_symlink() or not path.is_dir():
        return path
    listed = _list_files(path)
    tops = {name.split(os.sep)[0] for name in listed}
    for each in sorted(path.rglob("*")):
        name = str(each.relative_to(path))
        top = name.split(os.sep)[0]
        is_known = top in tops or _CONTENTS.fullmatch(top) is not None
        if listed and not each.is_dir() and top != name:
            is_known = name in listed
        is_plain = not each.is_symlink() and (each.is_file() or each.is_dir())
        if not is_known or not is_plain:
            return each
    return None


def _list_files(path: Path) -> list[str]:
    """List the files of which the manifest of a checkpoint speaks; none if damaged."""
    try:
        listed = workdir.read_json(path / MANIFEST)
    except UserError:
        return []
    is_whole = isinstance(listed, dict) and DESCRIPTION in listed
    is_whole = is_whole and all((path / name).is_file() for name in listed)
    return list(listed) if is_whole else []


def check_free(path: Path) -> None:
    """Refuse to write a `STEP/` or `STEP.new/` where something else lies.

    Raises:
        UserError: naming what is in the way.
    """
    if os.path.lexists(path) and (foreign := find_foreign(path)):
        raise UserError(
            f"{foreign} is in the way of a checkpoint and was not written by this run; "
            f"move it out of {path.parent}, and the same command resumes"
        )


def check_places(directory: Path, is_written: Callable[[int], bool]) -> None:
    """Refuse what is in the way of checkpoints still to be written.

    Args:
        is_written: whether a checkpoint of a step will be.

    Raises:
        UserError: naming it.
    """
    for path in sorted(directory.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and is_written(int(match[1])):
            check_free(path)


def remove_old(
    directory: Path, newest: int, keep: int, kept_steps: Collection[int]
) -> None:
    """Remove unfinished checkpoints and all but the newest `keep` and `kept_steps`.

    What no run wrote stays, and does not count.

    Args:
        newest: the step just written; later ones were damaged and are removed.
        kept_steps: that are kept too.
    """
    for path in list_old(directory, newest, keep, kept_steps):
        with contextlib.suppress(OSError):  # a protected one stays
            remove(path)


def list_old(
    directory: Path, newest: int, keep: int, kept_steps: Collection[int]
) -> list[Path]:
    """List what `remove_old` removes."""
    steps = [step for step in list_steps(directory) if step <= newest]
    own = [step for step in steps if not (directory / str(step)).is_symlink()]
    kept = {str(step) for step in (*own[-keep:], *kept_steps)}
    old = []
    for path in directory.iterdir():
        is_old = _NAME.fullmatch(path.name) and path.name not in kept
        if is_old and not find_foreign(path) and any(path.iterdir()):
            old.append(path)
    return sorted(old)


def list_unfinished(directory: Path) -> list[Path]:
    """List the checkpoints that were begun and are not whole; nothing is changed."""
    found = []
    for path in sorted(directory.glob("*")):
        match = _NAME.fullmatch(path.name)
        is_begun = match and (match[2] or not (path / MANIFEST).exists())
        if is_begun and not find_foreign(path) and find_damage(path):
            found.append(path)
    return found


def _put_in_place(new: Path) -> None:
    path = new.with_suffix("")
    check_free(path)
    if path.exists():
        remove(path)
    new.rename(path)


def remove_unfinished(new: Path) -> None:
    """Remove what is left of a `STEP.new/` whose process was killed."""
    if new.exists() and not find_foreign(new):
        remove(new)


def remove(path: Path) -> None:
    """Remove a checkpoint, or what is left of one."""
    # Without its manifest it is no checkpoint, should the removal be cut short.
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
