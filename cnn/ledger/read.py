"""What runs and sweeps say of themselves, each file read once and none written.

What a file says is believed only where it is of the right type; what is damaged is said
in `reason`, and stops nothing.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import manifest, workdir
from cnn.checkpoints.workdir import METRICS_FILE
from cnn.errors import UserError, explain
from cnn.ledger.find import OTHER, SWEEP, Place
from cnn.runtime import own_files
from cnn.sweep import table
from cnn.training import tasks

_TAIL = 1 << 16  # bytes of metrics.jsonl that are read at first
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
_WRITTEN = ("dataset.json", METRICS_FILE, "result.json", "checkpoints", "trials.jsonl")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run, a sweep, a trial of one, or a directory that is none of them.

    Attributes:
        name: as `--workdir` or, of a trial, `--from_trial` takes it.
        kind: `run`, `sweep`, `trial`; empty of other directories.
        state: running, stopped, ended, failed, pruned, damaged or foreign.
        reason: why it failed or cannot be read, or how far it is.
        options: by flag name, as they are stored; of a sweep those of its best trial.
        found: metrics and counts by the columns of a sweep's table.
        home: where its files lie.
    """

    name: str
    kind: str
    state: str
    reason: str
    options: Mapping[str, Any]
    found: Mapping[str, Any]
    home: Path


def read_entries(place: Place, is_by_trial: bool = False) -> list[Entry]:
    """Read what lies at a place; a damaged one is an entry that says so.

    Args:
        is_by_trial: whether a sweep becomes its trials.
    """
    read = _read_sweep if place.kind == SWEEP else _read_run
    try:
        if place.kind == OTHER:
            raise UserError(place.problem)
        return read(place, is_by_trial)
    except (UserError, OSError, *_MALFORMED) as error:
        said = explain(error) if isinstance(error, OSError) else str(error)
        state = place.state or _judge_unreadable(place.home)
        return [Entry(str(place.path), place.kind, state, said, {}, {}, place.home)]


def _judge_unreadable(home: Path) -> str:
    """Return whether a directory without options is a damaged run, or no run at all."""
    there = any((home / name).exists() for name in _WRITTEN)
    return "damaged" if there else "foreign"


def measure(directory: Path, left_out: Sequence[str] = ()) -> int:
    """Return the bytes of all files in a directory, links not followed.

    Args:
        left_out: names of what lies in it and is not counted.
    """
    total, ahead = 0, [str(directory)]
    while ahead:
        try:
            with os.scandir(ahead.pop()) as listed:
                for entry in listed:
                    if entry.name in left_out:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        ahead.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # it goes while a run is running, or is closed to us
            continue
    return total


def _read_run(place: Place, is_by_trial: bool) -> list[Entry]:
    del is_by_trial  # it has none
    home = place.home
    options = workdir.read_options(home)
    result, problem = _read_result(home)
    last = _read_last_lines(home / METRICS_FILE)
    found = _list_figures(result, last)
    found["disk_bytes"] = measure(home, ("sweep",))
    if result:
        is_whole = result.get("frozen_unchanged", True)
        state = "ended" if is_whole else "failed"
        reason = "" if is_whole else "frozen leaves differ from their source"
    else:
        state, reason = _judge_unended(home, options, last)
    reason = "; ".join(filter(None, (problem, reason)))
    return [Entry(str(place.path), place.kind, state, reason, options, found, home)]


def _read_result(home: Path) -> tuple[dict[str, Any], str]:
    """Read the result of a run that has ended.

    Returns:
        It, empty without one; and what is wrong with it.
    """
    path = home / "result.json"
    if not path.exists():
        return {}, ""
    try:
        result = workdir.read_json(path)
    except UserError as error:
        return {}, f"{error}; the run's own command writes it again"
    if not isinstance(result, dict) or type(result.get("steps")) is not int:
        return {}, f"{path} is no run's result"
    last = home / "checkpoints" / str(result["steps"])
    if last.exists() and not (last / manifest.MANIFEST).exists():
        return {}, f"its last checkpoint, {last}, is not whole"
    return result, ""


def _read_last_lines(path: Path) -> dict[str, Any]:
    """Read from its end the last epoch's line of a metrics.jsonl, and a failure.

    Returns:
        The epoch's line, with `failed` where that is the last thing that was written;
        empty without whole lines.
    """
    try:
        own_files.check_kind(path)
        with open(path, "rb") as file:
            size, wanted = file.seek(0, os.SEEK_END), _TAIL
            while True:
                file.seek(max(0, size - wanted))
                lines = file.read(wanted).split(b"\n")[:-1]
                found = _find_epoch(lines)
                if "epoch" in found or wanted >= size:
                    return found
                wanted *= 16
    except OSError:
        return {}


