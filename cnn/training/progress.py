"""Where a run stands: what changes as it goes; a checkpoint holds it and no more.

`begin` and `restore` make it, `take_epoch` moves it on.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.checkpoints import checkpoint, manifest, proof
from cnn.checkpoints.description import read_dataclass
from cnn.config import Numbers
from cnn.data.chunks import Loader, choose_chunk_steps, iterate_chunks
from cnn.data.order import draw_epoch
from cnn.errors import UserError
from cnn.models.variables import replace_leaves
from cnn.optim import freezing, plateau
from cnn.optim.plateau import Plateau
from cnn.runtime import background, devices, environment, processes
from cnn.runtime.interrupt import Stop
from cnn.runtime.profiling import Profiler
from cnn.training import (
    canary,
    compile_seconds,
    epoch,
    memory,
    multilabel,
    steps,
    tasks,
)
from cnn.training.counters import Counters
from cnn.training.epoch import Pace
from cnn.training.setup import Loaders, PhaseSetup, Setup
from cnn.training.state import (
    TrainState,
    from_items,
    get_variables,
    get_weights,
    to_items,
)
from cnn.training.steps import Structure, Sums


@dataclasses.dataclass
class Progress:
    """Where a run stands.

    Attributes:
        state: the arrays.
        sums: the metric sums of the epoch under way.
        counters: what else a checkpoint knows.
        phase: the number of the one that took the last step, or takes the first.
        loaders: what fills the chunks of this phase, by split.
        frozen: digests of the leaves that were frozen at first, by path.
        started: the time, by `time.perf_counter`, at which `counters.seconds` was 0.
        checked_phase: the number of the last one whose program is known to fit.
        compiling: what compiles the program of the next step; None: nothing does.
        called: the time of the last call that compiles its program; 0 where that was
            done ahead.
        thresholds: of the classes, tuned on the validation set when it was last
            evaluated; None without, or of one class an image.
    """

    state: TrainState
    sums: Sums
    counters: Counters
    phase: int
    loaders: Loaders
    frozen: dict[str, str]
    started: float = dataclasses.field(default_factory=time.perf_counter)
    checked_phase: int = -1
    compiling: background.Job | None = None
    called: float = 0.0
    thresholds: tuple[float, ...] | None = None

    @property
    def step(self) -> int:
        """Return the number of steps taken."""
        return int(self.state.step)

    def has_ended(self, setup: Setup) -> bool:
        """Return whether no step is left to take."""
        return self.step >= setup.total_steps or self.counters.stopped_early

    def update_seconds(self) -> None:
        """Bring the counter of the run's time up to now."""
        self.counters.seconds = time.perf_counter() - self.started

    def renew_loaders(self, setup: Setup) -> None:
        """Make what fills the chunks of this phase, dropping features made so far."""
        make = setup.phases[self.phase].make_loaders
        self.loaders = make(lambda: get_weights(self.state), setup.numbers)

    def wait_for_program(self, stop: Stop) -> None:
        """Wait until nothing compiles in the background.

        Raises:
            Interrupted: a signal arrived.
            Failed: a thread of a library has died.
        """
        begun = 0.0 if self.compiling else time.perf_counter()
        while self.compiling and not self.compiling.wait(background.LOOK_SECONDS):
            stop.check()
            background.check_others()
        self.compiling, self.called = None, begun

    def start_epoch(self) -> None:
        """Set the sums of the epoch to those over no examples."""
        self.sums = jax.tree.map(
            lambda x: devices.put(x.sharding, np.zeros(x.shape, x.dtype)), self.sums
        )
        self.counters.epoch_seconds = 0.0
        self.counters.gradient_square = self.counters.gradient_variance = 0.0
        self.counters.evaluated_step = self.step


def begin(setup: Setup) -> Progress:
    """Start a run from the weights that its plan takes, or from none."""
    state = setup.phases[0].create(setup.numbers, setup.plan.taken)
    whole = devices.gather(setup.mesh, get_weights(state))
    taken = replace_leaves(whole, setup.plan.taken)
    phase = setup.phases[0].structure.rule.phase
    frozen = {} if phase is None else proof.hash_leaves(taken, phase.is_frozen)
    return stand(setup, state, frozen)


