"""A run from its options to its result.

flags ─► config ─► train ─► setup ─► `training/loop.py` ─► result
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnn.checkpoints import manifest, workdir
from cnn.checkpoints.checkpoint import CheckpointWriter
from cnn.checkpoints.description import UNTRAINED
from cnn.config import Config
from cnn.data import folder
from cnn.data.images import Dataset
from cnn.errors import Problems, UserError
from cnn.models import own, remat, summary
from cnn.option import format_value
from cnn.runtime import devices, processes, provenance, tracking, xla
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.metrics_log import MetricsLog, NoLog
from cnn.runtime.profiling import Profiler
from cnn.runtime.terminal import Terminal
from cnn.training import (
    budget,
    compile_seconds,
    course,
    loop,
    rehearsal,
    report,
    same_data,
    single_values,
    suspects,
    takes_sizes,
    tasks,
)
from cnn.training import progress as training_progress
from cnn.training import setup as training_setup
from cnn.training.progress import Progress
from cnn.training.setup import Setup
from cnn.transfer import extend, features, plan
from cnn.transfer.source import (
    check_same_checkpoint,
    check_same_source,
    choose_scaling,
    open_start,
    warn_of_trained,
)
from cnn.transfer.teacher import add_teacher, open_teacher
from cnn.weights import preprocessing


def train(
    config: Config, directory: Path, terminal: Terminal, began: float | None = None
) -> dict[str, Any]:
    """Train a run to its end, or resume one that was stopped.

    Args:
        directory: the run's directory; made if need be, locked meanwhile. Several
            processes share it, and the first one writes.
        began: the time, by `budget.clock`, from which --minutes counts; None: now.

    Returns:
        The result, as written to `result.json`.

    Raises:
        UserError: a mistake in options or data, found before anything is compiled;
            or the loss is no longer finite.
        Interrupted: a signal arrived; a checkpoint was saved.
        Failed: a background thread has died or is silent; likewise.
    """
    started, is_first = time.perf_counter(), processes.is_first()
    began = budget.clock() if began is None else began
    terminal.console.quiet = terminal.console.quiet or not is_first
    with _telling_all(config, directory):
        config = preprocessing.resolve(config, directory, terminal)
    config = budget.resume(tasks.resume(config, directory), directory)
    ended = report.read_ended(directory)
    with contextlib.nullcontext() if ended or not is_first else _hold(directory):
        respelled = _check_same_run(config, directory)
        stop = Stop(processes.find_most)
        if ended and not respelled:
            return _repeat_result(config, directory, terminal, ended)
        extend.begin(config, directory, terminal)
        newest, stored = _find_newest(config, directory, terminal)
        keep = config.checkpoint.keep_checkpoints
        checkpoints = directory / "checkpoints"
        writer = None if ended else CheckpointWriter(checkpoints, keep)
        before = respelled.get("init_from", "")
        check_same_source(config, before, stored, directory, terminal)
        with _telling_all(config, directory):
            setup = _set_up(config, stored, directory, terminal, stop, began)
        if ended:
            same_data.check_result_of(ended, setup.seen, directory)
            return _repeat_result(config, directory, terminal, ended)
        processes.check_equal("images", setup.seen.record["fingerprint"])
        profiler = Profiler(config.profile, setup.total_steps)
        compiling = training_progress.compile_ahead(setup, stored.get("step", 0))
        progress = _resume_or_begin(setup, newest, stored, terminal, profiler)
        progress.compiling = compiling
        progress.started = started - progress.counters.seconds
        manifest.check_places(checkpoints, lambda x: _is_saved(setup, progress, x))
        report.announce(setup, terminal)
        _say_compiling(setup, progress, terminal)
        log = _open_log(setup, directory, progress, terminal) if is_first else NoLog()
        outputs = loop.Outputs(directory, terminal, log, writer, profiler)
        with loop.closing(setup, progress, outputs, stop), _noting(progress, log):
            loop.run_loop(setup, progress, outputs, stop)
            if progress.counters.stopped_early:  # else before the last evaluation
                loop.renew_statistics(setup, progress, outputs, stop)
                loop.save(setup, progress, outputs)
            found = training_progress.evaluate(setup, progress, "test", stop)
            best = _test_best(setup, progress, outputs, directory, found, stop)
            writer.check_place()
            for line in suspects.write(setup, progress, directory):
                terminal.say(line)
            result = report.write_result(setup, progress, directory, log, found, best)
        _say_missing_trace(setup, progress, profiler, terminal)
        report.print_result(terminal, directory, result, setup.config)
        return result


def _say_missing_trace(
    setup: Setup, progress: Progress, profiler: Profiler, terminal: Terminal
) -> None:
    """Say that training ended before the steps that were to be traced, if it did."""
    if profiler.is_missing:
        terminal.say(
            f"no trace was written: training ended after step {progress.step}, "
            f"before --profile_steps={setup.config.profile.profile_steps}"
        )


def _say_compiling(setup: Setup, progress: Progress, terminal: Terminal) -> None:
    """Say that the compiler is waited for, and how long it took the last time."""
    if not progress.has_ended(setup):
        phase = setup.phases[setup.find_phase(progress.step + 1)]
        if said := compile_seconds.announce(setup, phase):
            terminal.say(said)


def find_problems(config: Config) -> list[str]:
    """Find what is wrong with the options and files of a run that is to begin.

    Each is looked at, whatever is wrong with the others; nothing is decoded.
    """
    problems, silent = Problems(), Terminal()
    silent.console.quiet = True
    with problems.note():
        _check_options(config)
    with problems.note():
        open_start(config, {}, silent)
    with problems.note():
        open_teacher(config.distillation)
    if config.data.dataset.startswith("folder:"):
        with problems.note():
            folder.check(config.data)
    return problems.found


@contextlib.contextmanager
def _telling_all(config: Config, directory: Path) -> Iterator[None]:
    """Tell with a mistake of a run that is to begin all others that can be found."""
    try:
        yield
    except UserError as error:
        if type(error) is not UserError or (directory / workdir.CONFIG_FILE).exists():
            raise
        others = [x for x in find_problems(config) if x not in error.args]
        raise UserError(*error.args, *others) from None


@contextlib.contextmanager
def _hold(directory: Path) -> Iterator[None]:
    """Lock a run's directory and its checkpoints, which may lie elsewhere."""
    with workdir.lock(directory), manifest.hold(directory / "checkpoints"):
        yield


