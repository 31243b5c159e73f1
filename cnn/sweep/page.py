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

_RANKED = (
    ["n", "failed", "mean", "sd", "low", "high", "validation_loss"]
    + ["difference", "difference_low", "difference_high"]
    + ["test_mean", "test_sd", "test_low", "test_high"]
)


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
    settings = [row | row["options"] for row in ranking]
    trials = [row | row["options"] for row in sorted(rows, key=lambda r: r["trial"])]
    defaults = tasks.list_defaults(config)
    options = [
        {"option": name, "value": value}
        for name, value in config.select_run_options().items()
        if value != defaults[name] and name not in names
    ]
    columns = [name for name in names if name != "seed"] + _RANKED
    every = FIRST_COLUMNS + names + list_last_columns(rows)
    tables = {
        "Settings": report.tabulate(columns, settings),
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
