"""Sweeps: many trials as one compiled program: `--mode=sweep --sweep='…'`.

space.py  the text, parsed           trials.py  trials, grouped by program
executors.py, programs.py  how a batch of trials runs    choose.py  which way
batch.py  trials, epoch by epoch     trunks.py  what several of them share
session.py  what is on disk
searches.py, study.py, worker.py, budget.py  which trials run, and how far
table.py, outcome.py, live.py, plots.py, page.py  results    members.py  of ensembles
"""

import dataclasses
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cnn.checkpoints import workdir
from cnn.config import Config, list_fields
from cnn.data import has_several_labels
from cnn.errors import UserError, suggest
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.terminal import Terminal
from cnn.sweep import (
    budget,
    outcome,
    searches,
    space,
    study,
    table,
    trials,
    worker,
)
from cnn.sweep.options import SweepOptions
from cnn.sweep.session import Session
from cnn.training import tasks
from cnn.training.budget import clock
from cnn.weights import preprocessing

# Set once for the process, before the first device call; what all are ranked by, what
# has metrics of its own, and how long all of them take.
_FIXED = ("deterministic", "select_by", "task", "preprocessing", "minutes")
_FIXED += ("choose_sizes",)


def sweep(
    config: Config,
    directory: Path,
    terminal: Terminal,
    given: Mapping[str, Any] = MappingProxyType({}),
    began: float | None = None,
) -> int:
    """Run a sweep, or resume one, in `directory/sweep/`.

    Args:
        given: options of the command line by name; one that no trial reads is refused.
        began: the time, by `budget.clock`, from which --minutes counts; None: now.

    Returns:
        How many trials failed.

    Raises:
        UserError: a mistake in the space, the options or the data, found before
            anything is compiled.
        Interrupted: a signal arrived; the trials that have ended are saved.
    """
    config = preprocessing.resolve(config, directory / "sweep", terminal)
    config = tasks.resume(config, directory / "sweep")
    if config.train.select_by == "auto":
        several = has_several_labels(config.data)
        task = tasks.MULTILABEL if several else tasks.MULTICLASS
        config = config.change({"select_by": task.choose_metric("auto")})
    points = space.parse_space(config.sweep.sweep, select_sweepable())
    stop, home = Stop(), directory / "sweep"
    if config.sweep.search == "optuna":
        trials.check_read(given, config, points)
        return _search(config, points, home, terminal, stop)
    asked, began = config, clock() if began is None else began
    if config.train.minutes:
        config = budget.prepare(config, points, home)
    is_open = bool(config.train.minutes and not config.sweep.trials)
    if is_open:
        planned = budget.plan_round(config, points, 1)
        count = len(planned)
    else:
        planned, count = trials.make_trials(points, config)
    trials.check_read(given, asked, points)
    with workdir.lock(directory):
        started = time.perf_counter()
        session = Session(config, home, terminal, stop)
        session.check_same_sweep()
        _check_halving(config, home, planned)
        planned = session.find_ended(planned)
        groups = trials.group_trials(planned)
        _announce(points, count, planned, session)
        trials.announce_groups(groups, len(planned), terminal)
        session.prepare(groups)
        rungs = []
        if config.sweep.halving:
            rungs = searches.make_plan(planned, config.sweep.halving, terminal)
        session.open()
        total = session.count_total(planned)
        with catch_signals(stop), session.closing(total):
            if rungs:
                searches.run_halving(session, groups, rungs)
            else:
                if is_open:
                    planned = budget.fix_trials(session, points, began)
                    groups = trials.group_trials(planned)
                searches.run_grid(session, groups)
        found = {home: session.rows}
        return outcome.conclude(session.config, home, found, terminal, started)


