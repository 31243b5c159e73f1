"""What the user sees while the program runs."""

import contextlib
import datetime
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cnn.text import show, show_line, wrap

_LEAST_WIDTH = 80
_WIDEST = 10_000
_SECONDS = 30  # between lines where there is no bar
_PAUSE = 0.1  # seconds between two pictures of a bar


def print_error(message: str) -> None:
    """Print a message on standard error, as `Terminal.say` does on standard output."""
    shown = show(message)
    if sys.stderr.isatty():
        shown = wrap(shown, shutil.get_terminal_size().columns)
    print(shown, file=sys.stderr)


def write_record(heads: Sequence[str], cells: Sequence[str]) -> str:
    """Write a row of a table as a sentence: its name, then what is known of it."""
    known = [f"{head} {cell}" for head, cell in zip(heads, cells, strict=True) if cell]
    return f"{cells[0]}: {', '.join(known[1:] if cells[0] else known)}"


class Terminal:
    """Prints: a live bar where there is a terminal, else one line an epoch.

    Bars are drawn by whoever moves them: no thread of theirs can die or hang.
    """

    def __init__(self) -> None:
        """Print to standard output."""
        # What is printed holds names of any characters: none is markup, or an emoji.
        self.console = Console(
            highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        self._bar: Progress | None = None
        self._task: Any = None
        self._drawn = 0.0

    def say(self, text: str = "") -> None:
        """Print a line, or lines, above the bar if there is one; see `text.show`.

        A terminal breaks them between words, a file has them whole.
        """
        shown = show(text)
        is_wrapped = self.console.is_terminal
        self.console.print(wrap(shown, self.console.width) if is_wrapped else shown)

    def say_written(self, *paths: Path) -> None:
        """Print which files or directories were written."""
        self.say(f"written to {' and '.join(show_line(str(x)) for x in paths)}")

    def show(self, table: Table) -> None:
        """Print a table; in a file it is never cut.

        A terminal that is too narrow for it has each row as a sentence.
        """
        whole = self.console.options.update(width=_WIDEST)
        if self.is_too_narrow(self.console.measure(table, options=whole).maximum):
            if table.title:
                self.say(str(table.title))
            heads = [str(column.header) for column in table.columns]
            for cells in zip(*(column.cells for column in table.columns), strict=True):
                self.say(write_record(heads, [str(cell).strip() for cell in cells]))
            return
        if self.console.width < _LEAST_WIDTH:
            options = self.console.options.update(width=_LEAST_WIDTH)
            table.width = self.console.measure(table, options=options).maximum
        self.console.print(table)

    def is_too_narrow(self, width: int) -> bool:
        """Return whether lines of so many characters would run on in a terminal."""
        return self.console.is_terminal and width > self.console.width

    def start_bar(self, total_steps: int, step: int) -> None:
        """Show the bar of a run, if the output is a terminal."""
        if not self.console.is_terminal or self.console.quiet:
            return
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f}%  {task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=total_steps, completed=step, epoch=0, numbers="compiling"
        )

    def update_bar(
        self,
        step: int,
        epoch: int,
        loss: float,
        share: float,
        speed: float,
        name: str = "accuracy",
    ) -> None:
        """Move the bar: steps done, epoch, its loss and a named share, images/s."""
        if self._bar is not None:
            numbers = f"loss {loss:.4f}  {name} {share:.2%}  {speed:,.0f} images/s"
            self._bar.update(self._task, completed=step, epoch=epoch, numbers=numbers)
            self._draw(self._bar, time.monotonic())

    def stop_bar(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, bar: Progress, now: float) -> None:
        if now - self._drawn >= _PAUSE:
            self._drawn = now
            bar.refresh()

    @contextlib.contextmanager
    def count(self, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show how far a piece of work is: a bar, else a line each half minute.

        Args:
            total: how many there are.
            unit: what is counted, as `files`.

        Yields:
            What is called with how many are done, again and again.
        """
        started = said = time.monotonic()
        bar = self._make_counter()
        task = bar.add_task(f"0 of {total:,} {unit}", total=total)

        def note(done: int) -> None:
            nonlocal said
            now = time.monotonic()
            seconds = max(now - started, 1e-9)
            speed, left = done / seconds, (total - done) * seconds / max(done, 1)
            left = datetime.timedelta(seconds=round(left))
            text = f"{done:,} of {total:,} {unit}, {speed:,.1f} {unit}/s, {left} left"
            bar.update(task, completed=done, description=text)
            self._draw(bar, now)
            if bar.disable and now - said >= _SECONDS and done < total:
                said = now
                self.say(text)

        with bar:
            yield note

    @contextlib.contextmanager
    def name_each(self, doing: str, total: int) -> Iterator[Callable[[str], None]]:
        """Name the piece of work that is being done: in a bar, else in a line each.

        Args:
            doing: what is done with each, as `drawing`.
            total: how many there are.

        Yields:
            What is called with the name of each before it is begun.
        """
        begun, bar = 0, self._make_counter()
        task = bar.add_task("", total=total)

        def begin(name: str) -> None:
            nonlocal begun
            begun += 1
            left = total - begun
            after = f"{left} more after it" if left else "the last"
            text = f"{doing} {show_line(name)} ({begun} of {total}, {after})"
            bar.update(task, completed=begun - 1, description=text)
            bar.refresh()
            if bar.disable:
                self.say(text)

        with bar:
            yield begin

    def _make_counter(self) -> Progress:
        """Make a bar with a text beside it, which only a terminal shows."""
        return Progress(
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal or self.console.quiet,
            auto_refresh=False,
        )
