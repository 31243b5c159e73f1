"""Compiled chunks of steps, and the one host loop that calls them.

A chunk is a dict of arrays [S, B, …]; a program runs batches first … last - 1 of it.
Any division of a chunk into calls is the same loop of the same program, hence the
same bits; the host is touched only between calls. Programs are made once for equal
structures: runs of one structure share one trace and one executable.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnn.config import Numbers
from cnn.data.chunks import Loader, choose_chunk_steps, iterate_chunks
from cnn.data.order import make_eval_order
from cnn.runtime import background, devices, heap, processes
from cnn.runtime.interrupt import Stop
from cnn.training import kernels, memory, metrics, multilabel, noise_scale, steps, tasks
from cnn.training.state import TrainState
from cnn.training.steps import Batch, Structure, Sums

Chunk = dict[str, jax.Array]
STEP_METRICS = ("loss", "learning_rate", "gradient_norm")
PROGRAMS_KEPT = 64  # each keeps its executables, some megabytes


class Pace:
    """Chooses how many steps to run in one call, so that a call takes two seconds."""

    SECONDS = 2.0

    def __init__(self) -> None:
        """Start with one step."""
        self._seconds_per_step = self.SECONDS

    def choose_steps(self, available: int) -> int:
        """Choose how many of the available steps to run."""
        return max(1, min(available, int(self.SECONDS / self._seconds_per_step)))

    def note(self, seconds_per_step: float) -> None:
        """Remember how long a step took."""
        self._seconds_per_step = max(seconds_per_step, 1e-9)


def run_chunks(
    program: Callable[..., Any],
    chunks: Iterable[tuple[int, int, Any]],
    make_arguments: Callable[[Any, int, int], tuple],
    stop: Stop,
    pace: Pace,
    limit: Callable[[int, int], int] | None = None,
    around: Callable[..., contextlib.AbstractContextManager] | None = None,
    check: Callable[[Any, tuple], None] | None = None,
) -> Iterator[tuple[int, int, Any, float]]:
    """Call a program over chunks, some steps at a time: the one host loop.

    Args:
        program: compiled; its third argument is the chunk.
        chunks: first step, last step (exclusive) and chunk, as of `iterate_chunks`.
        make_arguments: from (chunk, first, last) to the arguments of the next call, on
            the devices.
        pace: chooses the steps of a call; brought up to date.
        limit: from (first, available) to the most steps of the next call; None: all.
        around: from (arguments, first, last) to the context of a call; None: lack of
            memory is explained.
        check: of the compiled program and the arguments of its first call, before it.

    Yields:
        First step, last step (exclusive), results and seconds (of the slowest process)
        of each call; what is done with them comes before the next call.

    Raises:
        Interrupted: a signal arrived.
        UserError: the device has too little memory.
    """
    is_compiled = False
    for first, last, chunk in chunks:
        while first < last:
            available = last - first if limit is None else limit(first, last - first)
            until = first + pace.choose_steps(available)
            arguments = make_arguments(chunk, first, until)
            if around is None:
                context = memory.explain_shortage(program, arguments)
            else:
                context = around(arguments, first, until)
            with context:
                if not is_compiled:  # a call's seconds shall be its own
                    compiled = program.lower(*arguments).compile()
                    heap.give_back()
                    stop.check()
                    if check is not None:
                        check(compiled, arguments)
                    is_compiled = True
                started = time.perf_counter()
                results = jax.block_until_ready(program(*arguments))
            seconds = processes.find_most(time.perf_counter() - started)
            pace.note(seconds / (until - first))
            yield first, until, results, seconds
            first = until
            stop.check()
            background.check_others()


@functools.lru_cache(PROGRAMS_KEPT)
def make_train_chunk(
    structure: Structure, mesh: Mesh | None = None, compiler_options: tuple = ()
) -> Callable[..., tuple[TrainState, Sums, dict]]:
    """Make the program that takes some steps of a chunk.

    Args:
        mesh: on which the state comes back as `devices.split_leaves` says, and the
            rest whole; None: as the compiler has it.
        compiler_options: of `xla.choose_compiler_options`.

    Returns:
        `train_chunk`, jitted, of (state, sums, chunk, numbers, bounds) and the
        variables of a teacher, if there is one; the state is donated.
    """

    structure = kernels.adapt(structure, compiler_options)

    def train(
        state: TrainState,
        sums: Sums,
        chunk: Chunk,
        numbers: Numbers,
        bounds: tuple[jax.Array, jax.Array],
        teacher: Any = None,
    ) -> tuple[TrainState, Sums, dict[str, jax.Array]]:
        state = state.replace(teacher=teacher)
        return train_chunk(
            structure, mesh, take_batch, state, sums, chunk, numbers, bounds
        )

    train.__name__ = "train_chunk"  # what logs of compilations show
    options = dict(compiler_options)
    return jax.jit(train, donate_argnums=(0,), compiler_options=options)


def train_chunk(
    structure: Structure,
    mesh: Mesh | None,
    take: Callable[[Chunk, jax.Array], Batch],
    state: TrainState,
    sums: Sums,
    chunk: Chunk,
    numbers: Numbers,
    bounds: tuple[jax.Array, jax.Array],
) -> tuple[TrainState, Sums, dict[str, jax.Array]]:
    """Take some steps of a chunk; pure.

    Args:
        mesh: on which each step has whole parameters, and the state is split between
            steps; None: as the compiler has it.
        take: from (chunk, i) to the batch of step i.
        state: before the steps; with the variables of a teacher, if there is one,
            which do not come back.
        sums: the epoch's so far.
        chunk: S batches; `ids` [S, …] are among it.
        bounds: the first step and the one after the last, int32 [].

    Returns:
        The state, the epoch's sums so far, and step metrics float32 [S] of `loss`,
        `learning_rate` and `gradient_norm`, filled from the first to the last step; of
        `noise_scale.NAMES` too where it is logged.
    """
    names = STEP_METRICS + noise_scale.NAMES * structure.log_noise_scale
    teacher, state = state.teacher, state.replace(teacher=None)

    def body(i: jax.Array, carry: Any) -> Any:
        state, sums, filled = carry
        state = state.replace(teacher=teacher)  # which the loop reads, not carries
        if mesh is not None:
            state = state.replace(params=_constrain(mesh, state.params))
        state, more, step_metrics = steps.train_step(
            structure, state, take(chunk, i), numbers
        )
        filled = {n: filled[n].at[i].set(step_metrics[n]) for n in names}
        state = state.replace(teacher=None)
        state = state if mesh is None else devices.place_state(mesh, state)
        return state, metrics.add_sums(sums, more), filled

    size = chunk["ids"].shape[0]
    empty = {name: jnp.zeros((size,), jnp.float32) for name in names}
    state, *rest = jax.lax.fori_loop(*bounds, body, (state, sums, empty))
    if mesh is None:
        return state, *rest
    return devices.place_state(mesh, state), *_constrain(mesh, rest)


def take_batch(chunk: Chunk, i: jax.Array) -> Batch:
    """Take batch i of a chunk; pure."""

    def take(x: jax.Array) -> jax.Array:
        # By rows, images are taken as `cnn/ops/pixel_rows.py` computes on them.
        joined = x.reshape(*x.shape[:3], -1) if x.ndim == 5 else x
        taken = jax.lax.dynamic_index_in_dim(joined, i, 0, False)
        return taken.reshape(x.shape[1:])

    return jax.tree.map(take, chunk)


@functools.lru_cache(PROGRAMS_KEPT)
def make_eval_chunk(
    structure: Structure, mesh: Mesh | None = None, compiler_options: tuple = ()
) -> Callable[..., Sums]:
    """Make the program that evaluates some batches of a chunk.

    Args:
        mesh: on which every device gets the weights and the sums whole; None: as they
            come.
        compiler_options: of `choose_kernels`.

    Returns:
        `eval_chunk`, jitted, of (variables, sums, chunk, bounds).
    """
    structure = kernels.adapt(structure, compiler_options)
    evaluate = functools.partial(eval_chunk, structure, mesh, take_batch)
    return jax.jit(evaluate, compiler_options=dict(compiler_options))


def eval_chunk(
    structure: Structure,
    mesh: Mesh | None,
    take: Callable[[Chunk, jax.Array], Batch],
    variables: Any,
    sums: Sums,
    chunk: Chunk,
    bounds: tuple[jax.Array, jax.Array],
) -> Sums:
    """Add the metrics of some batches of a chunk to sums; pure.

    Args:
        mesh: as of `make_eval_chunk`.
        take: from (chunk, i) to batch i.
        variables: `params` and `batch_stats`.
        sums: of `Task.create_sums`.
        chunk: the batches.
        bounds: the first batch and the one after the last, int32 [].
    """

    def body(i: jax.Array, sums: Sums) -> Sums:
        more = steps.eval_step(structure, variables, take(chunk, i))
        return metrics.add_sums(sums, more)

    if mesh is None:
        return jax.lax.fori_loop(*bounds, body, sums)
    variables = _constrain(mesh, variables)
    return _constrain(mesh, jax.lax.fori_loop(*bounds, body, sums))


@functools.lru_cache(PROGRAMS_KEPT)
def make_example_chunk(
    structure: Structure, mesh: Mesh, compiler_options: tuple = ()
) -> Callable[..., tuple[Sums, dict[str, jax.Array]]]:
    """Make the program that evaluates as `make_eval_chunk`, and keeps each example.

    Returns:
        `example_chunk`, jitted, of (variables, sums, chunk, bounds).
    """
    structure = kernels.adapt(structure, compiler_options)
    evaluate = functools.partial(example_chunk, structure, mesh, take_batch)
    return jax.jit(evaluate, compiler_options=dict(compiler_options))


def example_chunk(
    structure: Structure,
    mesh: Mesh | None,
    take: Callable[[Chunk, jax.Array], Batch],
    variables: Any,
    sums: Sums,
    chunk: Chunk,
    bounds: tuple[jax.Array, jax.Array],
) -> tuple[Sums, dict[str, jax.Array]]:
    """Do as `eval_chunk`, and keep what is computed of each example; pure.

    Returns:
        The sums, and `logits` [S, B, K] and `loss` [S, B], filled within the bounds.
    """
    shape = chunk["mask"].shape
    if mesh is not None:
        variables = _constrain(mesh, variables)
    empty = {
        "logits": jnp.zeros((*shape, structure.num_classes), jnp.float32),
        "loss": jnp.zeros(shape, jnp.float32),
    }

    def body(i: jax.Array, carry: Any) -> Any:
        sums, filled = carry
        more, found = steps.eval_examples(structure, variables, take(chunk, i))
        filled = {name: filled[name].at[i].set(x) for name, x in found.items()}
        return metrics.add_sums(sums, more), filled

    found = jax.lax.fori_loop(*bounds, body, (sums, empty))
    return found if mesh is None else _constrain(mesh, found)


@functools.lru_cache(PROGRAMS_KEPT)
def make_stacked_chunk(
    structure: Structure, mesh: Mesh, compiler_options: tuple = ()
) -> Callable[..., tuple[Sums, dict[str, jax.Array]]]:
    """Make the program that does as `make_example_chunk` with several models.

    One after the other: each computes the bits that it computes alone. Side by side
    (`jax.vmap`) their convolutions would become grouped ones, slow on CPU.

    Returns:
        `stacked_chunk`, jitted, of stacked variables and sums [M, …], chunk and bounds.
    """

    structure = kernels.adapt(structure, compiler_options)

    def stacked_chunk(
        variables: Any,
        sums: Sums,
        chunk: Chunk,
        bounds: tuple[jax.Array, jax.Array],
    ) -> tuple[Sums, dict[str, jax.Array]]:
        def compute(own: tuple[Any, Sums]) -> tuple[Sums, dict[str, jax.Array]]:
            return example_chunk(structure, mesh, take_batch, *own, chunk, bounds)

        return jax.lax.map(compute, (variables, sums))

    return jax.jit(stacked_chunk, compiler_options=dict(compiler_options))


def choose_kernels(structure: Structure, loader: Loader) -> tuple[tuple[str, Any], ...]:
    """Choose the compiler options of what evaluates all images of a loader."""
    return kernels.choose_compiler_options(
        structure, loader.mesh, loader.image_shape, len(loader)
    )


def compute_metrics(
    structure: Structure,
    variables: Any,
    loader: Loader,
    batch_size: int,
    stop: Stop,
    examples: dict[str, list[np.ndarray]] | None = None,
    thresholds: Sequence[float] | None = None,
    chunk_steps: int = 0,
) -> dict[str, Any]:
    """Evaluate all images of a loader.

    Args:
        variables: `params` and `batch_stats`.
        batch_size: images computed at a time.
        examples: gets `logits` [n, K] and `loss` [n], some images at a time, in their
            order; None: only what the metrics need is computed.
        thresholds: as of `multilabel.summarise`, for several labels an image.
        chunk_steps: batches of a chunk; 0: as `choose_chunk_steps` chooses.

    Returns:
        As `metrics.summarise`, or `multilabel.summarise`.

    Raises:
        Interrupted: a signal arrived.
        UserError: the device has too little memory.
    """
    task = structure.task
    sums = none = task.create_sums(structure.num_classes)
    if examples is None and task.keeps_examples:
        examples = {}
    make = make_eval_chunk if examples is None else make_example_chunk
    program = make(structure, loader.mesh, choose_kernels(structure, loader))
    for so_far, found, rows, mask in _evaluate_batches(
        program, variables, none, loader, batch_size, stop, chunk_steps
    ):
        sums = so_far
        for name, array in found.items():
            examples.setdefault(name, []).append(np.asarray(array[rows])[mask])
    if not task.keeps_examples:
        return metrics.summarise(sums)
    return _summarise_examples(tasks.concatenate(examples), loader, thresholds)


def compute_stacked(
    structure: Structure,
    members: Sequence[Any],
    loader: Loader,
    batch_size: int,
    stop: Stop,
    thresholds: Sequence[Sequence[float] | None],
) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Evaluate all images of a loader with several weights of one model, at once.

    Args:
        members: `params` and `batch_stats` of each, on the devices or the host.
        batch_size: images computed at a time.
        thresholds: of each member, as of `compute_metrics`.

    Returns:
        Of each member what `compute_metrics` returns, and its `logits` [n, K] and
        `loss` [n].

    Raises:
        Interrupted: a signal arrived.
        UserError: the device has too little memory.
    """
    task, count = structure.task, len(members)
    none = [task.create_sums(structure.num_classes)] * count
    none, stacked = (
        jax.tree.map(lambda *x: np.stack(x), *trees) for trees in (none, members)
    )
    sums, stacked = none, devices.put(devices.replicated(loader.mesh), stacked)
    examples: list[dict[str, list]] = [{} for _ in members]
    options = choose_kernels(structure, loader)
    program = make_stacked_chunk(structure, loader.mesh, options)
    for so_far, found, rows, mask in _evaluate_batches(
        program, stacked, none, loader, batch_size, stop
    ):
        sums = so_far
        for name, array in found.items():
            some = np.asarray(array[:, rows])
            for own, kept in zip(examples, some, strict=True):
                own.setdefault(name, []).append(kept[mask])
    whole, sums = [tasks.concatenate(own) for own in examples], jax.device_get(sums)
    if task.keeps_examples:
        measured = [
            _summarise_examples(own, loader, tuned)
            for own, tuned in zip(whole, thresholds, strict=True)
        ]
    else:
        each = [{name: x[i] for name, x in sums.items()} for i in range(count)]
        measured = [metrics.summarise(own) for own in each]
    return list(zip(measured, whole, strict=True))