@contextlib.contextmanager
def _noting(progress: Progress, log: MetricsLog) -> Iterator[None]:
    """Leave in metrics.jsonl why a run failed; resuming it takes the line away."""
    try:
        yield
    except UserError as error:
        with contextlib.suppress(UserError):  # the disk may be why
            log.write(progress.step, {"failed": str(error)})
        raise


def _set_up(
    config: Config,
    stored: Mapping[str, Any],
    directory: Path,
    terminal: Terminal,
    stop: Stop,
    began: float,
) -> Setup:
    """Make the setup of a run; where --minutes asks, a rehearsal fixes its epochs.

    Raises:
        UserError: as `make_setup`, or the minutes are too few.
    """
    minutes, decided = config.train.minutes, budget.find_decided(directory)
    if minutes and decided is None:
        config = config.change({"epochs": budget.UNDECIDED})
    setup = make_setup(config, stored, terminal, stop, directory=directory)
    if not minutes:
        return setup
    if decided is None:
        terminal.say(f"budget    --minutes={minutes:g}: some steps are rehearsed")
        with catch_signals(stop):
            costs = rehearsal.rehearse(setup, directory, stop)
        spent = processes.find_most(budget.clock() - began)
        setup, found = budget.decide(setup, costs, spent)
        terminal.say(budget.describe(found))
        budget.write(directory, found)
    terminal.say(
        f"budget    --minutes={minutes:g} was decided to be the run of --epochs="
        f"{setup.config.train.epochs}, to the bit"
    )
    about = {**setup.provenance, "budget": budget.read(directory)}
    return dataclasses.replace(setup, provenance=about)


