"""A worker of an Optuna study: asks for a batch of settings, runs it, reports.

Each worker has a directory of its own under the study's, `sweep/workers/NAME/`, with
its own table; each worker that ends gathers the results of all.
"""

import collections
import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import atomic
from cnn.config import Config
from cnn.errors import UserError
from cnn.runtime import own_files
from cnn.runtime.terminal import Terminal
from cnn.sweep import choose
from cnn.sweep.batch import Batch, TrialProgress
from cnn.sweep.live import LiveTable
from cnn.sweep.session import Session
from cnn.sweep.space import Space
from cnn.sweep.study import Ended, Study
from cnn.sweep.table import Row, list_last_columns, read_rows
from cnn.sweep.trials import Trial, group_trials, make_setting, make_trial
from cnn.sweep.trunks import Family

SETTINGS_AT_ONCE = 8
_PAUSE = 0.5


def check_options(config: Config, space: Space) -> None:
    """Refuse options that a study cannot have."""
    options = config.sweep
    if not options.trials:
        raise UserError("--search=optuna needs --trials=N, the settings of the study")
    if options.halving:
        raise UserError(
            f"--halving={options.halving} and --search=optuna exclude each other; use "
            "--pruner=hyperband"
        )
    if all(axis.name == "seed" for axis in space.axes):
        raise UserError(
            "--search=optuna has nothing to search but seeds; add an option"
        )
    count = options.trials * (len(space.seeds) or 1)
    if count > options.max_trials:
        raise UserError(
            f"--search=optuna: {options.trials} settings with their seeds are {count} "
            f"trials, more than --max_trials={options.max_trials}; raise that"
        )


def run_worker(session: Session, study: Study, space: Space) -> None:
    """Work on a study until it has --trials settings.

    Raises:
        Interrupted: a signal arrived; unfinished settings are queued again.
    """
    options = session.config.sweep
    worker = _Worker(session, study, space)
    try:
        with study.show_life(options.worker_timeout):
            if lost := study.retry_lost(str(session.home), worker.list_whole()):
                session.terminal.say(f"{lost} settings whose rows are lost run again")
            if options.retry_failed:
                failed = study.retry_failed()
                session.terminal.say(f"{failed} settings that failed run again")
            while len(study.list_ended()) < options.trials:
                if dead := study.take_over(options.worker_timeout, worker.find_ended):
                    session.terminal.say(f"{dead} settings of a dead worker run again")
                settings = worker.ask_batch()
                if settings:
                    worker.run(settings)
                else:
                    session.stop.check()
                    time.sleep(_PAUSE)
    finally:
        study.release()