def compile_ahead(setup: Setup, step: int) -> background.Job | None:
    """Start to compile what takes the next step, beside what comes before that.

    The first call finds what was compiled. Where that has failed, or was not for its
    arguments, it compiles as if nothing had been done, and says what is wrong.

    Args:
        step: the number of steps taken.

    Returns:
        For `Progress.compiling`. None where the run has ended; where features are
        cached, whose program follows from weights; for several processes, which
        compile in one order; and on a GPU, whose compiler times kernels on the device,
        with which nothing should interfere.
    """
    phase = setup.phases[setup.find_phase(step + 1)]
    on_cpu = setup.mesh.devices.flat[0].platform == "cpu"
    is_known = step < setup.total_steps and not phase.structure.takes_features
    if not on_cpu or not is_known or processes.are_several():
        return None

    def compile_program() -> None:
        begun = time.perf_counter()
        phase.train_chunk.lower(*_describe_arguments(setup, phase)).compile()
        compile_seconds.note(setup, phase, time.perf_counter() - begun)

    return background.start("compiles", compile_program)


def _describe_arguments(setup: Setup, phase: PhaseSetup) -> tuple:
    """Describe what `take_epoch` calls a phase's program with."""
    shapes = (
        jax.eval_shape(phase.create, setup.numbers, setup.plan.taken),
        jax.eval_shape(lambda: _create_sums(setup)),
    )
    like = checkpoint.abstract(shapes, devices.split_leaves(setup.mesh, shapes))
    drawn = _draw(setup, 0, phase.views)
    del drawn["positions"]
    chunk = setup.loaders["train"].describe(phase.chunk_steps, **drawn)
    everywhere = devices.replicated(setup.mesh)
    placed = devices.put(everywhere, (setup.numbers, epoch.make_bounds(0, 1)))
    return (*like, chunk, *placed, setup.teacher_variables)


def stand(setup: Setup, state: TrainState, frozen: dict[str, str]) -> Progress:
    """Make the progress of a run that stands between two epochs.

    Args:
        state: on the devices.
        frozen: digests of the leaves that were frozen at first.
    """
    everywhere = devices.replicated(setup.mesh)
    sums = devices.put(everywhere, _create_sums(setup))
    phase = setup.find_phase(int(state.step))
    progress = Progress(state, sums, Counters(), phase, {}, frozen)
    progress.renew_loaders(setup)
    return progress


def restore(setup: Setup, path: Path, stored: Mapping[str, Any]) -> Progress:
    """Resume a run from a checkpoint.

    Args:
        path: the checkpoint.
        stored: what it says of itself.

    Raises:
        UserError: it does not fit the model, or is damaged.
    """
    phase = setup.find_phase(int(path.name))
    shapes = jax.eval_shape(setup.phases[phase].create, setup.numbers, {})
    shapes = shapes, jax.eval_shape(lambda: _create_sums(setup))
    like = checkpoint.abstract(shapes, devices.split_leaves(setup.mesh, shapes))
    state, sums = from_items(checkpoint.load_items(path, to_items(*like)))
    try:
        counters = read_dataclass(Counters, stored["records"])
    except ValueError as error:
        raise manifest.DamagedCheckpoint(f"{path}, of records: {error}") from None
    frozen = stored.get("transfer", {}).get("frozen", {})
    progress = Progress(state, sums, counters, phase, {}, frozen)
    if progress.step != int(path.name):
        raise UserError(
            f"{path} is the checkpoint of step {progress.step}; give it that name "
            "again, or move it away"
        )
    progress.thresholds = tasks.read_thresholds(stored)
    progress.renew_loaders(setup)
    return progress


def _create_sums(setup: Setup) -> Sums:
    structure = setup.structure
    return steps.create_train_sums(structure.task, structure.num_classes)


def enter_phase(setup: Setup, progress: Progress) -> PhaseSetup:
    """Change what the next step trains, its new optimizer state at zero, or on what."""
    number = setup.find_phase(progress.step + 1)
    phase = setup.phases[number]
    if progress.phase != number:
        before = setup.phases[progress.phase]
        if before.structure.rule != phase.structure.rule:
            weights = get_weights(progress.state)
            fresh = phase.create(setup.numbers, weights).opt_state
            opt_state = freezing.carry_over(progress.state.opt_state, fresh)
            progress.state = progress.state.replace(opt_state=opt_state)
        progress.phase = number
        progress.renew_loaders(setup)
    return phase


def read_next_step(
    setup: Setup, progress: Progress
) -> tuple[dict[str, jax.Array], Numbers]:
    """Return what the next step is given by `take_epoch`, besides the state.

    Returns:
        A chunk of its batch alone, `images`, `labels`, `ids` and, where they are drawn,
        `copies` [1, B, …], on the devices; and its numbers, likewise.

    Raises:
        UserError: an image cannot be read.
    """
    phase = enter_phase(setup, progress)
    number, done = divmod(progress.step, setup.structure.steps_per_epoch)
    drawn = _draw(setup, number, phase.views)
    one = {name: x[done : done + 1] for name, x in drawn.items()}
    chunk = progress.loaders["train"].fill(one.pop("positions"), **one)
    numbers = _choose_lowered(setup, progress.counters.plateau)(progress.step)
    return chunk, devices.put(devices.replicated(setup.mesh), numbers)