def _is_saved(setup: Setup, progress: Progress, step: int) -> bool:
    """Whether a checkpoint of a step is still to be written, unless a signal comes."""
    regular = (setup.checkpoint_interval, setup.structure.steps_per_epoch)
    is_ahead = progress.step < step <= setup.total_steps or step == progress.step == 0
    return is_ahead and any(step % every == 0 for every in regular)


def _test_best(
    setup: Setup,
    progress: Progress,
    outputs: loop.Outputs,
    directory: Path,
    found: dict[str, Any],
    stop: Stop,
) -> dict[str, Any]:
    """Return the test metrics of the best checkpoint; empty where there is none."""
    best_step = progress.counters.best_step
    if best_step in (-1, progress.step):
        return found if best_step == progress.step else {}
    outputs.writer.wait()
    checkpoints = directory / "checkpoints"
    try:
        return training_progress.evaluate_best(setup, progress, checkpoints, stop)
    except UserError as error:
        outputs.terminal.say(f"the best checkpoint is not tested: {error}")
        return {}


def make_setup(
    config: Config,
    stored: Mapping[str, Any],
    terminal: Terminal,
    stop: Stop,
    like: Setup | None = None,
    preview: bool = False,
    directory: Path | None = None,
) -> Setup:
    """Load the data, check everything, and make the programs without compiling.

    Args:
        stored: what the run's newest checkpoint says of itself; empty without one.
        stop: looked at while features are computed.
        like: a run whose data are shared, where they are the same.
        preview: whether to look at images only as far as the checks do; the setup can
            be described, not trained.
        directory: of the run, which may hold what it has seen; None without.

    Raises:
        UserError: an option, the data or the model does not fit the others, or the data
            are not those that the run has seen.
    """
    _check_options(config)
    mesh, pieces = devices.make_mesh(config.device.mesh), config.step.accumulate_steps
    devices.check_batch_size(config.step.batch_size, mesh, pieces)
    if like is not None and like.config.data != config.data:
        like = None
    source = open_start(config, stored, terminal)
    trained = open_teacher(config.distillation)
    dataset, seen = _load_images(config, stored, terminal, like, preview, directory)
    warn_of_trained(config, source, dataset, terminal)
    scale = choose_scaling(config, source, stored, dataset, terminal)
    structure = training_setup.make_structure(config, dataset, scale)
    image_shape = training_setup.find_image_shape(config, dataset)
    lengths = len(dataset.train), max(image_shape[:2])
    course.check_steps(config, structure.steps_per_epoch, *lengths)
    description = summary.describe_model(structure.model, image_shape)
    layers = description["layers"]
    remat.check(config.model, layers)
    planned = plan.make_plan(
        config, source, stored, structure, description, dataset, terminal
    )
    single_values.check(config, structure, layers, planned.phases, image_shape)
    rule = dataclasses.replace(structure.rule, rates=planned.rates)
    structure = dataclasses.replace(structure, rule=rule)
    structure, teacher = add_teacher(
        config, trained, stored, structure, dataset, image_shape, like, terminal
    )
    loaders = like.loaders if like else None
    if loaders is None:
        loaders = training_setup.make_loaders(config, dataset, mesh, not preview)
    macs = description["macs"] * len(dataset.train)
    options = xla.choose_compiler_options(config.device.cpu_kernels, mesh, macs)
    phases = training_setup.make_phases(
        config, structure, planned.phases, image_shape, loaders, options
    )
    setup = Setup(
        config=tasks.resolve(config, structure.task),
        numbers=config.make_numbers(),
        mesh=mesh,
        dataset=dataset,
        seen=seen,
        loaders=loaders,
        image_shape=image_shape,
        description=description,
        structure=structure,
        plan=planned,
        provenance=provenance.describe(),
        phases=phases,
        teacher=teacher,
    )
    return features.cache_features(setup, terminal, stop)


def _check_options(config: Config) -> None:
    """Refuse options that do not fit each other, whatever the images are."""
    course.check(config)
    own.check_options(config.model, config.train.recompute_statistics)
    preprocessing.check(config.model.model, config.data.preprocessing)
    takes_sizes.check(config)
    tracking.check(config.progress.track)


