"""Sweeps: many trials as one compiled program: `--mode=sweep --sweep='…'`.

space.py  the text, parsed           trials.py  trials, grouped by program
loop.py, stacked.py  executors       choose.py  which one
batch.py  trials, epoch by epoch     session.py  what is on disk
grid.py, halving.py, study.py  which trials run, and how far
table.py, statistics.py, keep.py, live.py, plots.py  what came of them
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn import workdir
from cnn.errors import UserError, suggest
from cnn.interrupt import Stop, catch_signals
from cnn.options import option
from cnn.sweep import conclude, grid, halving, space, storage, table, trials, worker
from cnn.sweep.session import Session

if TYPE_CHECKING:
    from cnn.config import Config
    from cnn.progress import Terminal

# Set once for the process, before the first device call.
_FIXED = ("deterministic",)


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Which trials a sweep has, and how they run."""

    sweep: str = option(
        "",
        "the space, as 'learning_rate=log(1e-3,1,8); weight_decay=0,5e-4; seed=0:4': "
        "lists, a:b, linear(a,b,n), log(a,b,n); drawn: uniform(a,b), loguniform(a,b), "
        "choice(a,b)",
        changes_run=False,
    )
    trials: int = option(
        0,
        "draws of the drawn options, each with every point of the others",
        within="[0, inf)",
        changes_run=False,
    )
    sweep_seed: int = option(
        0, "seed of the draws", within="[0, 4294967295]", changes_run=False
    )
    max_trials: int = option(
        1000,
        "trials above which a sweep is refused",
        within="[1, inf)",
        changes_run=False,
    )
    executor: str = option(
        "auto",
        "how trials run: loop (one after another, the solo run's program), map (so "
        "inside one program), vmap (side by side), shard and shard_vmap (map and vmap "
        "on every device), auto (times 20 steps of each)",
        choices=("auto", "loop", "map", "vmap", "shard", "shard_vmap"),
        changes_run=False,
    )
    trials_at_once: int = option(
        0,
        "trials in one call of a program; 0: as memory allows, at most 64",
        within="[0, inf)",
        changes_run=False,
    )
    halving: int = option(
        0,
        "successive halving: at each rung the best 1/N of the settings go on; 0: all",
        within="[0, inf)",
        changes_run=False,
    )
    search: str = option(
        "points",
        "points (all of the space, or --trials draws) or optuna (--trials settings, "
        "asked of a study that any number of workers share)",
        choices=("points", "optuna"),
        changes_run=False,
    )
    storage: str = option(
        "",
        "optuna: where the study lies, as postgresql://USER@HOST/NAME or a journal "
        "file; empty: study.log in the sweep's directory",
        changes_run=False,
    )
    study: str = option(
        "sweep", "optuna: name of the study in its storage", changes_run=False
    )
    pruner: str = option(
        "none",
        "optuna: what stops bad settings early",
        choices=("none", "median", "hyperband"),
        changes_run=False,
    )
    worker: str = option(
        "", "optuna: name of this worker; empty: machine and process", changes_run=False
    )
    worker_timeout: float = option(
        60.0,
        "optuna: seconds without a sign of life after which a worker's running "
        "settings run elsewhere",
        within="(0, inf)",
        changes_run=False,
    )
    from_trial: str = option(
        "", "train: repeat a trial of a sweep alone, as runs/digits:17"
    )

    def select_identity(self) -> dict[str, Any]:
        """Return the options of which a change makes another sweep."""
        names = ("sweep", "sweep_seed", "executor", "trials_at_once", "halving")
        return {name: getattr(self, name) for name in (*names, "search")}


def sweep(
    config: "Config",
    fields: Mapping[str, dataclasses.Field],
    directory: Path,
    terminal: "Terminal",
) -> int:
    """Run a sweep, or go on with one that was stopped.

    Args:
        config: the options that all trials share, and those of the sweep.
        fields: of all options, by flag name.
        directory: the sweep's; `sweep/` is made in it.
        terminal: where to print.

    Returns:
        How many trials failed.

    Raises:
        UserError: a mistake in the space, the options or the data, found before
            anything is compiled.
        Interrupted: a signal arrived; the trials that have ended are recorded.
    """
    points = space.parse_space(config.sweep.sweep, _select_sweepable(fields))
    stop, home = Stop(), directory / "sweep"
    if config.sweep.search == "optuna":
        return _search(config, points, home, terminal, stop)
    with workdir.lock(directory):
        started = time.perf_counter()
        session = Session(config, home, terminal, stop)
        planned = trials.make_trials(points, config)
        groups = trials.group_trials(planned)
        trials.announce_groups(groups, len(planned), terminal)
        for group in groups:
            session.make_run(group[0].config)
        rungs = []
        if config.sweep.halving:
            rungs = halving.make_plan(planned, config.sweep.halving, terminal)
        session.open()
        with catch_signals(stop), session.closing(len(planned)):
            if rungs:
                halving.run_halving(session, groups, rungs)
            else:
                grid.run_grid(session, groups)
        records = {home: session.records}
        return conclude.conclude(config, home, records, terminal, started)


def _select_sweepable(
    fields: Mapping[str, dataclasses.Field],
) -> dict[str, dataclasses.Field]:
    own = {field.name for field in dataclasses.fields(SweepOptions)}
    return {
        name: field
        for name, field in fields.items()
        if field.metadata["changes_run"] and name not in own and name not in _FIXED
    }


def _search(
    config: "Config", points: space.Space, home: Path, terminal: "Terminal", stop: Stop
) -> int:
    """Work on a study; returns how many of its trials failed."""
    options, name = config.sweep, worker.name_worker(config.sweep.worker)
    corners = trials.make_corners(points, config)
    worker.check_options(config, points)
    directory = home / "workers" / name
    with workdir.lock(directory):
        started = time.perf_counter()
        session = Session(config, directory, terminal, stop)
        groups, seeds = trials.group_trials(corners), len(points.seeds) or 1
        trials.announce_groups(groups, options.trials * seeds, terminal)
        for group in groups:
            session.make_run(group[0].config)
        session.check_same_sweep()  # before a study is made for it
        shared = storage.open_study(config, points, home, name)
        session.open()
        session.write_config(home)
        terminal.say(f"worker    {name} of study {options.study}")
        with catch_signals(stop), session.closing(options.trials):
            worker.run_worker(session, shared, points)
        with worker.one_at_a_time(home):
            found = worker.gather_records(home, shared.list_ended(), seeds)
            return conclude.conclude(config, home, found, terminal, started)


def read_trial(text: str) -> dict[str, Any]:
    """Read the options of one trial of a sweep.

    Args:
        text: of --from_trial, `DIR:17`.

    Raises:
        UserError: there is no such sweep or trial.
    """
    directory, _, number = text.rpartition(":")
    home = Path(directory) / "sweep"
    if not directory or not number.isdigit():
        raise UserError(
            f"--from_trial={text}: expected the directory of a sweep and the number of "
            "a trial, as runs/digits:17"
        )
    if not (home / workdir.CONFIG_FILE).exists():
        raise UserError(f"--from_trial={text}: {directory} holds no sweep")
    paths = [home / "trials.jsonl", *home.glob("workers/*/trials.jsonl")]
    found = [record for path in paths for record in table.read_records(path)]
    records = {str(record["trial"]): record for record in found}
    if number not in records:
        raise UserError(
            f"--from_trial={text}: trial {number} is unknown{suggest(number, records)}"
        )
    own = json.loads(json.dumps(dataclasses.asdict(SweepOptions())))
    return workdir.read_config(home) | own | records[number]["options"]
