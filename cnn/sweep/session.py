"""A sweep under way: trials that have ended are on disk, and more can be run.

The order of writing makes a kill harmless: first the state of a trial that may be the
best, then the trials' rows, then states that are no longer needed are removed.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cnn import train
from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep import choose, outcome, table, trials, trunks
from cnn.sweep.batch import Batch
from cnn.sweep.executors import (
    Executor,
    check_stackable,
    explain_shortage,
    is_shortage,
)
from cnn.sweep.same_data import SharedData
from cnn.sweep.table import Row, TrialLog
from cnn.sweep.trials import Trial, make_setting
from cnn.sweep.trunks import Family
from cnn.training import course, report
from cnn.training.setup import Setup


class Session:
    """What the trials of a sweep share while it runs."""

    def __init__(
        self,
        config: Config,
        home: Path,
        terminal: Terminal,
        stop: Stop,
        sweep_home: Path | None = None,
    ) -> None:
        """Prepare; nothing is opened or written yet.

        Args:
            sweep_home: the directory of the sweep that `home` is a worker's part of.
        """
        self.config, self.home, self.terminal = config, home, terminal
        self._data = SharedData(config, sweep_home or home)
        self.select_by, self.stop = config.train.select_by, stop
        self._setups: dict[Any, Setup] = {}
        self._ended: list[Row] | None = None
        self.log: TrialLog | None = None

    @property
    def rows(self) -> list[Row]:
        """Return the rows of the trials that have ended."""
        return self.log.rows

    def make_setup(self, config: Config) -> Setup:
        """Make the setup of a group's trials, and check it; nothing is compiled.

        Raises:
            UserError: the options do not fit the data or each other, or there is no
                validation set to select on.
        """
        key = config.make_program_key()
        if key not in self._setups:
            same = (x for x in self._setups.values() if x.config.data == config.data)
            like = next(same, None)
            self._setups[key] = train.make_setup(
                config, {}, self.terminal, self.stop, like
            )
            self._data.check(self._setups[key])
            if self.log is not None:
                self._data.write()
        setup = self._setups[key]
        if setup.eval_split != "validation":
            raise UserError(
                "A sweep selects on validation data and there is none; carve it out of "
                "train with --validation_fraction=0.1"
            )
        check_stackable(self.config.sweep.executor, setup)
        return setup

    def prepare(self, groups: Sequence[Sequence[Trial]]) -> None:
        """Check each trial before any is run, and print what training leaves out.

        Raises:
            UserError: as `make_setup`.
        """
        notes: dict[str, None] = {}
        for group in groups:
            setup = self.make_setup(group[0].config)
            for trial in group:
                own = setup.with_numbers(trial.config)
                course.check_steps(own.config, *own.lengths)
                notes |= dict.fromkeys(report.list_notes(own))
        for note in notes:
            self.terminal.say(note)

    def make_executor(
        self, group: Sequence[Trial], width: int | None = None
    ) -> Executor:
        """Make the executor of a group, the one of --executor or the fastest.

        Args:
            group: its trials, or some of them.
            width: how many run at once; None: as --trials_at_once and memory say, and
                one in a loop, where a trial gains nothing from others beside it.
        """
        options, setup = self.config.sweep, self.make_setup(group[0].config)
        path = self.home / "executors.json"
        chosen = width or choose.choose_width(setup, len(group), options.trials_at_once)
        executor = choose.choose_executor(
            options.executor, setup, group, chosen, path, self.terminal, self.stop
        )
        if executor.name == "loop" and width is None:
            executor.width = 1
        return executor

    def check_same_sweep(self) -> None:
        """Refuse to resume a sweep under options that would make it another one."""
        config = self.config
        wanted = config.select_run_options() | config.sweep.select_fixed()
        defaults = Config().to_flat()
        self._data.respelled = workdir.check_same_run(self.home, wanted, defaults)

    def find_ended(self, planned: Sequence[Trial]) -> list[Trial]:
        """Find the trials of a sweep that have ended, by their options.

        Args:
            planned: every trial of the sweep, in its order.

        Returns:
            The trials; those that have ended have their old numbers.

        Raises:
            UserError: none of those that have ended is planned.
        """
        table.mend(self.home / "trials.jsonl", self.terminal)
        rows = table.read_rows(self.home / "trials.jsonl")
        joined, rows = trials.join_ended(planned, rows, self.config)
        retries = self.config.sweep.retry_failed
        again = {trial.number for trial in joined} if retries else set()
        self._ended = [
            row
            for row in rows
            if row["status"] != "failed" or row["trial"] not in again
        ]
        return joined

    def count_ended(self, planned: Sequence[Trial]) -> tuple[int, int]:
        """Count the trials that have ended: those planned, and those no longer."""
        done = {row["trial"] for row in self._ended}
        found = len(done & {trial.number for trial in planned})
        return found, len(done) - found

    def count_total(self, planned: Sequence[Trial]) -> int:
        """Count the trials that the table will have."""
        return len(planned) + self.count_ended(planned)[1]

    def open(self) -> None:
        """Make the directory, write the options and open the table."""
        outcome.prepare()
        self.home.mkdir(parents=True, exist_ok=True)
        self.write_config(self.home)
        self._data.write()
        table.mend(self.home / "trials.jsonl", self.terminal)
        self.log = TrialLog(self.home / "trials.jsonl")
        if self._ended is not None:
            self.log.rows = self._ended

    def write_config(self, home: Path) -> None:
        """Write the options without --storage, which may hold a password."""
        stored = self.config.to_flat() | {"storage": ""}
        workdir.write_config(home, stored)

    def run_batch(
        self,
        executor: Executor,
        some: Sequence[Family],
        planned: Sequence[Trial],
        watch: Callable[[Batch], None],
    ) -> None:
        """Run some trials of a group to their end, with their branches, and save them.

        Args:
            planned: every trial of the sweep.
            watch: as of `Batch.advance`.

        Raises:
            UserError: several at once do not fit in memory.
        """
        try:
            with explain_shortage(len(some)):
                for batch in trunks.iterate(executor, some, watch):
                    self.save_ended(batch, planned)
        except UserError as error:
            if not is_shortage(error) or len(some) > 1:
                raise
            done = {row["trial"] for row in self.rows}
            for trial in some[0].trials:
                if trial.number not in done:
                    self.save_failed(trial, "it does not fit in memory")

    def save_ended(self, batch: Batch, planned: Sequence[Trial]) -> None:
        """Save the trials of a batch that have ended and are not saved yet.

        Args:
            planned: every trial of the sweep.
        """
        # A row of that number and other options is of a study that is gone.
        done = {row["trial"]: make_setting(row["options"]) for row in self.rows}
        ended = [
            (row, state)
            for row, state in batch.conclude()
            if row["status"] != "running"
            and done.get(row["trial"]) != make_setting(row["options"])
        ]
        new = [row for row, _ in ended]
        numbers = [row["trial"] for row in new]
        others = [row for row in self.rows if row["trial"] not in numbers]
        kept = self.choose_kept(others + new, planned)
        by_number = {one.trial.number: one.trial for one in batch.progress}
        for row, state in ended:
            number = row["trial"]
            if number in kept:
                setup = self.make_setup(by_number[number].config)
                directory = self.home / "kept" / str(number)
                outcome.save_run(setup, by_number[number], state, row, directory)
        self.log.append(new)
        for path in (self.home / "kept").glob("*"):
            is_own = path.name.isdecimal() and path.is_dir() and not path.is_symlink()
            if is_own and path.name not in map(str, kept):
                outcome.remove_run(path)
        table.write_csv(self.home / "trials.csv", self.rows)

    def choose_kept(self, rows: Sequence[Row], planned: Sequence[Trial]) -> set[int]:
        """Choose the trials whose states are kept, as of `outcome.choose_kept`.

        Args:
            rows: of the trials that have ended.
            planned: every trial of the sweep.
        """
        done = {row["trial"] for row in rows}
        open_settings = {t.setting for t in planned if t.number not in done}
        keep = self.config.sweep.keep_trials
        return outcome.choose_kept(rows, open_settings, self.select_by, keep)

    def save_failed(self, trial: Trial, reason: str) -> None:
        """Save a trial that could not be run."""
        about = {"trial": trial.number, "options": dict(trial.options)}
        self.log.append([about | {"status": "failed", "reason": reason, "curve": []}])
        table.write_csv(self.home / "trials.csv", self.rows)

    @contextlib.contextmanager
    def closing(self, total: int) -> Iterator[None]:
        """Close the table at the end; when a signal arrives, print what is kept.

        Args:
            total: how many trials (of a study: settings) are planned.
        """
        try:
            yield
        except Interrupted:
            self.terminal.say(
                f"stopped; {len(self.rows)} of {total} have ended and are kept; "
                "run the same command to continue"
            )
            raise
        finally:
            self.log.close()