def take_epoch(
    setup: Setup,
    progress: Progress,
    stop: Stop,
    pace: Pace,
    profiler: Profiler,
    interval: int,
    choose_numbers: Callable[[int], Numbers] | None = None,
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Take the steps that are left of the current epoch, call by call.

    Args:
        progress: where the run stands; moved on.
        pace: chooses the steps of a call.
        profiler: traces some of them.
        interval: a call ends wherever the run's step is a multiple of it.
        choose_numbers: from the steps taken to the numbers of the next call; None: the
            run's own, its rate lowered as a plateau has it.

    Yields:
        After each call, the example ids [n, B] of its steps and their metrics [n].

    Raises:
        Interrupted: a signal arrived.
        Failed: an image cannot be read, or a thread has died or is silent.
        UserError: the device has too little memory, or computes wrong numbers.
    """
    phase = enter_phase(setup, progress)
    canary.check_kernels(setup.config.device, setup.mesh, phase.compiler_options)
    number, done = divmod(progress.step, setup.structure.steps_per_epoch)
    before = progress.step - done
    drawn = _draw(setup, number, phase.views)
    everywhere, program = devices.replicated(setup.mesh), phase.train_chunk
    remedies = memory.REMEDIES, phase.structure.accumulate_steps
    choose = choose_numbers or _choose_lowered(setup, progress.counters.plateau)

    def make_arguments(chunk: epoch.Chunk, first: int, last: int) -> tuple:
        bounds = epoch.make_bounds(first % phase.chunk_steps, last - first)
        # Inside a call nothing crosses between host and devices unless placed here.
        numbers = choose(before + first)
        placed = devices.put(everywhere, (numbers, bounds))
        state, sums = progress.state, progress.sums
        return (state, sums, chunk, *placed, setup.teacher_variables)

    def check(compiled: Any, arguments: tuple) -> None:
        _check_once(setup, progress, compiled, arguments)

    @contextlib.contextmanager
    def around(arguments: tuple, first: int, last: int) -> Iterator[None]:
        progress.wait_for_program(stop)
        with (
            memory.explain_shortage(program, arguments, *remedies),
            profiler.watch(before + first, last - first),
        ):
            yield

    def limit(first: int, available: int) -> int:
        step = before + first
        return profiler.cut(step, min(available, interval - step % interval))

    chunks = iterate_chunks(progress.loaders["train"], phase.chunk_steps, drawn, done)
    last = done
    with contextlib.closing(chunks):
        calls = epoch.run_chunks(
            program, chunks, make_arguments, stop, pace, limit, around, check
        )
        for first, last, results, seconds in calls:
            progress.state, progress.sums, filled = results
            progress.counters.train_seconds += seconds
            progress.counters.epoch_seconds += seconds
            here = slice(first % phase.chunk_steps, (last - 1) % phase.chunk_steps + 1)
            step_metrics = {name: x[here] for name, x in jax.device_get(filled).items()}
            progress.counters.note_noise(step_metrics)
            yield drawn["ids"][first:last], step_metrics
    epoch.check_whole(last, len(drawn["ids"]))


def _check_once(
    setup: Setup, progress: Progress, compiled: Any, arguments: tuple
) -> None:
    """Check that a phase's program fits, and note how long the call compiled it."""
    if progress.checked_phase == progress.phase:
        return
    memory.check_fits(compiled, arguments)
    progress.checked_phase = progress.phase
    if progress.called:
        seconds = time.perf_counter() - progress.called
        compile_seconds.note(setup, setup.phases[progress.phase], seconds)


def _draw(setup: Setup, number: int, views: int) -> dict[str, np.ndarray]:
    """Draw an epoch as `draw_epoch`, with the `positions` among its loader's images."""
    labels, options = setup.loaders["train"].labels, setup.config.step
    how = options.batch_size, options.sampling, options.repeats_in_batch
    drawn = draw_epoch(setup.config.train.seed, number, labels, *how)
    view = (number + drawn.get("copies", 0)) % views
    return {"positions": drawn["ids"] + np.int32(len(labels) * view), **drawn}


def _choose_lowered(setup: Setup, state: Plateau | None) -> Callable[[int], Numbers]:
    if state is None:
        return lambda step: setup.numbers
    numbers = plateau.lower(setup.config, state).make_numbers()
    return lambda step: numbers


def evaluate(setup: Setup, progress: Progress, split: str, stop: Stop) -> dict:
    """Evaluate the current weights, averaged where averaging is on.

    Of several labels an image the validation set is evaluated at the thresholds that
    nothing has tuned, and then tunes those of the test set.

    Returns:
        As `epoch.compute_metrics`; of a validation set that tunes, `thresholds` too.
    """
    structure = setup.phases[progress.phase].structure
    structure, examples = setup.for_evaluation(structure), None
    _check_kernels(setup, structure, progress.loaders[split])
    tunes = structure.task.keeps_examples and split == "validation"
    if tunes:
        examples = {}
    found = epoch.compute_metrics(
        structure,
        get_variables(progress.state),
        progress.loaders[split],
        setup.config.step.batch_size,
        stop,
        examples,
        progress.thresholds if split == "test" else None,
        choose_eval_steps(setup, progress.loaders),
    )
    if tunes:
        logits = tasks.concatenate(examples)["logits"]
        labels = progress.loaders[split].labels
        progress.thresholds = multilabel.tune_thresholds(logits, labels)
        found["thresholds"] = progress.thresholds
    return found


def evaluate_best(
    setup: Setup, progress: Progress, checkpoints: Path, stop: Stop
) -> dict[str, Any]:
    """Evaluate the best checkpoint by validation on the test set.

    Args:
        progress: at the end of the run.
        checkpoints: the directory that holds it.

    Returns:
        As `epoch.compute_metrics`.

    Raises:
        UserError: it is not there, or is damaged.
    """
    structure = setup.phases[progress.phase].structure
    if structure.takes_features:
        structure = setup.structure
    structure = setup.for_evaluation(structure)
    _check_kernels(setup, structure, setup.loaders["test"])
    shapes = jax.eval_shape(get_variables, progress.state)
    like = checkpoint.abstract(shapes, devices.split_leaves(setup.mesh, shapes))
    path = checkpoints / str(progress.counters.best_step)
    if not path.exists():
        raise UserError(f"{path} is gone")
    averaged = progress.state.ema is not None
    variables = checkpoint.load_variables(path, like, averaged)
    loader, batch_size = setup.loaders["test"], setup.config.step.batch_size
    thresholds = tasks.read_thresholds(manifest.read_description(path))
    size = choose_eval_steps(setup, setup.loaders)
    return epoch.compute_metrics(
        structure, variables, loader, batch_size, stop, None, thresholds, size
    )


def _check_kernels(setup: Setup, structure: Structure, loader: Loader) -> None:
    """Refuse devices on which the library that evaluates computes wrong numbers."""
    options = epoch.choose_kernels(structure, loader)
    canary.check_kernels(setup.config.device, setup.mesh, options)


def choose_eval_steps(setup: Setup, loaders: Loaders) -> int:
    """Choose how many batches a chunk of evaluation holds, whatever is evaluated.

    So that one program evaluates the validation and the test set.
    """
    size = setup.config.step.batch_size
    return min(
        choose_chunk_steps(-(-len(loader) // size), size, loader.image_bytes)
        for split, loader in loaders.items()
        if split != "train"
    )


def describe_checkpoint(setup: Setup, progress: Progress) -> dict[str, Any]:
    """Return what a checkpoint says of itself, as JSON."""
    description = {
        "options": setup.config.to_flat(),
        "data": setup.seen.summarise(),
        "class_names": list(setup.dataset.class_names),
        "image_shape": list(setup.eval_shape),
        "mean": list(setup.structure.mean),
        "std": list(setup.structure.std),
        "records": dataclasses.asdict(progress.counters),
        "environment": environment.describe(setup.mesh),
    }
    if setup.teacher is not None:
        description["teacher"] = setup.teacher.about
    if setup.structure.task is not tasks.MULTICLASS:
        description["task"] = setup.structure.task.name
    if progress.thresholds is not None:
        description["thresholds"] = list(progress.thresholds)
    phase = setup.phases[progress.phase].structure.rule.phase
    about = setup.plan.about
    if phase is None and not about:
        return description
    is_frozen = (lambda path: False) if phase is None else phase.is_frozen
    frozen = {path: x for path, x in progress.frozen.items() if is_frozen(path)}
    return description | {"transfer": about | {"frozen": frozen}}


def find_bad_step(step_metrics: Mapping[str, np.ndarray], before: int) -> int | None:
    """Find the first step whose loss or gradient is not finite.

    Args:
        step_metrics: `loss` and `gradient_norm`, [n].
        before: the number of steps taken before them.

    Returns:
        Its number, from 1; None when all are finite.
    """
    loss, norm = step_metrics["loss"], step_metrics["gradient_norm"]
    bad = ~(np.isfinite(loss) & np.isfinite(norm))
    return before + int(np.argmax(bad)) + 1 if bad.any() else None
