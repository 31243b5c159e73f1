"""What of runs can be deleted: found first, and deleted under the run's own lock.

Offered are, of runs that have ended, checkpoints that are neither the latest nor the
best nor what `--extend` takes; of all, checkpoints that were never finished; and runs
that stopped before their first checkpoint. Nothing is offered of a run that is running,
of sweeps, of what lies behind a link, or of a directory in which lies what no run
wrote; and no checkpoint of a run whose latest is damaged, since the one before it may
be what is left of it.
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
_OWN = {
    workdir.OWN_MODEL,
    workdir.CONFIG_FILE,
    workdir.METRICS_FILE,
    "dataset.json",
    "checkpoints",
}
_OWN |= {"tensorboard", "wandb", "tracker.json", "budget.json", ".lock", ".lock.soft"}


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
    """Find what can be deleted of an entry; nothing is changed.

    Raises:
        UserError: a file of the run is damaged.
        OSError: it cannot be looked into.
    """
    home = entry.home
    is_own = entry.kind == RUN and entry.state in ("ended", "stopped", "failed")
    if not is_own or home.is_symlink() or workdir.is_running(home):
        return []
    return [
        Leftover(path, home, reason, measure(path))
        for path, reason in _list_reasons(home).items()
    ]


def _list_reasons(home: Path) -> dict[Path, str]:
    """List what of a run that is not running nobody needs, and why."""
    checkpoints = home / "checkpoints"
    if checkpoints.is_symlink():
        return {}
    has_ended, unfinished = (home / "result.json").exists(), []
    if checkpoints.is_dir():
        unfinished = manifest.list_unfinished(checkpoints)
    if not has_ended and not manifest.list_steps(checkpoints):
        is_own = _holds_nothing_else(home, unfinished)
        return {home: "it has no checkpoint"} if is_own else {}
    reasons = dict.fromkeys(unfinished, "never finished")
    if has_ended:
        reasons |= dict.fromkeys(_find_old(home), "neither the latest nor the best")
    return reasons


def _holds_nothing_else(home: Path, unfinished: Sequence[Path]) -> bool:
    """Return whether a directory holds nothing but what a run without a checkpoint has.

    Args:
        unfinished: checkpoints that were begun.
    """
    inner = list(home.iterdir())
    if (home / "checkpoints").is_dir():
        inner += [x for x in (home / "checkpoints").iterdir() if x not in unfinished]
    is_plain = not any(path.is_symlink() for path in inner)
    return is_plain and {path.name for path in inner} <= _OWN


def _find_old(home: Path) -> list[Path]:
    """Find the checkpoints of a run that has ended which nothing asks for by name."""
    result, checkpoints = workdir.read_json(home / "result.json"), home / "checkpoints"
    steps = manifest.list_steps(checkpoints)
    best = result.get("best_step") if isinstance(result, dict) else None
    if not steps or type(best) is not int:
        return []
    old = manifest.list_old(checkpoints, steps[-1], 1, (best,))
    finished = [path for path in old if (path / manifest.MANIFEST).exists()]
    newest = checkpoints / str(steps[-1])
    if not finished or manifest.find_damage(newest):
        return []
    counters = manifest.read_description(newest)["records"]
    trunk = {str(counters.get(name)) for name in ("trunk_step", "trunk_best_step")}
    return [path for path in finished if path.name not in trunk]


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
    with workdir.lock(one.run):
        if one.path not in _list_reasons(one.run):
            raise UserError("the run has changed meanwhile; list it again")
        if one.path == one.run:
            workdir.clear(one.run)
        else:
            with manifest.hold(one.run / "checkpoints"):
                manifest.remove(one.path)
    if one.path == one.run:
        (one.run / ".lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            one.run.rmdir()
    if one.path.exists():
        raise UserError("some of it cannot be deleted; see its permissions")
