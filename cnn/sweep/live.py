"""What a sweep shows while it runs: a live table, or a line now and then."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Table

from cnn.option import format_value
from cnn.runtime.terminal import Terminal
from cnn.sweep.batch import Batch, TrialProgress
from cnn.sweep.table import Row, make_place
from cnn.text import show_line

ROWS = 12
PAUSE = 2.0
_STYLE = {
    "title_justify": "left",
    "box": SIMPLE_HEAD,
    "pad_edge": False,
    "collapse_padding": True,
}


class LiveTable:
    """Shows, inside `with`, the running trials, the best first, and how many ended."""

    def __init__(self, terminal: Terminal, total: int) -> None:
        """Show nothing yet; `total` trials will run."""
        self._terminal, self._total = terminal, total
        self._live: Live | None = None
        self._shown = time.perf_counter()

    def __enter__(self) -> None:
        """Show the table, if the output is a terminal."""
        if self._terminal.console.is_terminal:
            self._live = Live(
                console=self._terminal.console, transient=True, auto_refresh=False
            )
            self._live.start()

    def __exit__(self, *error: object) -> None:
        """Remove the table."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, batch: Batch, ended: Sequence[Row]) -> None:
        """Show how far a batch has come, after the trials that ended before."""
        now = time.perf_counter()
        if self._live is None and now - self._shown < PAUSE:
            return
        self._shown = now
        ranked = rank_progress(batch.progress)
        if self._live is not None:
            table = make_table(ranked, len(ended), self._total)
            self._live.update(table, refresh=True)
            return
        line = f"epoch {batch.epoch:>3}  {len(ended)} of {self._total} trials ended"
        if ranked:
            best = ranked[0]
            select_by = best.trial.config.train.select_by
            line += f"  best validation {select_by} {best.metric:.4f}"
            line += f" (trial {best.trial.number})"
        failed = sum(one.status == "failed" for one in batch.progress)
        self._terminal.say(line + (f"  {failed} failed" if failed else ""))


def rank_progress(progress: Sequence[TrialProgress]) -> list[TrialProgress]:
    """Order trials by their newest validation metric, the best first."""
    measured = [one for one in progress if one.curve and one.status != "failed"]
    sign = 1 if progress[0].trial.config.train.select_by == "loss" else -1

    def place(one: TrialProgress) -> tuple:
        loss = one.curve[-1]["validation_loss"]
        return make_place(sign * one.metric, loss, one.trial.number)

    return sorted(measured, key=place)


def make_table(ranked: Sequence[TrialProgress], ended: int, total: int) -> Table:
    """Make the table of the best running trials."""
    table = Table(title=f"{ended} of {total} trials ended", **_STYLE)
    for name in ("trial", "options", "epoch", "train loss", "validation", "status"):
        table.add_column(name)
    for one in ranked[:ROWS]:
        loss = one.curve[-1].get("train_loss")
        table.add_row(
            str(one.trial.number),
            format_options(one.trial.options),
            f"{one.epoch}/{one.trial.config.train.epochs}",
            "" if loss is None else f"{loss:.4f}",
            f"{one.metric:.4f}",
            one.status,
        )
    return table


def make_settings_table(ranking: Sequence[dict[str, Any]], select_by: str) -> Table:
    """Make the table of the best settings, as `table.rank_settings` returns them."""
    table = Table(title=f"validation {select_by} by setting", **_STYLE)
    table.add_column("setting", overflow="fold")
    for name in ("n", "mean", "95 %", "- best", "± 95 %", "test"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in ranking[:ROWS]:
        table.add_row(
            format_options(row["options"]),
            str(row["n"]),
            _number(row["mean"]),
            _ends(row["low"], row["high"]),
            _number(row["difference"]),
            _half(row["difference_low"], row["difference_high"]),
            _number(row["test_mean"]),
        )
    return table


def format_options(options: Mapping[str, Any]) -> str:
    """Write options as the command line would take them, on one line."""
    pairs = (f"{name}={format_value(value)}" for name, value in options.items())
    return show_line(" ".join(pairs))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{low:.3f}..{high:.3f}"


def _half(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{(high - low) / 2:.4f}"
