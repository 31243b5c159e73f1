"""Training: the only loop over epochs.

flags ─► config ─► train ─► chunks of images ─► steps ─► metrics ─► checkpoint ─► report
"""

import contextlib
import dataclasses
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn import report, workdir
from cnn.checkpoint import CheckpointWriter
from cnn.data.chunks import iterate_chunks
from cnn.data.order import make_epoch_order
from cnn.devices import processes
from cnn.errors import UserError
from cnn.interrupt import Interrupted, Stop, catch_signals
from cnn.options import option
from cnn.progress import MetricsLog, NoLog, Terminal
from cnn.records import REMEDY, note_best
from cnn.run import Run
from cnn.state import is_finite

if TYPE_CHECKING:
    from cnn.config import Config


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """How long a run trains, and on what it selects."""

    epochs: int = option(
        10, "passes over the training set", kind="traced", within="[1, 1000000]"
    )
    seed: int = option(
        0,
        "what initial weights, order and dropout are drawn from",
        kind="traced",
        within="[0, 2147483647]",
    )
    eval_every_epochs: int = option(1, "epochs between evaluations", within="[1, inf)")
    early_stop_epochs: int = option(
        0,
        "epochs without a better validation metric after which training stops; 0 "
        "never stops",
        within="[0, inf)",
    )
    select_by: str = option(
        "accuracy",
        "validation metric of the best checkpoint and of early stopping",
        choices=("accuracy", "balanced_accuracy", "loss"),
    )


def train(config: "Config", directory: Path, terminal: Terminal) -> dict[str, Any]:
    """Train a run to its end, or go on with one that was stopped.

    Args:
        config: every option.
        directory: the run's directory; made if need be, locked meanwhile. Several
            processes share it, and the first one writes.
        terminal: where to print.

    Returns:
        The result, as written to `result.json`.

    Raises:
        UserError: a mistake in options or data, found before anything is compiled;
            or the loss is no longer finite.
        Interrupted: a signal arrived; a checkpoint was saved.
    """
    is_first = processes.is_first()
    terminal.console.quiet = terminal.console.quiet or not is_first
    with workdir.lock(directory) if is_first else contextlib.nullcontext():
        processes.enter(directory, str(config.select_shared_options()))
        defaults = type(config)().to_flat()
        workdir.check_same_run(directory, config.select_run_options(), defaults)
        run = Run(config, directory, terminal, Stop(processes.find_most))
        processes.check_equal("images", _identify_images(run))
        run.restore()
        report.announce(run)
        log = NoLog()
        if is_first:
            workdir.write_json(directory / workdir.CONFIG_FILE, config.to_flat())
            tensorboard = config.progress.tensorboard
            log = MetricsLog(directory, run.records.metrics_bytes, tensorboard)
        keep = config.checkpoint.keep_checkpoints
        writer = CheckpointWriter(directory / "checkpoints", keep)
        with catch_signals(run.stop), run.profiler:
            result = _run_to_the_end(run, log, writer)
        report.conclude(run, result)
        return result


def _identify_images(run: Run) -> str:
    """Return what differs where the labels of any split do."""
    splits = run.loaders.items()
    return str({name: zlib.crc32(loader.labels.tobytes()) for name, loader in splits})


def _run_to_the_end(
    run: Run, log: MetricsLog, writer: CheckpointWriter
) -> dict[str, Any]:
    """Train and write the result, and close everything."""
    run.terminal.start_bar(run.total_steps, run.step)
    try:
        # Of several processes one that fails leaves here: it must not wait below.
        with processes.leave_when_failed():
            try:
                return _train_or_save(run, log, writer)
            finally:
                run.terminal.stop_bar()
                log.close()
    finally:
        writer.wait()


def _train_or_save(
    run: Run, log: MetricsLog, writer: CheckpointWriter
) -> dict[str, Any]:
    """Train and write the result; when asked to stop, save and leave."""
    try:
        _loop(run, log, writer)
        result = report.write_result(run)
        log.write_result(run.config.select_run_options(), result)
        return result
    except Interrupted:
        _save(run, log, writer)
        run.terminal.say(f"stopped at step {run.step}; the same command goes on")
        raise


