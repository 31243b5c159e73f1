"""The only loop over epochs, and what it does beside the steps.

images ─► chunks ─► steps ─► metrics ─► checkpoint ─► report
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

from cnn.checkpoints.checkpoint import CheckpointWriter
from cnn.errors import UserError
from cnn.runtime import background, processes
from cnn.runtime.interrupt import Interrupted, Stop, catch_signals
from cnn.runtime.metrics_log import MetricsLog
from cnn.runtime.profiling import Profiler
from cnn.runtime.terminal import Terminal
from cnn.training import blame, report, statistics
from cnn.training import progress as training_progress
from cnn.training.epoch import Pace
from cnn.training.progress import Progress
from cnn.training.setup import Setup
from cnn.training.state import is_finite, to_items


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where a run lies, prints, logs, saves and traces."""

    directory: Path
    terminal: Terminal
    log: MetricsLog
    writer: CheckpointWriter
    profiler: Profiler


def run_loop(setup: Setup, progress: Progress, outputs: Outputs, stop: Stop) -> None:
    """Evaluate, save, take the steps of an epoch, log and save, until the last step.

    Raises:
        UserError: a loss is not finite, or the disk does not take what is saved.
        Interrupted: a signal arrived, or a background thread failed (`Failed`).
    """
    interval, pace = setup.checkpoint_interval, Pace()
    length, counters = setup.structure.steps_per_epoch, progress.counters
    while True:
        if progress.step % length == 0 and counters.evaluated_step < progress.step:
            if progress.step == setup.total_steps:
                renew_statistics(setup, progress, outputs, stop)
            _evaluate_epoch(setup, progress, outputs, stop)
            is_due = progress.step and progress.step % interval == 0
            is_best = counters.best_step == progress.step
            if is_trunk := 0 < progress.step == setup.trunk_step:
                counters.note_trunk(progress.step)
            if is_due or is_best or is_trunk or progress.has_ended(setup):
                save(setup, progress, outputs)
        if progress.has_ended(setup):
            return
        taken = training_progress.take_epoch(
            setup, progress, stop, pace, outputs.profiler, interval
        )
        with contextlib.closing(taken):
            for ids, step_metrics in taken:
                where = outputs.terminal, outputs.log, step_metrics, ids
                report.check_and_log(setup, progress, *where, outputs.directory)
                if progress.step % interval == 0 and progress.step % length:
                    save(setup, progress, outputs)


def _evaluate_epoch(
    setup: Setup, progress: Progress, outputs: Outputs, stop: Stop
) -> None:
    """Evaluate if it is time, write the epoch's line, and start its sums again.

    Raises:
        UserError: the loss of the evaluation is not finite.
    """
    options, split, found = setup.config.train, setup.eval_split, None
    number = progress.step // setup.structure.steps_per_epoch
    is_last = progress.step == setup.total_steps
    if number % options.eval_every_epochs == 0 or is_last:
        found = training_progress.evaluate(setup, progress, split, stop)
        if not math.isfinite(found["loss"]):
            raise UserError(
                f"The {split} loss is not finite after step {progress.step}; its "
                f"weights are not saved. {blame.suggest_remedy(setup.config)}"
            )
        if split == "validation":
            if not math.isfinite(found[options.select_by]):
                outputs.terminal.say(
                    f"warning   the validation {options.select_by} is not finite after "
                    f"step {progress.step}; it is not compared with others"
                )
            progress.counters.note_best(options, progress.step, number, found)
            if number:
                progress.counters.note_plateau(setup.config, found)
    line = report.make_epoch_line(setup, progress, found)
    outputs.log.write(progress.step, line)
    report.print_epoch(setup, outputs.terminal, line)
    progress.start_epoch()


def renew_statistics(
    setup: Setup, progress: Progress, outputs: Outputs, stop: Stop
) -> None:
    """Compute batch normalisation's statistics again, at the end of training.

    A run that is stopped meanwhile computes them once more: they depend on no earlier
    ones.
    """
    before, count = progress.state, setup.config.train.recompute_statistics
    progress.state = statistics.renew(setup, progress.phase, before, stop)
    if progress.state is not before:
        outputs.terminal.say(f"statistics are means over {count} training batches")


def save(setup: Setup, progress: Progress, outputs: Outputs) -> None:
    """Start writing a checkpoint.

    Raises:
        StepError: the last update made a number of the state not finite.
        UserError: the disk does not take the checkpoint.
    """
    if not is_finite(progress.state):
        raise blame.make_update_error(setup.config, outputs.directory, progress.step)
    counters = progress.counters
    counters.metrics_bytes = outputs.log.sync()
    progress.update_seconds()
    description = training_progress.describe_checkpoint(setup, progress)
    items = to_items(progress.state, progress.sums)
    outputs.writer.save(items, progress.step, description, counters.kept_steps)


@contextlib.contextmanager
def closing(
    setup: Setup, progress: Progress, outputs: Outputs, stop: Stop
) -> Iterator[None]:
    """Catch signals while a run trains; save when one arrives; close everything."""
    terminal, writer = outputs.terminal, outputs.writer
    with catch_signals(stop), outputs.profiler:
        terminal.start_bar(setup.total_steps, progress.step)
        is_waiting = True
        try:
            # Of several processes one that fails leaves here: it must not wait below.
            with processes.leave_when_failed():
                try:
                    yield
                except (Interrupted, background.Failed) as error:
                    _save_last(setup, progress, outputs, error)
                    raise
                finally:
                    terminal.stop_bar()
                    outputs.log.close()
        except KeyboardInterrupt:  # at once: the checkpoints before are whole
            is_waiting = False
            raise
        finally:
            if is_waiting:
                writer.wait()


def _save_last(
    setup: Setup, progress: Progress, outputs: Outputs, error: Exception
) -> None:
    """Save what a run has when a signal or a failed thread ends it."""
    if isinstance(error, background.Failed) and processes.are_several():
        return  # the others do not know of it, and to save is a common computation
    save(setup, progress, outputs)
    outputs.terminal.say(f"stopped at step {progress.step}; the same command resumes")
