"""Directories of checkpoints as files: whole or not there, and checked when read.

A checkpoint is `STEP/` (`path` below; `directory` holds all of a run) with, written
last, `manifest.json`: SHA-256 of every other file in it. A directory without a manifest
was never finished and is no checkpoint. It is written as `STEP.new/` and renamed, so
that it never replaces a whole one before it is whole itself.
"""

import hashlib
import shutil
from pathlib import Path

from cnn.checkpoints import workdir
from cnn.checkpoints.workdir import DESCRIPTION, MANIFEST
from cnn.errors import UserError

NEW = ".new"


class DamagedCheckpoint(UserError):
    """A checkpoint is not what was written."""


def list_steps(directory: Path) -> list[int]:
    """List the finished checkpoints of a directory, oldest first."""
    names = [path.parent.name for path in directory.glob(f"*/{MANIFEST}")]
    return sorted(int(name) for name in names if name.isdecimal())


def find_damage(path: Path, only: str = "") -> str:
    """Compare all files of a checkpoint, or `only` one, with its manifest.

    Returns:
        What is wrong, naming the file; empty when nothing is.
    """
    try:
        manifest = workdir.read_json(path / MANIFEST)
    except UserError as error:
        return str(error)
    if not isinstance(manifest, dict) or (only and only not in manifest):
        return f"{path / MANIFEST} has changed since it was written"
    for name in [only] if only else manifest:
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
        raise DamagedCheckpoint(
            f"The checkpoint is damaged: {damage}; use another --checkpoint"
        )


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
    steps, damaged = list_steps(directory), []
    for step in reversed(steps):
        try:
            check_whole(directory / str(step))
            return directory / str(step), damaged
        except DamagedCheckpoint as error:
            damaged.append(f"checkpoint {step} is left out: {error}")
    if steps:
        raise UserError(
            f"Every checkpoint in {directory} is damaged. Put a whole one back, or "
            "start from scratch in another --workdir"
        )
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
    """Read a checkpoint's description.json, refusing one that was changed."""
    check_whole(path, DESCRIPTION)
    return workdir.read_json(path / DESCRIPTION)


def finish(new: Path) -> None:
    """Write the manifest of `STEP.new/` and rename it to `STEP/`, replacing that.

    Raises:
        UserError: the directory cannot be written.
    """
    files = sorted(file for file in new.rglob("*") if file.is_file())
    digests = {str(file.relative_to(new)): _hash_file(file) for file in files}
    workdir.write_json(new / MANIFEST, digests)
    _put_in_place(new)


def finish_interrupted(directory: Path) -> None:
    """Rename each whole `STEP.new/` whose process ended before it could."""
    for new in directory.glob(f"*{NEW}"):
        if not find_damage(new):
            _put_in_place(new)


def remove_old(directory: Path, newest: int, keep: int, best: int) -> None:
    """Remove unfinished checkpoints and all but the newest `keep` and the best.

    Args:
        newest: the step just written; later ones were damaged and are removed.
        best: a step that is kept too; -1 for none.
    """
    steps = [step for step in list_steps(directory) if step <= newest]
    kept = {str(step) for step in (*steps[-keep:], best)}
    for path in directory.iterdir():
        if path.is_dir() and path.name not in kept:
            _remove(path)


def _put_in_place(new: Path) -> None:
    path = new.with_suffix("")
    if path.exists():
        _remove(path)
    new.rename(path)


def _remove(path: Path) -> None:
    # Without its manifest it is no checkpoint, should the removal be cut short.
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
