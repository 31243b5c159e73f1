"""The report of a sweep: `report.html` with its settings, trials, options and plots."""

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
    every = FIRST_COLUMNS + names + list_last_columns(rows)
    tables = {
        "Settings": _tabulate_settings(names, config.train.select_by, ranking),
        "Trials": report.tabulate(every, trials),
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
    return report.Table((*plain.heads[:-1], *heads, "validation loss"), tuple(rows))


def _write(row: dict[str, Any], columns: Sequence[str]) -> report.Cell:
    return report.write_interval(*(row.get(name) for name in columns))
