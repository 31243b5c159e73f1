"""Where runs and sweeps lie: directories are searched to the bottom, once each.

What is found is told by the names of files alone. A run is not searched further, but
for a sweep beside it; links are followed to a run itself and no further. Directories
whose names begin with a dot are left out.
"""

import dataclasses
import os
from pathlib import Path

from cnn.checkpoints import workdir
from cnn.checkpoints.workdir import CONFIG_FILE, METRICS_FILE
from cnn.errors import UserError, explain

RUN, SWEEP, OTHER = "run", "sweep", ""
_OF_RUNS = {CONFIG_FILE, METRICS_FILE, "checkpoints"}
_OF_SWEEPS = {"trials.jsonl", "workers"}


@dataclasses.dataclass(frozen=True)
class Place:
    """A directory that is listed.

    Attributes:
        path: as `--workdir` takes it.
        home: where its files lie: a sweep's are in `sweep/`.
        kind: `RUN`, `SWEEP` or `OTHER`.
        problem: why it cannot be looked into, or is no run; empty of the others.
        state: of a directory that is `OTHER`: `foreign` or `damaged`.
    """

    path: Path
    home: Path
    kind: str = OTHER
    problem: str = ""
    state: str = ""


def list_places(text: str) -> list[Place]:
    """List the runs and sweeps in and below directories, and what is none of them.

    Args:
        text: directories and patterns of them, separated by commas.

    Raises:
        UserError: a directory is not there, or a pattern matches none.
    """
    found = []
    for root in workdir.split_directories(text, of_runs=False):
        if not root.is_dir():
            raise UserError(
                f"--workdir={root} is no directory; give those that hold runs, or "
                "train one"
            )
        found += _walk(root) or [_name_foreign(root)]
    return list(dict.fromkeys(found))


def _name_foreign(path: Path) -> Place:
    return Place(path, path, problem="it holds no run", state="foreign")


def _walk(path: Path) -> list[Place]:
    """List what is in a directory and below; nothing where no run is."""
    try:
        with os.scandir(path) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        return [Place(path, path, problem=explain(error), state="damaged")]
    names = {entry.name for entry in entries}
    if CONFIG_FILE in names and names & _OF_SWEEPS:
        return [Place(path.parent, path, SWEEP)]
    if names & _OF_RUNS:
        beside = _walk(path / "sweep") if "sweep" in names else []
        sweeps = [place for place in beside if place.kind == SWEEP]
        return [Place(path, path, RUN), *sweeps]
    inner = [path / entry.name for entry in entries if _is_searched(entry)]
    below = {each: _walk(each) for each in inner}
    if not any(below.values()):
        return []
    return [x for each, found in below.items() for x in found or [_name_foreign(each)]]


def _is_searched(entry: os.DirEntry) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_symlink():
        return os.path.isfile(os.path.join(entry.path, CONFIG_FILE))
    return entry.is_dir()
