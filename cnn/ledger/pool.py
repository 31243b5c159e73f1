"""Rows of --mode=list: one for each entry, or one for all that have options alike."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnn.config import Config, list_fields
from cnn.errors import UserError, suggest
from cnn.ledger.read import Entry
from cnn.option import format_value
from cnn.sweep import table
from cnn.training import tasks

Row = dict[str, Any]
FIRST_COLUMNS = ["run", "kind", "state", "trials", "failed"]  # the options follow
LAST_COLUMNS = ["disk_bytes", "reason"]


def find_value(entry: Entry, name: str, defaults: Mapping[str, Any]) -> Any:
    """Return an option or a column of an entry; None where it has none.

    Args:
        defaults: of options that did not exist when the run began.
    """
    about = {"run": entry.name, "kind": entry.kind, "state": entry.state}
    about["reason"] = entry.reason
    if name in about:
        return about[name]
    if name in entry.found or name in FIRST_COLUMNS:  # which has an option's name
        return entry.found.get(name)
    return entry.options.get(name, defaults.get(name) if entry.options else None)


def list_names(entries: Iterable[Entry]) -> list[str]:
    """List all options and columns that a condition may ask for."""
    names = dict.fromkeys([*FIRST_COLUMNS, *LAST_COLUMNS, *list_fields()])
    for task in tasks.TASKS.values():
        names |= dict.fromkeys(table.list_last_columns([_name_task(task)]))
    for entry in entries:
        names |= dict.fromkeys([*entry.options, *entry.found])
    return [*names]


def _name_task(task: tasks.Task) -> Row:
    return {"task": task.name, "validation_loss": 0.0}


def list_different(entries: Sequence[Entry]) -> list[str]:
    """List the options of which a change makes another run and that entries differ in.

    Those that this version does not know come last.
    """
    fields, defaults = list_fields(), Config().to_flat()
    own = [entry.options for entry in entries if entry.options]
    names = [name for name, x in fields.items() if x.metadata["changes_run"]]
    names += sorted({name for options in own for name in options} - {*fields})
    different = []
    for name in names:
        values = [options.get(name, defaults.get(name)) for options in own]
        if any(value != values[0] for value in values[1:]):
            different.append(name)
    return different


def make_rows(entries: Sequence[Entry]) -> tuple[list[str], list[Row]]:
    """Make a row for each entry.

    Returns:
        The names of the columns, and the rows by column.
    """
    defaults, options = Config().to_flat(), list_different(entries)
    metrics: dict[str, None] = {}
    for entry in entries:
        known = {**entry.found, "task": str(entry.options.get("task"))}
        if known["task"] not in tasks.TASKS:
            known["task"] = _guess_task(entry.found)
        known.setdefault("validation_loss", 0.0)
        metrics |= dict.fromkeys(table.list_last_columns([known]))
    metrics = {n: None for n in metrics if n not in ("reason", "executor")}
    named = ["name"] if any(entry.options.get("name") for entry in entries) else []
    first = FIRST_COLUMNS[:1] + named + FIRST_COLUMNS[1:]
    columns = [*first, *options, *metrics, *LAST_COLUMNS]
    return columns, [
        {name: find_value(entry, name, defaults) for name in columns}
        for entry in entries
    ]


def _guess_task(found: Mapping[str, Any]) -> str:
    """Return the task whose first metric an entry has."""
    for task in tasks.TASKS.values():
        if {f"{split}_{task.compared[1]}" for split in ("test", "validation")} & {
            *found
        }:
            return task.name
    return tasks.MULTICLASS.name


def pool(entries: Sequence[Entry], names: Sequence[str]) -> tuple[list[str], list[Row]]:
    """Pool the entries that have some options alike.

    Those that have ended count, one of each that has all options of a run alike, the
    seed included: the same run again is no repetition.

    Args:
        names: of the options.

    Returns:
        The names of the columns, and the rows by column: the options; `n`, `failed`;
        `metric`, what the following are of; mean, standard deviation and 95 %
        t-interval of validation and test metrics, as in a sweep's table; `varied`: the
        other options in which the pooled differ besides the seed.

    Raises:
        UserError: there is no such option, or it is the seed.
    """
    known = [name for name in list_names(entries) if name != "seed"]
    for name in names:
        if name not in known:
            raise UserError(f"--group_by={name} is unknown{suggest(name, known)}")
    defaults = Config().to_flat()
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.options:
            values = [find_value(entry, name, defaults) for name in names]
            groups.setdefault(json.dumps(values), []).append(entry)
    rows = []
    for group in groups.values():
        row = {name: find_value(group[0], name, defaults) for name in names}
        varied = [n for n in list_different(group) if n not in (*names, "seed")]
        rows.append(row | _summarise(group) | {"varied": ",".join(varied)})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns or [*names], rows


def _summarise(group: Sequence[Entry]) -> Row:
    """Compute means and intervals of a group's metrics."""
    different = list_different(group)
    ended: dict[str, Entry] = {}
    for entry in group:
        if entry.state == "ended":
            own = [format_value(entry.options.get(name)) for name in different]
            ended.setdefault(json.dumps(own), entry)
    found = [entry.found for entry in ended.values()]
    task = tasks.TASKS[_guess_task(next(iter(found), {}))]
    metric = task.select_by[0]
    failed = sum(entry.state == "failed" for entry in group)
    row: Row = {"n": len(found), "failed": failed, "metric": metric}
    for split, prefix in (("validation", ""), ("test", "test_")):
        values = [
            x[name] for x in found if _is_number(x.get(name := f"{split}_{metric}"))
        ]
        names = [f"{prefix}{name}" for name in ("mean", "sd", "low", "high")]
        row |= dict(zip(names, table.compute_interval(values, 0.0, 1.0), strict=True))
    losses = [
        x["validation_loss"] for x in found if _is_number(x.get("validation_loss"))
    ]
    row["validation_loss"] = table.compute_interval(losses)[0]
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
