"""Training, sweeps and the list of runs from Python, by what `main.py` calls.

Options are keywords by the names of the flags, and checked as these are. Signals are
handled only while something trains in the main thread; then the caller's handlers are
as they were.
"""

import contextlib
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnn import command
from cnn.command import Command, prepare
from cnn.config import list_fields
from cnn.errors import Problems, UserError, suggest
from cnn.ledger import list_runs as ledger
from cnn.ledger.options import LedgerOptions
from cnn.loaded import Loaded, load
from cnn.option import check, convert, expand_path
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal
from cnn.sweep import sweep as sweeps
from cnn.sweep import table

Row = dict[str, Any]


def train_run(
    workdir: str | Path,
    *,
    config: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> Loaded:
    """Train a run, or resume one that was stopped, as `--mode=train` does.

    Args:
        workdir: the run's directory; made if need be.
        config: a preset, as `--config`; None: digits.
        quiet: whether nothing is printed.
        **options: by flag name, each of its type: `learning_rate=0.05`,
            `widths=(8, 16)`, `model="own.py:Net"`.

    Returns:
        The trained model, as of `cnn.load`. What was measured is in the run's files,
        and a row of `cnn.list_runs`.

    Raises:
        UserError: a mistake in options or data, found before anything is compiled or
            written; or the loss is no longer finite.
        KeyboardInterrupt: Ctrl-C; the same call resumes from what was saved.
    """
    directory = _read_directory(workdir)
    asked = _make_command("train", directory, config, options)
    composed = asked.compose(directory)
    with _stopping(), prepare(composed):
        command.train_run(composed, directory, _make_terminal(quiet))
    return load(directory, canary="off")  # the devices have just been checked


def run_sweep(
    sweep: str,
    workdir: str | Path,
    *,
    config: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> list[Row]:
    """Run a sweep, or resume one that was stopped, as `--mode=sweep` does.

    Args:
        sweep: as `--sweep`: `"learning_rate=log(1e-2,1,3); seed=0:2"`.
        workdir: the directory in which `sweep/` is made.
        config: a preset, as `--config`; None: digits.
        quiet: whether nothing is printed.
        **options: by flag name, as of `cnn.train_run`.

    Returns:
        A row for each trial, by its number: `trial`, `status`, the options that vary,
        `validation_accuracy`, `test_accuracy` and the other columns of
        `sweep/trials.csv`; None where there is no value. A trial that failed says why
        in `reason`.

    Raises:
        UserError: a mistake in the space, the options or the data, found before
            anything is compiled.
        KeyboardInterrupt: Ctrl-C; the same call resumes.
    """
    directory = _read_directory(workdir)
    asked = _make_command("sweep", directory, config, {"sweep": sweep, **options})
    composed = asked.compose(directory)
    with _stopping(), prepare(composed):
        sweeps.sweep(composed, directory, _make_terminal(quiet), asked.given)
    home = directory / "sweep"
    paths = [home / "trials.jsonl", *sorted(home.glob("workers/*/trials.jsonl"))]
    columns, rows = table.flatten(x for path in paths for x in table.read_rows(path))
    return [{name: row.get(name) for name in columns} for row in rows]


def list_runs(
    *directories: str | Path, where: str = "", list_trials: bool = False
) -> list[Row]:
    """List runs and sweeps, as `--mode=list` does; nothing is computed or written.

    Args:
        *directories: in which runs lie, at any depth; none: `runs`.
        where: conditions, as `--where`: `"model=wrn* test_accuracy>0.9"`.
        list_trials: whether a sweep becomes a row for each of its trials.

    Returns:
        A row for each: `run` (where it lies), `kind`, `state`, the options in which
        they differ, and metrics; all rows have all columns, None where there is no
        value.

    Raises:
        UserError: a directory is not there, or a condition is wrong.
    """
    options = LedgerOptions(where=where, list_trials=list_trials)
    check(options)
    text = ",".join(map(str, directories)) or "runs"
    return ledger.find_rows(options, text)[1]


def _read_directory(workdir: str | Path) -> Path:
    text = expand_path("workdir", str(workdir))
    if not str(workdir):
        raise UserError("workdir is empty; name a directory")
    return Path(text)


def _make_command(
    mode: str, directory: Path, config: str | None, options: Mapping[str, Any]
) -> Command:
    """Make a command of keywords.

    Raises:
        UserError: naming all that is wrong with them.
    """
    fields, given, problems = list_fields(), {}, Problems()
    for name, value in options.items():
        with problems.note():
            if name not in fields:
                raise UserError(f"there is no option {name}{suggest(name, fields)}")
            plain = str(value) if isinstance(value, Path) else value
            given[name] = convert(fields[name], plain)
            Command(mode, {name: given[name]}).make_config()
    asked = Command(mode, given, config, str(directory))
    if problems.found:
        with problems.note():
            asked.check_files()
    problems.check()
    return asked


def _make_terminal(quiet: bool) -> Terminal:
    terminal = Terminal()
    terminal.console.quiet = quiet
    return terminal


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Give a signal, once everything is saved, to whoever handles it outside."""
    try:
        yield
    except Interrupted as stopped:
        if stopped.number == signal.SIGINT:
            raise KeyboardInterrupt from stopped
        signal.raise_signal(stopped.number)
        raise