def _find_epoch(lines: Sequence[bytes]) -> dict[str, Any]:
    failure = {}
    for number, text in enumerate(reversed(lines)):
        if number and b'"epoch"' not in text:
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and "failed" in line and not number:
            failure = {"failed": str(line["failed"])}
        elif isinstance(line, dict) and type(line.get("epoch")) is int:
            return line | failure
    return failure


def _list_figures(result: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """List what a run has reached, by the columns of a sweep's table."""
    task = tasks.TASKS.get(str(result.get("task", "")), tasks.MULTICLASS)
    found = {n: x for n, x in last.items() if n.startswith("validation_")}
    found |= {n: result[n] for n in _name_tested(task) if n in result}
    steps, epochs = last.get("step"), last.get("epoch")
    if result:
        steps, epochs = result["steps"], result.get("epochs")
        length = steps // epochs if type(epochs) is int and epochs > 0 else 0
        best = result.get("best_step")
        if length and type(best) is int and best >= 0:
            found["best_epoch"] = best // length
    found |= {"trained_epochs": epochs, "steps": steps}
    for name in ("stopped_early", "num_parameters", "state_sha256"):
        found[name] = result.get(name)
    found["seconds"] = result.get("seconds", last.get("seconds"))
    return {n: x for n, x in found.items() if isinstance(x, str | int | float)}


def _name_tested(task: tasks.Task) -> list[str]:
    return [f"test_{name}" for name in task.compared]


def _judge_unended(
    home: Path, options: Mapping[str, Any], last: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the state of a run without a result, and its reason."""
    epoch = last.get("epoch")
    far = "" if epoch is None else f"epoch {epoch} of {options.get('epochs')}"
    if workdir.is_running(home):
        return "running", far
    if "failed" in last:
        return "failed", last["failed"]
    if not (home / METRICS_FILE).exists() and manifest.list_steps(home / "checkpoints"):
        return "ended", "converted or averaged, not trained"
    return "stopped", f"after {far}" if far else "before its first evaluation"


def _read_sweep(place: Place, is_by_trial: bool) -> list[Entry]:
    """Read a sweep, with the metrics of its best trial; or its trials."""
    home, options = place.home, workdir.read_options(place.home)
    paths = [home / "trials.jsonl", *sorted(home.glob("workers/*/trials.jsonl"))]
    rows = [row for path in paths for row in table.read_rows(path, is_strict=False)]
    rows = [row for row in rows if isinstance(row.get("options"), dict)]
    if options.get("loss") == "auto":  # as a run that is of that task has it
        task = next((row["task"] for row in rows if row.get("task")), "")
        options["loss"] = tasks.TASKS.get(task, tasks.MULTICLASS).loss
    if is_by_trial:
        return [_make_trial(place, options, row) for row in rows]
    best = table.find_best_trial(rows, options.get("select_by", "accuracy")) or {}
    found = select_columns(best) | {
        "trials": len(rows),
        "failed": sum(row.get("status") == "failed" for row in rows),
        "seconds": sum(row.get("seconds", 0.0) for row in rows),
        "disk_bytes": measure(home),
    }
    options = options | best.get("options", {})
    state, reason = _judge_sweep(home, rows)
    return [Entry(str(place.path), place.kind, state, reason, options, found, home)]


def select_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Select what a row of a sweep's table says of its trial, by column."""
    names = set(table.list_last_columns([row])) - {"reason"}
    return {n: x for n, x in row.items() if n in names and x is not None}


def _make_trial(place: Place, options: Mapping[str, Any], row: table.Row) -> Entry:
    status = str(row.get("status"))
    return Entry(
        f"{place.path}:{row['trial']}",
        "trial",
        "ended" if status == "finished" else status,
        str(row.get("reason") or ""),
        {**options, **row["options"]},
        select_columns(row),
        place.home,
    )


def _judge_sweep(home: Path, rows: Sequence[table.Row]) -> tuple[str, str]:
    """Return the state of a sweep, and its reason.

    It has ended when its table of settings is not older than its last trial.
    """
    failed = [row for row in rows if row.get("status") == "failed"]
    reason = f"{len(failed)} of {len(rows)} trials failed" if failed else ""
    if failed:
        reason += f", the first: {failed[0].get('reason')}"
    if any(map(workdir.is_running, [home.parent, *home.glob("workers/*")])):
        return "running", reason
    if rows and len(failed) == len(rows):
        return "failed", reason
    logs = [home / "trials.jsonl", *home.glob("workers/*/trials.jsonl")]
    written = max((x.stat().st_mtime_ns for x in logs if x.exists()), default=0)
    settings = home / "settings.csv"
    has_ended = settings.exists() and settings.stat().st_mtime_ns >= written
    return "ended" if has_ended else "stopped", reason