class _Worker:
    """What a worker keeps between its batches: an executor for each program."""

    def __init__(self, session: Session, study: Study, space: Space) -> None:
        options = session.config.sweep
        self._session, self._study, self._options = session, study, options
        self._seeds = space.seeds or (None,)
        most = options.trials_at_once // len(self._seeds)
        self._at_once = max(1, most if options.trials_at_once else SETTINGS_AT_ONCE)
        self._executors: dict[tuple, choose.Executor] = {}
        self._waiting: dict[int, Mapping[str, Any]] = {}
        self._show = LiveTable(session.terminal, options.trials * len(self._seeds))

    def ask_batch(self) -> list[Trial]:
        """Ask for as many settings as run at once, each with every seed.

        One that equals a setting which runs waits for the result of that.
        """
        asked = self._settle()
        for _ in range(self._at_once):
            setting = self._study.ask(self._options.trials)
            if setting is None:
                break
            self._waiting |= [setting]
            asked += self._settle()
        return asked

    def _settle(self) -> list[Trial]:
        """Return the trials of the settings in waiting that equal no other."""
        ready: list[Trial] = []
        for number, options in list(self._waiting.items()):
            config = self._session.config
            try:
                is_settled = self._study.settle(number)
                if is_settled is None:
                    continue
                if not is_settled:
                    ready += make_seeds(number, options, self._seeds, config)
            except UserError as error:  # of options that only together are a mistake
                self._session.terminal.say(f"setting {number} is not run: {error}")
                self._study.tell(number, "failed", str(error), None)
            del self._waiting[number]
        return ready

    def run(self, asked: Sequence[Trial]) -> None:
        """Run settings, those of one program together, and report how they ended."""
        for group in group_trials(asked):
            key = group[0].config.make_program_key()
            if key not in self._executors:
                width = self._at_once * len(self._seeds)
                self._executors[key] = self._session.make_executor(group, width)
            with self._show:
                alone = [Family(trial) for trial in group]
                self._session.run_batch(self._executors[key], alone, group, self._watch)
            for number in dict.fromkeys(t.number // len(self._seeds) for t in group):
                rows = self._select_rows(self._session.rows, number)
                self._study.tell(number, *self._conclude(rows, self._session.home))

    def _select_rows(self, rows: Sequence[Row], number: int) -> list[Row]:
        """Select the rows of a setting's seeds."""
        return [row for row in rows if row["trial"] // len(self._seeds) == number]

    def list_whole(self) -> set[int]:
        """List the settings of which this worker has the rows of all seeds."""
        counts = collections.Counter(
            row["trial"] // len(self._seeds) for row in self._session.rows
        )
        return {number for number, n in counts.items() if n == len(self._seeds)}

    def find_ended(
        self, worker: str, number: int, options: Mapping[str, Any]
    ) -> Ended | None:
        """Find how a setting ended that its worker has saved, and not told."""
        home = self._session.home.parent / worker
        rows = self._select_rows(
            read_rows(home / "trials.jsonl", is_strict=False), number
        )
        if len(rows) < len(self._seeds) or not all(
            has_options(r, options) for r in rows
        ):
            return None
        return self._conclude(rows, home)

    def _conclude(self, rows: Sequence[Row], home: Path) -> Ended:
        """Return how a setting ended: its value is the mean over its seeds.

        With it goes what a dashboard shows of it: its seeds' results, in lists.
        """
        reason = next((row["reason"] for row in rows if row["reason"]), "")
        statuses = [row["status"] for row in rows]
        status = max(statuses, key=("finished", "pruned", "failed").index)
        metric = f"validation_{self._session.select_by}"
        values = [row[metric] for row in rows] if status == "finished" else []
        value = math.fsum(values) / len(values) if values else None
        names = ["trial", "status", *list_last_columns(rows)[:-1]]
        found = {name: [row[name] for row in rows if name in row] for name in names}
        seeds = [row["options"].get("seed") for row in rows]
        return status, reason, value, {"directory": str(home), "seeds": seeds} | found

    def _watch(self, batch: Batch) -> None:
        """Report the settings of a batch after an epoch; prune what Optuna prunes."""
        for number, ones in self._list_settings(batch):
            is_new = all(
                one.status == "running" and one.curve[-1]["epoch"] == batch.epoch
                for one in ones
            )
            if is_new and self._study.report(number, _mean(ones), batch.epoch):
                for one in ones:
                    reason = f"{self._options.pruner}, after epoch {batch.epoch}"
                    one.end("pruned", reason)
        self._show.show(batch, self._session.rows)

    def _list_settings(self, batch: Batch) -> list[tuple[int, list[TrialProgress]]]:
        settings: dict[int, list[TrialProgress]] = {}
        for one in batch.progress:
            number = one.trial.number // len(self._seeds)
            settings.setdefault(number, []).append(one)
        return list(settings.items())


def make_seeds(
    number: int,
    options: Mapping[str, Any],
    seeds: Sequence[int | None],
    config: Config,
) -> list[Trial]:
    """Make the trials of the setting `number` of a study, one for each seed.

    Args:
        seeds: None stands for the seed of `config`.
        config: the options that all trials share.
    """
    first = number * len(seeds)
    return [
        make_trial(
            first + i, options if seed is None else {**options, "seed": seed}, config
        )
        for i, seed in enumerate(seeds)
    ]


def gather_rows(
    home: Path, ended: Mapping[int, Mapping[str, Any]], seeds: int, terminal: Terminal
) -> dict[Path, list]:
    """Gather the rows of all workers of a study, by their directories.

    Args:
        home: the study's directory.
        ended: options of the settings that have ended for good, by their numbers;
            others in the table of a worker that died ran again under another number.
        seeds: the trials of a setting.
    """
    found, missing = {}, set(ended)
    for path in sorted(home.glob("workers/*/trials.jsonl")):
        own = found.setdefault(path.parent, [])
        for row in read_rows(path, is_strict=False):
            number = row["trial"] // seeds
            if number in ended and has_options(row, ended[number]):
                own.append(row)
                missing.discard(number)
    if missing:
        terminal.say(
            f"note: {len(missing)} settings have ended whose rows are not in "
            f"{home / 'workers'}: they are on another machine, or lost"
        )
    return found


def has_options(row: Row, options: Mapping[str, Any]) -> bool:
    """Return whether a row is of a setting: it has those options that are read."""
    return set(make_setting(row["options"])) <= set(make_setting(options))


@contextlib.contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Hold the lock under which one worker at a time writes the results."""
    with own_files.open_own(home / ".gather", "a", is_shared=True) as file:
        with atomic.hold(file, wait=True):
            yield


def _mean(ones: Sequence[TrialProgress]) -> float:
    return math.fsum(one.metric for one in ones) / len(ones)