def _evaluate_batches(
    program: Callable[..., Any],
    variables: Any,
    sums: Sums,
    loader: Loader,
    batch_size: int,
    stop: Stop,
    chunk_steps: int = 0,
) -> Iterator[tuple[Sums, dict[str, jax.Array], slice, np.ndarray]]:
    """Call a program of evaluation over all images of a loader.

    Args:
        program: of `make_eval_chunk`, `make_example_chunk` or `make_stacked_chunk`.
        sums: over no examples, of the host.
        chunk_steps: as of `compute_metrics`.

    Yields:
        After each call the sums so far, the examples of the chunk (none of
        `make_eval_chunk`), its batches that were computed, and their mask.
    """
    positions, mask = make_eval_order(len(loader), batch_size)
    size = chunk_steps
    if not size:
        size = choose_chunk_steps(len(positions), batch_size, loader.image_bytes)
    everywhere = devices.replicated(loader.mesh)
    sums = devices.put(everywhere, sums)

    def make_arguments(chunk: Chunk, first: int, last: int) -> tuple:
        bounds = make_bounds(first % size, last - first)
        return variables, sums, chunk, devices.put(everywhere, bounds)

    chunks = iterate_chunks(loader, size, {"positions": positions, "mask": mask})
    last = 0
    with contextlib.closing(chunks):
        for first, last, results, _ in run_chunks(
            program, chunks, make_arguments, stop, Pace()
        ):
            sums, found = results if isinstance(results, tuple) else (results, {})
            rows = slice(first % size, first % size + last - first)
            yield sums, found, rows, mask[first:last]
    check_whole(last, len(positions))


def _summarise_examples(
    found: dict[str, np.ndarray], loader: Loader, thresholds: Sequence[float] | None
) -> dict[str, Any]:
    return multilabel.summarise(
        found["logits"], loader.labels, found["loss"], thresholds
    )


def check_whole(until: int, total: int) -> None:
    """Refuse a pass over images that ended before its last batch.

    Args:
        until: the number of batches computed, 0 without any.
        total: how many there are.
    """
    if until != total:
        raise background.Failed(
            f"the images ended after batch {until} of {total}: the thread that reads "
            "them has ended early; the same command resumes"
        )


def make_bounds(first: int, count: int) -> tuple[np.int32, np.int32]:
    """Make the bounds of a call: the first step of a chunk, and how many follow."""
    return np.int32(first), np.int32(first + count)


def _constrain(mesh: Mesh, tree: Any) -> Any:
    return jax.lax.with_sharding_constraint(tree, devices.replicated(mesh))
