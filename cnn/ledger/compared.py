"""Runs side by side in a report: pooled over their seeds, and one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import workdir
from cnn.checkpoints.naming import label_runs
from cnn.ledger import pool
from cnn.ledger.find import RUN, Place
from cnn.ledger.formats import format_cell, select_readable
from cnn.ledger.read import read_entries
from cnn.visualize.page.report import INTERVAL, Cell, Row, Table, write_interval

_LEFT_OUT = ("disk_bytes", "trials")


def tabulate_runs(directories: Sequence[Path]) -> dict[str, Table]:
    """Make the tables of several runs, with the options that differ as columns.

    Returns:
        By heading: where runs differ in nothing but their seeds, `Pooled over seeds`,
        a row for all of a setting with the mean of the metrics and its 95 % t-interval;
        and `Runs`, a row for each.
    """
    there = [path for path in directories if workdir.holds_run(path)]
    entries = [x for path in there for x in read_entries(Place(path, path, RUN))]
    columns, rows = pool.make_rows(entries)
    names = dict(zip(map(str, there), label_runs(there), strict=True))
    named = [row | {"run": names.get(row["run"], row["run"])} for row in rows]
    if all(row["state"] == "ended" for row in named):
        columns = [name for name in columns if name not in ("state", "reason")]
    runs = _make_table([x for x in columns if x not in _LEFT_OUT], named)
    different = [name for name in pool.list_different(entries) if name != "seed"]
    _, rows = pool.pool(entries, different)
    if any(row["n"] > 1 for row in rows):
        return {"Pooled over seeds": _pool(different, rows), "Runs": runs}
    return {"Runs": runs}


def _pool(different: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    """Make the table of pooled runs, each mean with its interval in one cell."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    columns = [*different, "n", "failed"]
    kept = [name for name in columns if not _is_zero(name, rows)]
    splits = ("test", "validation")
    heads = [f"{split} {x} {INTERVAL}" for x in metrics for split in splits]
    found = []
    for row in rows:
        cells = [_make_cell(name, row.get(name)) for name in kept]
        for metric in metrics:
            for start in ("test_", ""):
                found_of = [row[f"{start}{name}"] for name in ("mean", "low", "high")]
                is_own = metric == row["metric"]
                cells.append(write_interval(*found_of) if is_own else Cell("–", ""))
        found.append(Row(tuple(cells)))
    return Table((*(name.replace("_", " ") for name in kept), *heads), tuple(found))


def _make_table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> Table:
    """Make a table of what a reader compares, as `--mode=list` would print it."""
    kept = [x for x in select_readable(columns, rows) if not _is_zero(x, rows)]
    cells = [tuple(_make_cell(name, row.get(name)) for name in kept) for row in rows]
    heads = tuple(name.replace("_", " ") for name in kept)
    return Table(heads, tuple(map(Row, cells)))


def _is_zero(column: str, rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether nothing failed, which needs no column."""
    return column == "failed" and not any(row.get(column) for row in rows)


def _make_cell(column: str, value: Any) -> Cell:
    text = format_cell(column, value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(text or "–", repr(value) if is_number else text)
