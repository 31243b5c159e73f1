"""Results of a sweep: the states it keeps, its tables, the best trial as a run.

A trial that may be the best, or that --keep_trials keeps, is written to `kept/NUMBER`
before its row of the table; after each batch, those that cannot be kept any more are
removed. `best/` and they can be evaluated, exported and visualized like any run.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cnn import place
from cnn.checkpoints import atomic, manifest, workdir
from cnn.checkpoints.checkpoint import CheckpointWriter
from cnn.config import Config
from cnn.errors import UserError
from cnn.runtime import background, devices, own_files
from cnn.runtime.terminal import Terminal
from cnn.sweep import live, page, plots, table
from cnn.sweep.live import format_options
from cnn.sweep.table import Row
from cnn.sweep.trials import Trial, make_setting, make_trial
from cnn.text import quote, show_line
from cnn.training import progress, report, same_data, tasks
from cnn.training.counters import Counters
from cnn.training.setup import Setup
from cnn.training.state import TrainState, to_items

# Files of a run that a trial is written as, and of what is then evaluated.
_FILES = ("result.json", "metrics.jsonl", "dataset.json", workdir.CONFIG_FILE)
_FILES += (workdir.OWN_MODEL, ".lock")
_FILES += ("evaluation*.json", "evaluation*.csv")


def prepare() -> background.Job:
    """Import in a thread what `conclude` needs: half a second, while trials train."""
    return background.start("imports what draws", _import_libraries)


def _import_libraries() -> None:
    with contextlib.suppress(ImportError):  # which is said where they are needed
        from scipy import special  # noqa: F401
    with contextlib.suppress(ImportError):
        from matplotlib import figure  # noqa: F401
        from matplotlib.backends import backend_agg  # noqa: F401


def conclude(
    config: Config,
    home: Path,
    rows: Mapping[Path, Sequence[Row]],
    terminal: Terminal,
    started: float,
) -> int:
    """Write tables, best trial and pictures to `home`, and print what they are.

    Args:
        config: the options that all trials share.
        rows: of all trials, by the directory that keeps their states.
        started: when this process began to load data, by `time.perf_counter`.

    Returns:
        How many trials failed.
    """
    select_by, say = config.train.select_by, terminal.say
    everything = [row for own in rows.values() for row in own]
    table.write_csv(home / "trials.csv", everything)
    failed = [r for r in everything if r["status"] == "failed"]
    for row in failed[: live.ROWS]:
        say(f"trial {row['trial']} failed: {row['reason']}")
    if failed and not config.sweep.halving:
        say("--retry_failed=true runs the failed trials again")
    for row in everything:
        if row["status"] == "finished" and not table.is_comparable(row, select_by):
            say(
                f"warning   trial {row['trial']}: its validation {select_by} or loss "
                "is not finite; it is not compared"
            )
    ranking = table.rank_settings(everything, select_by)
    if not ranking:
        say("no trial has finished")
        return len(failed)
    table.write_settings(home / "settings.csv", ranking)
    best = table.find_best_trial(everything, select_by)
    source = next(path for path, own in rows.items() if best in own)
    trial = make_trial(best["trial"], best["options"], config)
    is_there = publish_best(home, source, best, ranking, trial)
    terminal.show(live.make_settings_table(ranking, select_by))
    notes = table.describe_ties(ranking, everything, select_by)
    tested = tasks.get_task(best).tested
    test = ", ".join(f"{n} {best[f'test_{n}']:.4f}" for n in tested[:2])
    notes += [f"best: trial {best['trial']}, test {test}; {len(failed)} trials failed"]
    for note in notes:
        say(note)
    pictures = plots.draw_plots(everything, select_by, home / "plots")
    written = ["trials.csv", "settings.csv", "best.json", "best.py", "plots/"]
    written += ["best/"] if is_there else []
    try:
        path = page.write_page(home, config, everything, ranking, pictures, notes)
        written.append(path.name)
    except UserError as error:
        say(str(error))
    say(f"in {show_line(str(home))}: {', '.join(written)}")
    seconds = time.perf_counter() - started
    say(f"{len(everything)} trials; this process took {seconds:.1f} s from its data on")
    flags = f"--mode=evaluate --workdir={quote(str(home / 'best'))}"
    if not is_there:  # trials that came later made it the best
        say(f"the state of trial {best['trial']} was not kept; this trains it again")
        flags = f"--from_trial={quote(f'{home.parent}:{best["trial"]}')}"
    say(f"next: {place.COMMAND} {flags}")
    return len(failed)


def choose_kept(
    rows: Sequence[Row],
    open_settings: Collection[tuple],
    select_by: str,
    keep: str = "best",
) -> set[int]:
    """Choose the trials whose states are kept.

    Args:
        rows: of the trials that have ended.
        open_settings: those with a trial that has not ended.
        keep: as of `--keep_trials`.

    Returns:
        The numbers of the best trial of the best complete setting, and of the best
        trial of each open one; with `seeds` of all trials of these settings, with `all`
        of all. None that has failed is among them.
    """
    if keep == "all":
        return {row["trial"] for row in rows if table.is_comparable(row, select_by)}
    whole, parts = [], {}
    for row in rows:
        setting = make_setting(row["options"])
        is_open = setting in open_settings
        (parts.setdefault(setting, []) if is_open else whole).append(row)
    groups = whole, *parts.values()
    if keep == "seeds":
        ranked = [table.rank_settings(group, select_by)[:1] for group in groups]
        return {number for best in ranked for row in best for number in row["trials"]}
    best = [table.find_best_trial(group, select_by) for group in groups]
    return {row["trial"] for row in best if row is not None}


def save_run(
    setup: Setup, trial: Trial, state: TrainState, row: Row, directory: Path
) -> None:
    """Write a trial as the run that it would have been alone.

    Args:
        setup: of its group.
        state: its last.
        directory: a trial's that lies there is replaced.
    """
    remove_run(directory)
    directory.mkdir(parents=True, exist_ok=True)
    own = setup.with_numbers(trial.config)
    has_frozen = own.phases[0].structure.rule.phase is not None
    frozen = progress.begin(own).frozen if has_frozen else {}
    state = jax.device_put(state, devices.split_leaves(own.mesh, state))
    one = progress.stand(own, state, frozen)
    one.thresholds = tasks.read_thresholds(row)
    metric = row[f"validation_{trial.config.train.select_by}"]
    length = own.structure.steps_per_epoch
    lines = [{"step": x["epoch"] * length, **x} for x in row["curve"]]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    # The state kept is the last one, so it is what `--checkpoint=best` means here.
    one.counters = Counters(
        evaluated_step=one.step,
        best_step=one.step,
        best_value=metric,
        best_epoch=row["trained_epochs"],
        stopped_early=row["stopped_early"],
        metrics_bytes=len(text.encode()),
        seconds=row["seconds"],
        train_seconds=max(row["seconds"], 1e-4),
    )
    atomic.write_text(directory / "metrics.jsonl", text)
    same_data.write(directory, own.seen)
    workdir.write_config(directory, trial.config.to_flat())
    writer = CheckpointWriter(directory / "checkpoints", 1)
    description = progress.describe_checkpoint(own, one)
    writer.save(to_items(one.state, one.sums), one.step, description)
    writer.wait()
    found = {name: row[f"test_{name}"] for name in own.structure.task.tested}
    result = report.make_result(own, one, found)
    atomic.write_json(directory / "result.json", result)


def publish_best(
    home: Path,
    source: Path,
    row: Row,
    ranking: Sequence[dict[str, Any]],
    trial: Trial,
) -> bool:
    """Write `best.json` and `best.py`, and the best trial as the run `best/`.

    What else was put there stays.

    Args:
        source: the directory that keeps its state.
        ranking: of `table.rank_settings`.

    Returns:
        Whether its state was there.
    """
    numbers = {name: value for name, value in row.items() if name != "curve"}
    kept, new = source / "kept" / str(row["trial"]), atomic.name_new(home / "best")
    is_there = is_whole(kept)
    run = str(home / "best") if is_there else None
    best = {"trial": numbers, "setting": ranking[0], "run": run}
    atomic.write_json(home / "best.json", best)
    atomic.write_text(home / "best.py", format_preset(trial, row))
    place = home / "best"
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UserError(f"{place} is in the way and is not the sweep's; move it away")
    if is_there:
        shutil.rmtree(new, ignore_errors=True)  # of what one that was killed has left
        shutil.copytree(kept, new)
    remove_run(place)
    if is_there:
        place.mkdir(exist_ok=True)
        for path in new.iterdir():
            path.rename(place / path.name)
        new.rmdir()
    return is_there


def remove_run(directory: Path) -> None:
    """Remove what `save_run` has written, and evaluations of it.

    The directory goes too, if nothing else lies there.

    Raises:
        UserError: it is a link.
    """
    own_files.check_no_link(directory)
    if not directory.is_dir():
        return
    for pattern in _FILES:
        for path in directory.glob(pattern):
            path.unlink()
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    with contextlib.suppress(OSError):  # it is not there, or holds something
        directory.rmdir()


def is_whole(run: Path) -> bool:
    """Return whether a run that a sweep has kept is there, as it was written."""
    if run.is_symlink() or not (run / workdir.CONFIG_FILE).exists():
        return False
    try:
        newest, damaged = manifest.find_finished(run / "checkpoints")
    except UserError:
        return False
    return newest is not None and not damaged


def format_preset(trial: Trial, row: Row) -> str:
    """Write a preset for configs/ of what a trial reads that is not the default."""
    defaults = tasks.list_defaults(trial.config)
    options = trial.config.select_run_options()
    unread = trial.config.find_unread(options, "train")
    lines = [
        f"    {json.dumps(name)}: {_to_python(value)},"
        for name, value in options.items()
        if value != defaults[name] and name not in unread
    ]
    name, words = tasks.get_task(row).shown[0]
    validation, test = row[f"validation_{name}"], row[f"test_{name}"]
    found = format_options(row["options"])
    found = found.replace("\\", r"\\").replace('"', r"\"")
    return (
        f'"""Best of a sweep: {found}.\n\nValidation {words} {validation:.2%}, test '
        f'{words} {test:.2%} (one run).\n"""\n\noptions = {{\n'
        + "\n".join(lines)
        + "\n}\n"
    )


def _to_python(value: Any) -> str:
    if isinstance(value, str) and value.isprintable():
        return json.dumps(value, ensure_ascii=False)
    return repr(tuple(value)) if isinstance(value, list) else repr(value)
