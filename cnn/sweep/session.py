"""A sweep under way: what has ended is on disk, and more trials can be run.

The order of writing is what makes a kill harmless: the state of a trial that may be
the best, then the trials' lines, then what no longer matters is removed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn import workdir
from cnn.errors import UserError
from cnn.interrupt import Interrupted, Stop
from cnn.progress import Terminal
from cnn.run import Run
from cnn.sweep import choose, keep, table
from cnn.sweep.batch import Batch, Progress
from cnn.sweep.stacked import check_stackable
from cnn.sweep.table import Record, TrialLog
from cnn.sweep.trials import Trial

if TYPE_CHECKING:
    from cnn.config import Config


class Session:
    """What the trials of a sweep share while it runs."""

    def __init__(
        self, config: "Config", home: Path, terminal: Terminal, stop: Stop
    ) -> None:
        """Share the data between runs; nothing is opened or written yet."""
        self.config, self.home, self.terminal = config, home, terminal
        self.select_by = config.train.select_by
        self._stop = stop
        self._runs: dict[Any, Run] = {}
        self.log: TrialLog | None = None

    @property
    def records(self) -> list[Record]:
        """Return the records of all trials that have ended."""
        return self.log.records

    def make_run(self, config: "Config") -> Run:
        """Make what a group's trials are built of; checks all, compiles nothing.

        Raises:
            UserError: the options do not fit the data or each other, or there is no
                validation set to select on.
        """
        if config.profile.profile:
            raise UserError(
                "--profile traces the steps of a single run; trace a trial by --mode="
                "train --from_trial=DIR:NUMBER --profile=DIR"
            )
        key = config.make_program_key()
        if key not in self._runs:
            same = (r for r in self._runs.values() if r.config.data == config.data)
            like = next(same, None)
            run = Run(config, self.home, self.terminal, self._stop, like)
            self._runs[key] = run
        run = self._runs[key]
        if run.eval_split != "validation":
            raise UserError(
                "A sweep selects on validation data and there is none; carve it out of "
                "train with --validation_fraction=0.1"
            )
        check_stackable(self.config.sweep.executor, run)
        return run

    def make_executor(
        self, group: Sequence[Trial], width: int | None = None
    ) -> choose.Executor:
        """Make the executor of a group, told by --executor or measured.

        Args:
            group: its trials, or some of them.
            width: how many run at once; None: as --trials_at_once and memory say, and
                one in a loop, where a trial gains nothing from others beside it.
        """
        options, run = self.config.sweep, self.make_run(group[0].config)
        path = self.home / "executors.json"
        chosen = width or choose.choose_width(run, len(group), options.trials_at_once)
        executor = choose.choose_executor(
            options.executor, run, group, chosen, path, self.terminal
        )
        if executor.name == "loop" and width is None:
            executor.width = 1
        return executor

    def check_stop(self) -> None:
        """Leave if a signal has arrived.

        Raises:
            Interrupted: it has.
        """
        self._stop.check()

    def check_same_sweep(self) -> None:
        """Refuse to go on with a sweep under options that would make it another.

        Raises:
            UserError: naming the options that differ.
        """
        config = self.config
        wanted = config.select_run_options() | config.sweep.select_identity()
        workdir.check_same_run(self.home, wanted, type(config)().to_flat())

    def open(self) -> None:
        """Make the directory, note the options and open the table.

        Raises:
            UserError: the directory holds another sweep.
        """
        self.check_same_sweep()
        self.home.mkdir(parents=True, exist_ok=True)
        self.write_config(self.home)
        self.log = TrialLog(self.home / "trials.jsonl")

    def write_config(self, home: Path) -> None:
        """Write the options, but the storage's address, which may hold a password."""
        stored = self.config.to_flat() | {"storage": ""}
        workdir.write_json(home / workdir.CONFIG_FILE, stored)

    def start_batch(self, executor: choose.Executor, trials: Sequence[Trial]) -> Batch:
        """Create the first states of some trials of a group."""
        progress = [Progress(trial) for trial in trials]
        length = self.make_run(trials[0].config).task.steps_per_epoch
        return Batch(executor, progress, length)

    def regroup(
        self, executor: choose.Executor, batches: Sequence[Batch]
    ) -> list[Batch]:
        """Gather the trials of a group that have not ended in as few batches."""
        pairs = [pair for batch in batches for pair in batch.take_running()]
        regrouped = []
        for i in range(0, len(pairs), executor.width):
            progress, states = zip(*pairs[i : i + executor.width], strict=True)
            length = self.make_run(progress[0].trial.config).task.steps_per_epoch
            regrouped.append(Batch(executor, progress, length, states))
        return regrouped

    def record(self, batch: Batch, planned: Sequence[Trial]) -> None:
        """Record the trials of a batch that have ended since it was recorded last.

        Args:
            batch: some of its trials may go on.
            planned: every trial of the sweep.
        """
        told = [pair for pair in batch.conclude() if pair[0]["status"] != "running"]
        done = {record["trial"] for record in self.records}
        told = [pair for pair in told if pair[0]["trial"] not in done]
        records = self.records + [record for record, _ in told]
        done |= {record["trial"] for record, _ in told}
        open_settings = {t.setting for t in planned if t.number not in done}
        kept = keep.choose_kept(records, open_settings, self.select_by)
        trials = {one.trial.number: one.trial for one in batch.progress}
        for record, state in told:
            number = record["trial"]
            if number in kept:
                directory = self.home / "kept" / str(number)
                run = self.make_run(trials[number].config)
                keep.save_run(run, trials[number], state, record, directory)
        self.log.append([record for record, _ in told])
        keep.remove_others(self.home, kept)
        table.write_csv(self.home / "trials.csv", self.records)

    def record_failed(self, trial: Trial, reason: str) -> None:
        """Record a trial that could not be run."""
        about = {"trial": trial.number, "options": dict(trial.options)}
        self.log.append([about | {"status": "failed", "reason": reason, "curve": []}])
        table.write_csv(self.home / "trials.csv", self.records)

    @contextlib.contextmanager
    def closing(self, total: int) -> Iterator[None]:
        """Close the table at the end; say what is kept when a signal arrives.

        Args:
            total: how many trials (of a study: settings) there are to be.
        """
        try:
            yield
        except Interrupted:
            self.terminal.say(
                f"stopped; {len(self.records)} of {total} have ended and are kept; "
                "the same command goes on"
            )
            raise
        finally:
            self.log.close()
