"""Trials of sweeps as members of an ensemble: those whose weights were kept."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cnn.checkpoints import workdir
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.sweep import outcome, table
from cnn.text import show_line
from cnn.training import tasks

_SHOWN = 10  # numbers of trials in a line


@dataclasses.dataclass(frozen=True)
class Members:
    """Runs whose probabilities are averaged.

    Attributes:
        directories: of the runs.
        place: a directory for the ensemble of a whole sweep; None: that of the first
            run.
    """

    directories: tuple[Path, ...]
    place: Path | None = None


def find_members(
    directories: Sequence[Path], choice: str, terminal: Terminal
) -> Members:
    """Find the runs of an ensemble: those named, and trials of sweeps that are.

    Args:
        directories: of `--workdir`, of runs and sweeps.
        choice: of `--members`.

    Raises:
        UserError: a sweep has no trial with weights, fewer than two runs are left, a
            process is still writing one, or `--members` finds no sweep to choose from.
    """
    found, homes = [], []
    for directory in directories:
        home = directory / "sweep"
        if not _is_sweep(directory):
            workdir.check_idle(directory)
            found.append(directory)
            continue
        homes.append(home)
        for path in (directory, *home.glob("workers/*")):
            workdir.check_idle(path)
        found += _find_trials(home, choice, terminal)
    if choice != "all" and not homes:
        raise UserError(
            f"--members={choice} chooses among the trials of a sweep, and --workdir "
            "names none; give the directory of one, or leave it out"
        )
    if len(found) < 2:
        only = f", and only {show_line(str(found[0]))} has weights" if homes else ""
        raise UserError(
            f"--ensemble averages several runs{only}: give --workdir=A,B,…, or a sweep "
            "that was run with --keep_trials=all or seeds"
        )
    alone = homes[0] if len(directories) == len(homes) == 1 else None
    return Members(tuple(dict.fromkeys(found)), alone)


def _is_sweep(directory: Path) -> bool:
    is_run = (directory / workdir.CONFIG_FILE).exists()
    return not is_run and (directory / "sweep" / workdir.CONFIG_FILE).exists()


def _find_trials(home: Path, choice: str, terminal: Terminal) -> list[Path]:
    """Return the directories of a sweep's trials, and say which are left out."""
    rows = {
        row["trial"]: (path.parent, row)
        for path in (
            home / "trials.jsonl",
            *sorted(home.glob("workers/*/trials.jsonl")),
        )
        for row in table.read_rows(path)
    }
    ended = [row for _, row in rows.values()]
    finished = [row for row in ended if row["status"] == "finished"]
    chosen = workdir.read_config(home)["select_by"]
    select_by = tasks.get_task(finished[0] if finished else {}).choose_metric(chosen)
    ranking = table.rank_settings(ended, select_by)
    if not ranking:
        raise UserError(f"no trial of {home} has finished; run the sweep first")
    wanted = sorted(ranking[0]["trials"] if choice == "seeds" else rows)
    places = {number: rows[number][0] / "kept" / str(number) for number in wanted}
    found = {n: place for n, place in places.items() if outcome.is_whole(place)}
    without = [number for number in wanted if number not in found]
    if not found:
        raise UserError(
            f"{home} has kept no weights of the {len(wanted)} trials that "
            f"--members={choice} names; --keep_trials=all of a new sweep keeps them, "
            "and --from_trial trains one again"
        )
    if without:
        terminal.say(
            f"{home}: {len(found)} of {len(wanted)} trials have weights; left out: "
            f"{_list(without)} (--keep_trials=all of a new sweep keeps them)"
        )
    return list(found.values())


def _list(numbers: Sequence[int]) -> str:
    more = " …" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more