def _check_halving(config: Config, home: Path, planned: Sequence[trials.Trial]) -> None:
    """Refuse to change what the rungs of a sweep depend on.

    Raises:
        UserError: the sweep has other trials than when it began, or failed ones are
            to be run again.
    """
    options = config.sweep
    if not options.halving:
        return
    why = (
        f"--halving={options.halving}: which settings go on from a rung depends on all "
        "of them"
    )
    if options.retry_failed:
        raise UserError(f"{why}, so --retry_failed is not for it; leave it out")
    if not (home / workdir.CONFIG_FILE).exists():
        return
    names = ("sweep", "trials", "sweep_seed")
    stored = workdir.read_config(home)
    before = config.change({name: stored[name] for name in names})
    points = space.parse_space(before.sweep.sweep, select_sweepable())
    known = {trial.identity for trial in trials.make_trials(points, before)[0]}
    if known != {trial.identity for trial in planned}:
        raise UserError(
            f"{why}, so a sweep with it cannot grow; give --sweep as it was, "
            f"{before.sweep.sweep}, or another --workdir to start from scratch"
        )


def _announce(
    points: space.Space, count: int, planned: Sequence[trials.Trial], session: Session
) -> None:
    """Say which points are one trial, and how many trials have ended before."""
    say = session.terminal.say
    for note in points.notes:
        say(f"note: {note}")
    if len(planned) < count:
        say(f"note: {count} points are {len(planned)} trials; equal ones run once")
    ended, others = session.count_ended(planned)
    if ended:
        say(f"resumed   {ended} trials have ended; {len(planned) - ended} to run")
    if others:
        say(f"note: {others} trials that have ended are not of --sweep; they stay")


def select_sweepable() -> dict[str, dataclasses.Field]:
    """Return the fields of the options that a sweep may vary, by flag name."""
    own = {field.name for field in dataclasses.fields(SweepOptions)}
    return {
        name: field
        for name, field in list_fields().items()
        if field.metadata["changes_run"] and name not in own and name not in _FIXED
    }


def _search(
    config: Config, points: space.Space, home: Path, terminal: Terminal, stop: Stop
) -> int:
    """Work on a study; returns how many of its trials failed."""
    options = config.sweep
    name = options.worker or f"{socket.gethostname()}-{os.getpid()}"
    corners = trials.make_corners(points, config)
    worker.check_options(config, points)
    directory = home / "workers" / name
    with workdir.lock(directory):
        started = time.perf_counter()
        session = Session(config, directory, terminal, stop, home)
        session.check_same_sweep()  # before its study is created
        groups, seeds = trials.group_trials(corners), len(points.seeds) or 1
        trials.announce_groups(groups, options.trials * seeds, terminal)
        shared_options = config.select_run_options() | options.select_study()
        workdir.check_same_run(home, shared_options, Config().to_flat())
        session.prepare(groups)
        shared = study.open_study(config, points, home, name, terminal, stop)
        session.open()
        session.write_config(home)
        terminal.say(f"worker    {name} of study {options.study}")
        for note in points.notes:
            terminal.say(f"note: {note}")
        with catch_signals(stop), session.closing(options.trials):
            worker.run_worker(session, shared, points)
        if copies := shared.count_copies():
            terminal.say(
                f"note: {copies} settings were drawn again; equal ones ran once"
            )
        with worker.one_at_a_time(home):
            found = worker.gather_rows(home, shared.list_results(), seeds, terminal)
            return outcome.conclude(config, home, found, terminal, started)


def read_trial(text: str) -> dict[str, Any]:
    """Read the options of the trial that --from_trial names, as `DIR:17`.

    Raises:
        UserError: there is no such sweep or trial.
    """
    directory, _, number = text.rpartition(":")
    home = Path(directory) / "sweep"
    if not directory or not number.isdecimal():
        raise UserError(
            f"--from_trial={text}: expected the directory of a sweep and the number of "
            "a trial, as runs/digits:17"
        )
    if not (home / workdir.CONFIG_FILE).exists():
        raise UserError(f"--from_trial={text}: {directory} holds no sweep")
    paths = [home / "trials.jsonl", *home.glob("workers/*/trials.jsonl")]
    found = [row for path in paths for row in table.read_rows(path)]
    rows = {str(row["trial"]): row for row in found}
    if number not in rows:
        raise UserError(
            f"--from_trial={text}: trial {number} is unknown{suggest(number, rows)}"
        )
    own = json.loads(json.dumps(dataclasses.asdict(SweepOptions())))
    # Of the sweep, not of its trials.
    own |= {"minutes": 0.0, "name": ""}
    return workdir.read_config(home) | own | rows[number]["options"]
