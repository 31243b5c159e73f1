"""The compiled chunk of an epoch: a loop of steps with a traced first and last.

A chunk is a dict of arrays [S, B, …]; the program runs steps first … last - 1 of it.
Any division of a chunk into calls is the same loop of the same program, hence the
same bits; the host is touched only between calls.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cnn import devices, metrics, steps
from cnn.optimizer import Hyperparameters
from cnn.state import TrainState
from cnn.steps import Batch, Sums, Task

Chunk = dict[str, jax.Array]
place = jax.lax.with_sharding_constraint
RECORDS = ("loss", "learning_rate", "gradient_norm")


def make_train_chunk(
    task: Task,
    mesh: Mesh | None = None,
    compiler_options: Mapping[str, Any] | None = None,
) -> Callable[..., tuple[TrainState, Sums, dict]]:
    """Make the program that takes some steps of a chunk.

    Args:
        task: the static part of the step.
        mesh: on which the state comes back as `devices.split_leaves` says, and the
            rest whole; None: as the compiler has it.
        compiler_options: of `devices.choose_compiler_options`.

    Returns:
        A jitted function of (state, sums, chunk, hyperparameters, first, last) that
        returns the state, the epoch's sums so far, and records float32 [S] of
        `loss`, `learning_rate` and `gradient_norm`, filled from first to last - 1.
        The state is donated.
    """

    def train_chunk(
        state: TrainState,
        sums: Sums,
        chunk: Chunk,
        hyperparameters: Hyperparameters,
        first: jax.Array,
        last: jax.Array,
    ) -> tuple[TrainState, Sums, dict[str, jax.Array]]:
        size = chunk["labels"].shape[0]
        take = functools.partial(_take_batch, chunk)
        arguments = take, size, state, sums, hyperparameters, first, last
        if mesh is None:
            return run_steps(task, *arguments)
        step = functools.partial(_step_on_mesh, mesh)
        state, *rest = run_steps(task, *arguments, take_step=step)
        sums, records = place(rest, devices.replicated(mesh))
        return devices.place_state(mesh, state), sums, records

    options = dict(compiler_options or {})
    return jax.jit(train_chunk, donate_argnums=(0,), compiler_options=options)


def make_eval_chunk(task: Task, mesh: Mesh | None = None) -> Callable[..., Sums]:
    """Make the program that evaluates some batches of a chunk.

    Args:
        task: the static part of the step.
        mesh: on which every device gets the weights and the sums whole; None: as they
            come.

    Returns:
        A jitted function of (variables, sums, chunk, first, last) that returns the
        sums with those batches added.
    """

    def eval_chunk(
        variables: Any, sums: Sums, chunk: Chunk, first: jax.Array, last: jax.Array
    ) -> Sums:
        take = functools.partial(_take_batch, chunk)
        if mesh is None:
            return sum_batches(task, take, variables, sums, first, last)
        whole = devices.replicated(mesh)
        variables = place(variables, whole)
        return place(sum_batches(task, take, variables, sums, first, last), whole)

    return jax.jit(eval_chunk)


def run_steps(
    task: Task,
    take_batch: Callable[[jax.Array], Batch],
    size: int,
    state: TrainState,
    sums: Sums,
    hyperparameters: Hyperparameters,
    first: jax.Array,
    last: jax.Array,
    take_step: Callable[..., tuple] | None = None,
) -> tuple[TrainState, Sums, dict[str, jax.Array]]:
    """Take steps first … last - 1; pure.

    Args:
        task: the static part of the step.
        take_batch: from i to the batch of step i.
        size: S, the number of batches that there are.
        state: before the steps.
        sums: the epoch's so far.
        hyperparameters: every number.
        first: int32 [].
        last: int32 [].
        take_step: what stands in for `steps.train_step`; None: that itself.

    Returns:
        As the program of `make_train_chunk`.
    """

    def body(i: jax.Array, carry: Any) -> Any:
        state, sums, records = carry
        step = take_step or steps.train_step
        state, more, record = step(task, state, take_batch(i), hyperparameters)
        records = {name: records[name].at[i].set(record[name]) for name in RECORDS}
        return state, metrics.add_sums(sums, more), records

    records = {name: jnp.zeros((size,), jnp.float32) for name in RECORDS}
    return jax.lax.fori_loop(first, last, body, (state, sums, records))


def sum_batches(
    task: Task,
    take_batch: Callable[[jax.Array], Batch],
    variables: Any,
    sums: Sums,
    first: jax.Array,
    last: jax.Array,
) -> Sums:
    """Add the metrics of batches first … last - 1 to sums; pure."""

    def body(i: jax.Array, sums: Sums) -> Sums:
        more = steps.eval_step(task, variables, take_batch(i))
        return metrics.add_sums(sums, more)

    return jax.lax.fori_loop(first, last, body, sums)


def _step_on_mesh(
    mesh: Mesh, task: Task, state: TrainState, batch: Batch, numbers: Hyperparameters
) -> tuple[TrainState, Sums, dict[str, jax.Array]]:
    """Take a step with whole parameters; between steps the state is split again."""
    params = place(state.params, devices.replicated(mesh))
    state = state.replace(params=params)
    state, sums, record = steps.train_step(task, state, batch, numbers)
    return devices.place_state(mesh, state), sums, record


def _take_batch(chunk: Chunk, i: jax.Array) -> Batch:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False), chunk)
