"""The report of a sweep: `report.html` with its settings, trials, options and plots."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn.config import Config
from cnn.sweep.plots import list_varied
from cnn.sweep.table import FIRST_COLUMNS, Row, list_last_columns
from cnn.training import tasks
from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.page import report

# Each with its 95 % interval, and what its columns in settings.csv begin with.
_RANKED = {
    "test": ("test_mean", "test_low", "test_high"),
    "validation": ("mean", "low", "high"),
    "difference from the best": ("difference", "difference_low", "difference_high"),
}
_HASH_LETTERS = 12


def write_page(
    home: Path,
    config: Config,
    rows: Sequence[Row],
    ranking: Sequence[dict[str, Any]],
    pictures: Sequence[Picture],
    notes: Sequence[str],
) -> Path:
    """Write the report of a sweep.

    Args:
        home: where it goes.
        config: the options that all trials share.
        rows: of its trials.
        ranking: of `table.rank_settings`.
        pictures: of `plots.draw_plots`.
        notes: what is to be said first, a sentence each.

    Returns:
        The file.

    Raises:
        UserError: jinja2 is not installed.
    """
    names = list(dict.fromkeys(name for row in rows for name in row["options"]))
    trials = [row | row["options"] for row in sorted(rows, key=lambda r: r["trial"])]
    defaults = tasks.list_defaults(config)
    options = [
        {"option": name, "value": value}
        for name, value in config.select_run_options().items()
        if value != defaults[name] and name not in names
    ]
    tables = {
        "Settings": _tabulate_settings(names, config.train.select_by, ranking),
        "Trials": _tabulate_trials(names, list_last_columns(rows), trials),
        "Options": report.tabulate(("option", "value"), options),
    }
    curves = [x for x in pictures if x.path.name.startswith("curves_")]
    others = [x for x in pictures if x not in curves]
    sections = [
        Section("curves", "Curves: a line for each trial", tuple(curves)),
        Section("comparisons", "Comparisons: the last epoch's metric", tuple(others)),
    ]
    varied = ", ".join(list_varied(rows)) or "one setting"
    title = f"A sweep of {varied}: {len(rows)} trials"
    shown = [section for section in sections if section.pictures]
    return report.write_tables(home, title, notes, tables, shown)


def _tabulate_trials(
    names: Sequence[str], last: Sequence[str], trials: Sequence[Row]
) -> report.Table:
    """Make the table of trials: options, and columns in which trials are not alike.

    A hash is shown by its beginning, so that no row is as high as five.
    """
    first = [name for name in FIRST_COLUMNS if _tells_apart(name, trials)]
    shown = [name for name in last if _tells_apart(name, trials)]
    table = report.tabulate([*first, *names, *shown], trials)
    rows = [
        report.Row(tuple(map(_shorten, table.heads, row.cells))) for row in table.rows
    ]
    heads = (*first, *names, *(name.replace("_", " ") for name in shown))
    return dataclasses.replace(table, heads=heads, rows=tuple(rows))


def _tells_apart(name: str, trials: Sequence[Row]) -> bool:
    """Return whether trials differ in a column, or failed as it says."""
    found = {"" if row.get(name) is None else str(row[name]) for row in trials}
    if name in ("status", "reason"):
        return not found <= {"finished", ""}
    return len(found) > 1 or (len(trials) == 1 and found != {""})


def _shorten(head: str, cell: report.Cell) -> report.Cell:
    if head != "state_sha256" or not cell.value:
        return cell
    return report.Cell(f"{cell.value[:_HASH_LETTERS]}…", cell.value)


def _tabulate_settings(
    names: Sequence[str], select_by: str, ranking: Sequence[dict[str, Any]]
) -> report.Table:
    """Make the table of settings, each mean with its interval in one cell."""
    varied = [name for name in names if name != "seed"]
    columns = [*varied, "n"] + ["failed"] * any(row["failed"] for row in ranking)
    plain = report.tabulate(
        [*columns, "validation_loss"], [row | row["options"] for row in ranking]
    )
    rows = [
        report.Row(
            (
                *row.cells[:-1],
                *(_write(own, x) for x in _RANKED.values()),
                row.cells[-1],
            )
        )
        for row, own in zip(plain.rows, ranking, strict=True)
    ]
    heads = [f"{x} {select_by}" if x in ("test", "validation") else x for x in _RANKED]
    if any(row.get("low") is not None for row in ranking):
        heads = [f"{head} {report.INTERVAL}" for head in heads]
    return report.Table((*plain.heads[:-1], *heads, "validation loss"), tuple(rows))


def _write(row: dict[str, Any], columns: Sequence[str]) -> report.Cell:
    return report.write_interval(*(row.get(name) for name in columns))
