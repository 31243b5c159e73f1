"""The best trial as an ordinary run: what a sweep keeps of its trials' states.

A trial that may yet be the best is written to `kept/NUMBER` before its line in the
table is; when a batch has ended, those that cannot be any more are removed. What is
published as `best/` can be evaluated, exported and looked at like any run.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cnn import devices, report, workdir
from cnn.checkpoint import CheckpointWriter
from cnn.records import Records
from cnn.run import Run
from cnn.state import TrainState
from cnn.sweep import statistics
from cnn.sweep.live import format_options
from cnn.sweep.table import Record
from cnn.sweep.trials import Trial, make_setting


def choose_kept(
    records: Sequence[Record], open_settings: Collection[tuple], select_by: str
) -> set[int]:
    """Choose the trials whose states are kept.

    Args:
        records: of the trials that have ended.
        open_settings: those of which a trial has not.
        select_by: the validation metric.

    Returns:
        The best trial of the best setting that is complete, and of each open one.
    """
    whole, parts = [], {}
    for record in records:
        setting = make_setting(record["options"])
        is_open = setting in open_settings
        (parts.setdefault(setting, []) if is_open else whole).append(record)
    best = [
        statistics.find_best_trial(group, select_by)
        for group in (whole, *parts.values())
    ]
    return {record["trial"] for record in best if record is not None}


def save_run(
    run: Run, trial: Trial, state: TrainState, record: Record, directory: Path
) -> None:
    """Write a trial as the run that it would have been alone.

    Args:
        run: one of its group, whose data and task it shares.
        trial: the trial.
        state: its last.
        record: its line of the table.
        directory: where to; replaced when it exists.
    """
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    placed = jax.device_put(state, devices.split_leaves(run.mesh, state))
    run.begin(trial.config, placed)
    metric = record[f"validation_{trial.config.train.select_by}"]
    lines = [_make_line(line, run) for line in record["curve"]]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    # The state kept is the last one, so it is what `--checkpoint=best` means here.
    run.records = Records(
        evaluated_step=run.step,
        best_step=run.step,
        best_value=metric,
        best_epoch=record["trained_epochs"],
        stopped_early=record["stopped_early"],
        metrics_bytes=len(text.encode()),
        seconds=record["seconds"],
        train_seconds=max(record["seconds"], 1e-4),
    )
    workdir.write_text(directory / "metrics.jsonl", text)
    workdir.write_json(directory / workdir.CONFIG_FILE, trial.config.to_flat())
    writer = CheckpointWriter(directory / "checkpoints", 1)
    writer.save(run.state, run.sums, run.describe_checkpoint(), run.step)
    writer.wait()
    found = {name: record[f"test_{name}"] for name in report.TEST_METRICS}
    workdir.write_json(directory / "result.json", report.make_result(run, found))


def remove_others(home: Path, kept: Collection[int]) -> None:
    """Remove the states of trials that cannot be the best any more."""
    for path in (home / "kept").glob("*"):
        if path.name not in {str(number) for number in kept}:
            shutil.rmtree(path)


def publish_best(
    home: Path,
    source: Path,
    record: Record,
    rows: Sequence[dict[str, Any]],
    trial: Trial,
) -> bool:
    """Write `best.json` and `best.py`, and the best trial as the run `best/`.

    Args:
        home: the sweep's directory.
        source: the directory that keeps its state.
        record: of the best trial.
        rows: of `statistics.rank_settings`.
        trial: the best trial.

    Returns:
        Whether its state was there.
    """
    row = {name: value for name, value in record.items() if name != "curve"}
    best = {"trial": row, "setting": rows[0], "run": str(home / "best")}
    workdir.write_json(home / "best.json", best)
    workdir.write_text(home / "best.py", format_preset(trial, record))
    kept, new = source / "kept" / str(record["trial"]), home / f"best.{os.getpid()}"
    if not kept.exists():
        return False
    shutil.copytree(kept, new)
    if (home / "best").exists():
        shutil.rmtree(home / "best")
    new.rename(home / "best")
    return True


def format_preset(trial: Trial, record: Record) -> str:
    """Write a preset, ready for configs/, of what a trial has beside the defaults."""
    defaults = type(trial.config)().to_flat()
    lines = [
        f"    {json.dumps(name)}: {_to_python(value)},"
        for name, value in trial.config.select_run_options().items()
        if value != defaults[name]
    ]
    validation, test = record["validation_accuracy"], record["test_accuracy"]
    found = format_options(record["options"])
    return (
        f'"""Best of a sweep: {found}.\n\nValidation accuracy {validation:.2%}, test '
        f'accuracy {test:.2%} (one run).\n"""\n\noptions = {{\n'
        + "\n".join(lines)
        + "\n}\n"
    )


def _to_python(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(tuple(value)) if isinstance(value, list) else repr(value)


def _make_line(line: Mapping[str, Any], run: Run) -> dict[str, Any]:
    return {"step": line["epoch"] * run.task.steps_per_epoch, **line}
