"""What of runs can be deleted: found first, and deleted under the run's own lock.

Offered are, of runs that have ended, checkpoints that are neither the latest nor the
best; of all, checkpoints that were never finished; and runs that stopped before their
first checkpoint. Nothing is offered of a run that is running, of sweeps, of what lies
behind a link, or of a directory in which lies what no run wrote; and no checkpoint of a
run whose latest is damaged, since the one before it may be what is left of it.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import manifest, workdir
from cnn.errors import UserError
from cnn.ledger.find import RUN
from cnn.ledger.read import Entry, measure

COLUMNS = ["path", "reason", "disk_bytes"]
# What a run writes before its first checkpoint.
_OWN = {workdir.CONFIG_FILE, workdir.METRICS_FILE, "dataset.json", "checkpoints"}
_OWN |= {"tensorboard", ".lock"}


@dataclasses.dataclass(frozen=True)
class Leftover:
    """What can be deleted.

    Attributes:
        path: of a checkpoint, or a run.
        run: the directory of the run.
        reason: why nobody needs it.
        size: in bytes.
    """

    path: Path
    run: Path
    reason: str
    size: int

    def to_row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        cells = (str(self.path), self.reason, self.size)
        return dict(zip(COLUMNS, cells, strict=True))


def find_leftovers(entry: Entry) -> list[Leftover]:
    """Find what can be deleted of an entry; nothing is changed."""
    home = entry.home
    is_own = entry.kind == RUN and not home.is_symlink()
    if not is_own or entry.state in ("running", "damaged"):
        return []
    checkpoints = home / "checkpoints"
    if checkpoints.is_symlink() or workdir.is_running(home):
        return []
    if not (home / "result.json").exists() and not manifest.list_steps(checkpoints):
        return _find_unbegun(home)
    reasons = {path: "never finished" for path in manifest.list_unfinished(checkpoints)}
    if entry.state == "ended":
        reasons |= dict.fromkeys(_find_old(home), "neither the latest nor the best")
    return [
        Leftover(path, home, reason, measure(path)) for path, reason in reasons.items()
    ]


def _find_unbegun(home: Path) -> list[Leftover]:
    """Find a run without a checkpoint, if it holds nothing but what a run writes."""
    names = {path.name for path in home.iterdir()}
    checkpoints = home / "checkpoints"
    foreign = names - _OWN
    if checkpoints.is_dir():
        known = {*manifest.list_unfinished(checkpoints)}
        foreign |= {x.name for x in checkpoints.iterdir() if x not in known}
    if foreign or any(path.is_symlink() for path in home.iterdir()):
        return []
    return [Leftover(home, home, "it has no checkpoint", measure(home))]


def _find_old(home: Path) -> list[Path]:
    """Find the checkpoints of a run that has ended which are not its latest or best."""
    result, checkpoints = workdir.read_json(home / "result.json"), home / "checkpoints"
    steps, best = manifest.list_steps(checkpoints), result.get("best_step")
    if not steps or type(best) is not int:
        return []
    kept = checkpoints / str(steps[-1])
    old = manifest.list_old(checkpoints, steps[-1], 1, best)
    finished = [path for path in old if (path / manifest.MANIFEST).exists()]
    return finished if finished and not manifest.find_damage(kept) else []


def delete(found: Sequence[Leftover]) -> tuple[list[Leftover], list[str]]:
    """Delete what was found, each under the lock of its run, if it still can be.

    Returns:
        What is gone; and, of each that stays, a line that says why.
    """
    gone, kept = [], []
    for one in found:
        try:
            _delete(one)
        except (UserError, OSError) as error:
            kept.append(f"{one.path} stays: {error}")
        else:
            gone.append(one)
    return gone, kept


def _delete(one: Leftover) -> None:
    checkpoints = one.run / "checkpoints"
    with workdir.lock(one.run):
        if (one.run / "result.json").exists() != one.reason.startswith("neither") and (
            one.reason != "never finished"
        ):
            raise UserError("the run has changed meanwhile; list it again")
        if one.path != one.run:
            with manifest.hold(checkpoints):
                manifest.remove(one.path)
        elif manifest.list_steps(checkpoints):
            raise UserError("it has a checkpoint by now; list it again")
        else:
            workdir.clear(one.run)
    if one.path == one.run:
        (one.run / ".lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            one.run.rmdir()
    if one.path.exists():
        raise UserError("some of it cannot be deleted; see its permissions")