def _loop(run: Run, log: MetricsLog, writer: CheckpointWriter) -> None:
    """Alternate between evaluation and epochs until the last step."""
    while True:
        is_boundary = run.step % run.task.steps_per_epoch == 0
        if is_boundary and run.records.evaluated_step < run.step:
            _end_epoch(run, log)
            is_due = run.step and run.step % run.checkpoint_interval == 0
            if is_due or run.has_ended or run.records.best_step == run.step:
                _save(run, log, writer)
        if run.has_ended:
            return
        _train_epoch(run, log, writer)


def iterate_calls(
    run: Run, interval: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Take the steps that are left of the current epoch, call by call.

    Args:
        run: where it stands.
        interval: a call ends wherever the run's step is a multiple of it.

    Yields:
        After each call, the example ids [n, B] of its steps and their records [n].

    Raises:
        Interrupted: a signal arrived.
    """
    run.enter_phase()
    number, done = divmod(run.step, run.task.steps_per_epoch)
    batch_size, count = run.config.step.batch_size, len(run.loaders["train"])
    ids = make_epoch_order(run.config.train.seed, number, count, batch_size)
    program = run.program
    arrays = {"positions": program.place(ids, number), "ids": ids}
    loader, size = program.loaders["train"], program.chunk_steps
    for first, last, chunk in iterate_chunks(loader, size, arrays, done):
        while first < last:
            most = min(last - first, interval - run.step % interval)
            count = run.pace.choose_steps(run.profiler.cut(run.step, most))
            here = first % size
            records = run.take_steps(chunk, here, here + count)
            yield ids[first : first + count], records
            first += count
            run.stop.check()


def _train_epoch(run: Run, log: MetricsLog, writer: CheckpointWriter) -> None:
    """Take the steps that are left of the current epoch, saving as it goes."""
    length, interval = run.task.steps_per_epoch, run.checkpoint_interval
    for ids, records in iterate_calls(run, interval):
        report.check_and_log(run, log, records, ids)
        if run.step % interval == 0 and run.step % length:
            _save(run, log, writer)


def _end_epoch(run: Run, log: MetricsLog) -> None:
    """Evaluate if it is time, write the epoch's line, and start its sums anew.

    Raises:
        UserError: the loss of the evaluation is not finite.
    """
    number = run.step // run.task.steps_per_epoch
    line: dict[str, Any] = {"epoch": number}
    if number:
        count = int(run.sums["count"])
        line["train_loss"] = float(run.sums["loss"]) / count
        line["train_accuracy"] = int(run.sums["correct"]) / count
    is_last = run.step == run.total_steps
    if number % run.config.train.eval_every_epochs == 0 or is_last:
        found = run.evaluate(run.eval_split)
        if not math.isfinite(found["loss"]):
            raise UserError(
                f"The {run.eval_split} loss is not finite after step {run.step}; its "
                f"weights are not saved. {REMEDY}"
            )
        for name in ("loss", "accuracy", "balanced_accuracy", "top5"):
            line[f"{run.eval_split}_{name}"] = found[name]
        if run.eval_split == "validation":
            note_best(run.records, run.config.train, run.step, number, found)
    run.update_seconds()
    line["seconds"] = round(run.records.seconds, 3)
    if number:
        line["images_per_second"] = round(count / run.records.epoch_seconds, 1)
    log.write(run.step, line)
    report.print_epoch(run, line)
    run.sums = jax.tree.map(lambda x: x * 0, run.sums)
    run.records.epoch_seconds = 0.0
    run.records.evaluated_step = run.step


def _save(run: Run, log: MetricsLog, writer: CheckpointWriter) -> None:
    """Start writing a checkpoint.

    Raises:
        UserError: the last update made a number of the state not finite, or the
            disk does not take the checkpoint.
    """
    if not is_finite(run.state):
        raise UserError(
            f"The update of step {run.step} is not finite and is not saved; "
            f"checkpoints from before it are whole. {REMEDY}"
        )
    run.records.metrics_bytes = log.sync()
    run.update_seconds()
    best = run.records.best_step
    writer.save(run.state, run.sums, run.describe_checkpoint(), best)
