"""The rehearsal of a run with `--minutes`: what its phases cost, in its own loop."""

import contextlib
import dataclasses
import itertools
import shutil
from pathlib import Path

from cnn.checkpoints.checkpoint import CheckpointWriter
from cnn.errors import UserError
from cnn.runtime import own_files, processes
from cnn.runtime.interrupt import Stop
from cnn.runtime.metrics_log import MetricsLog, NoLog
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.training import blame, budget, loop
from cnn.training import progress as training_progress
from cnn.training.setup import Setup


def rehearse(setup: Setup, directory: Path, stop: Stop) -> list[budget.Cost]:
    """Measure the phases of a run that its budget may reach, each as one of its own.

    Args:
        setup: of the run, with epochs that are not decided.
        directory: of the run, in which the rehearsal has a place of its own meanwhile.

    Raises:
        UserError: a step of the rehearsal is not finite.
    """
    scratch, costs = directory / ".rehearsal", []
    own_files.check_no_link(scratch)
    shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
    try:
        for phase, following in itertools.pairwise((*setup.phases, None)):
            alone = dataclasses.replace(phase, first_epoch=0)
            own = dataclasses.replace(setup, phases=(alone,))
            place = scratch / str(phase.first_epoch)
            place.mkdir(parents=True, exist_ok=True)
            costs.append(_rehearse_phase(own, phase.first_epoch, place, stop))
            reached = budget.choose_epochs(costs, 60 * setup.config.train.minutes)
            if following is not None and reached < following.first_epoch:
                break
        return costs
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rehearse_phase(
    setup: Setup, first_epoch: int, place: Path, stop: Stop
) -> budget.Cost:
    """Measure a phase in the loop of a run, then what comes beside its steps.

    Args:
        setup: of the phase alone.
        first_epoch: of the phase in the run.
        place: a directory for what is saved.
    """
    watch = budget.Stopwatch(setup.config.train.minutes)
    log = MetricsLog(place, 0, 0) if processes.is_first() else NoLog()
    keep = setup.config.checkpoint.keep_checkpoints
    writer = CheckpointWriter(place / "checkpoints", keep)
    outputs = loop.Outputs(place, watch, log, writer, Profiler(ProfileOptions(), 0))
    progress = training_progress.begin(setup)
    progress.compiling = training_progress.compile_ahead(setup, 0)

    def evaluate(split: str) -> None:
        training_progress.evaluate(setup, progress, split, stop)

    def save() -> None:
        loop.save(setup, progress, outputs)
        writer.wait()

    def finish() -> None:
        loop.renew_statistics(setup, progress, outputs, stop)
        evaluate("test")

    try:
        with contextlib.suppress(budget.Rehearsed):
            loop.run_loop(setup, progress, outputs, stop)
        evaluation = watch.time(lambda: evaluate(setup.eval_split))
        saving = watch.time(save)
        finish()  # compiles
        ending = watch.time(finish)
    except blame.StepError as error:
        raise UserError(f"In the rehearsal of --minutes: {error.what}") from None
    finally:
        writer.wait()
        log.close()
    length, options = setup.structure.steps_per_epoch, setup.config.train
    every = options.eval_every_epochs, setup.checkpoint_interval / length
    beside = evaluation, saving
    return budget.Cost(
        first_epoch=first_epoch,
        entry=watch.time(lambda: list(training_progress.begin(setup).loaders.values())),
        epoch=budget.measure_epoch(watch.marks, length, every, beside),
        evaluation=evaluation,
        end=2 * ending + saving,  # the best are tested as the last
        steps=watch.marks[-1][0],
    )