def _load_images(
    config: Config,
    stored: Mapping[str, Any],
    terminal: Terminal,
    like: Setup | None,
    preview: bool,
    directory: Path | None,
) -> tuple[Dataset, same_data.Seen]:
    """Load the images, or take another run's, and what identifies them."""
    if like:
        return like.dataset, like.seen
    dataset = training_setup.load_images(config, terminal, preview)
    seen = same_data.compare(config.data, dataset, stored, directory, terminal)
    suspects.check_same_data(config.step, seen)
    return dataset, seen


def _check_same_run(config: Config, directory: Path) -> dict[str, str]:
    """Refuse another run's directory, and processes that train different runs.

    Returns:
        As `workdir.check_same_run`.
    """
    if processes.is_first():
        manifest.finish_interrupted(directory / "checkpoints")
    processes.enter(directory, str(config.select_shared_options()))
    defaults = Config().to_flat()
    return workdir.check_same_run(directory, config.select_run_options(), defaults)


def _repeat_result(
    config: Config, directory: Path, terminal: Terminal, result: dict[str, Any]
) -> dict[str, Any]:
    """Print the result of a run that has ended; nothing is written."""
    steps = result["steps"]
    newest = directory / "checkpoints" / str(steps)
    if newest.exists():
        check_same_checkpoint(config, manifest.read_description(newest))
    Profiler(config.profile, steps).check_ahead(steps)
    terminal.say(f"ended     after {steps} steps; its result, as it is in result.json:")
    report.print_result(terminal, directory, result, config)
    return result


def _find_newest(
    config: Config, directory: Path, terminal: Terminal
) -> tuple[Path | None, Mapping[str, Any]]:
    """Return the newest whole checkpoint and what it says of itself, with its step.

    Raises:
        UserError: another run has trained it, or none: its options do not lead to it.
    """
    newest, damaged = manifest.find_newest(directory / "checkpoints")
    for line in damaged:
        terminal.say(line)
    if newest is None:
        return None, {}
    stored = manifest.read_description(newest)
    for key, what in UNTRAINED.items():
        if key in stored:
            raise UserError(
                f"{directory} holds {what}; train from it in another --workdir, with "
                f"--init_from={directory}"
            )
    there, here = stored["options"], workdir.read_config(directory)
    for name in config.select_run_options().keys() - {*workdir.SPELLED}:
        if name in there and name in here and there[name] != here[name]:
            raise UserError(
                f"{newest} is of another run, one with --{name}="
                f"{format_value(there[name])}; move it out of {newest.parent}"
            )
    return newest, stored | {"step": int(newest.name)}


def _resume_or_begin(
    setup: Setup,
    newest: Path | None,
    stored: Mapping[str, Any],
    terminal: Terminal,
    profiler: Profiler,
) -> Progress:
    if newest is None:
        return training_progress.begin(setup)
    progress = training_progress.restore(setup, newest, stored)
    profiler.check_ahead(progress.step)
    if not math.isfinite(progress.counters.best_value):
        terminal.say(
            f"warning   {newest / manifest.DESCRIPTION}: the best validation "
            f"{setup.config.train.select_by} is not finite; the next that is takes its "
            "place"
        )
    terminal.say(f"resumed at step {progress.step} of {setup.total_steps}")
    report.print_changed_environment(setup, stored, terminal)
    return progress


def _open_log(
    setup: Setup, directory: Path, progress: Progress, terminal: Terminal
) -> MetricsLog:
    config = setup.config
    same_data.write(directory, setup.seen)
    same_data.write_bad(directory, setup.dataset.name, setup.dataset.excluded)
    workdir.write_config(directory, config.to_flat())
    length, step = progress.counters.metrics_bytes, progress.step
    options = config.select_run_options()
    log = MetricsLog(directory, length, step, config.progress.track, options)
    epochs = progress.counters.evaluated_step // setup.structure.steps_per_epoch
    if lost := log.describe_loss(epochs):
        terminal.say(f"warning   {lost}")
    return log
