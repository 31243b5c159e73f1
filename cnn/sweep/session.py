"""A sweep under way: what has ended is on disk, and more trials can be run.

The order of writing is what makes a kill harmless: the state of a trial that may be
the best, then the trials' lines, then what no longer matters is removed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn import report, workdir
from cnn.errors import UserError
from cnn.interrupt import Stop
from cnn.progress import Terminal
from cnn.run import Run
from cnn.sweep import choose, keep, live, statistics, table
from cnn.sweep.batch import Batch
from cnn.sweep.stacked import check_resident
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
        self._run: Run | None = None
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
        last = self._run
        if last is None or last.config.make_program_key() != config.make_program_key():
            self._run = Run(config, self.home, self.terminal, self._stop, last)
        if self._run.eval_split != "validation":
            raise UserError(
                "A sweep selects on validation data and there is none; carve it out of "
                "train with --validation_fraction=0.1"
            )
        check_resident(self.config.sweep.executor, self._run)
        return self._run

    def make_executor(self, group: Sequence[Trial]) -> choose.Executor:
        """Make the executor of a group, told by --executor or measured."""
        options, run = self.config.sweep, self.make_run(group[0].config)
        width = choose.choose_width(run, len(group), options.trials_at_once)
        path = self.home / "executors.json"
        name = options.executor
        return choose.choose_executor(name, run, group, width, path, self.terminal)

    def open(self) -> None:
        """Make the directory, note the options and open the table.

        Raises:
            UserError: the directory holds another sweep.
        """
        config = self.config
        wanted = config.select_run_options() | config.sweep.select_identity()
        workdir.check_same_run(self.home, wanted, type(config)().to_flat())
        self.home.mkdir(parents=True, exist_ok=True)
        workdir.write_json(self.home / workdir.CONFIG_FILE, config.to_flat())
        self.log = TrialLog(self.home / "trials.jsonl")

    def start_batch(self, executor: choose.Executor, trials: Sequence[Trial]) -> Batch:
        """Create the first states of some trials of a group."""
        return Batch(executor, trials, self._run.task.steps_per_epoch)

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
                keep.save_run(self._run, trials[number], state, record, directory)
        self.log.append([record for record, _ in told])
        keep.remove_others(self.home, kept)
        table.write_csv(self.home / "trials.csv", self.records)

    def record_failed(self, trial: Trial, reason: str) -> None:
        """Record a trial that could not be run."""
        about = {"trial": trial.number, "options": dict(trial.options)}
        self.log.append([about | {"status": "failed", "reason": reason, "curve": []}])
        table.write_csv(self.home / "trials.csv", self.records)

    def conclude(self, planned: Sequence[Trial]) -> int:
        """Write what the trials came to, and say it.

        Args:
            planned: every trial of the sweep.

        Returns:
            How many trials failed.
        """
        rows = statistics.rank_settings(self.records, self.select_by)
        failed = [r for r in self.records if r["status"] == "failed"]
        say = self.terminal.say
        for record in failed[: live.ROWS]:
            say(f"trial {record['trial']} failed: {record['reason']}")
        if not rows:
            say("no trial has finished")
            return len(failed)
        write_settings(self.home / "settings.csv", rows)
        best = statistics.find_best_trial(self.records, self.select_by)
        trial = next(t for t in planned if t.number == best["trial"])
        keep.publish_best(self.home, best, rows, trial)
        self.terminal.console.print(live.make_settings_table(rows, self.select_by))
        test = ", ".join(
            f"{n} {best[f'test_{n}']:.4f}" for n in report.TEST_METRICS[:2]
        )
        say(f"best: trial {best['trial']}, test {test}; {len(failed)} trials failed")
        say(f"in {self.home}: trials.csv, settings.csv, best.json, best.py, best/")
        say(f"next: python main.py --mode=evaluate --workdir={self.home / 'best'}")
        return len(failed)


def write_settings(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the settings, as `statistics.rank_settings` has them, as CSV."""
    names = list(rows[0]["options"])
    others = [name for name in rows[0] if name != "options"]
    table.write_rows(path, [*names, *others], [row | row["options"] for row in rows])
