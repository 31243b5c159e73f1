"""The compiled chunk of an epoch: a loop of steps with a traced first and last.

A chunk is a dict of arrays [S, B, …]; the program runs steps first … last - 1 of it.
Any division of a chunk into calls is the same loop of the same program, hence the
same bits; the host is touched only between calls.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cnn import metrics, steps
from cnn.optimizer import Hyperparameters
from cnn.state import TrainState
from cnn.steps import Batch, Sums, Task

Chunk = dict[str, jax.Array]
RECORDS = ("loss", "learning_rate", "gradient_norm")


def make_train_chunk(task: Task) -> Callable[..., tuple[TrainState, Sums, dict]]:
    """Make the program that takes some steps of a chunk.

    Args:
        task: the static part of the step.

    Returns:
        A jitted function of (state, sums, chunk, hyperparameters, first, last) that
        returns the state, the epoch's sums so far, and records float32 [S] of
        `loss`, `learning_rate` and `gradient_norm`, filled from first to last - 1.
        The state is donated.
    """

    def run(
        state: TrainState,
        sums: Sums,
        chunk: Chunk,
        hyperparameters: Hyperparameters,
        first: jax.Array,
        last: jax.Array,
    ) -> tuple[TrainState, Sums, dict[str, jax.Array]]:
        def body(i: jax.Array, carry: Any) -> Any:
            state, sums, records = carry
            batch = _take_batch(chunk, i)
            state, more, record = steps.train_step(task, state, batch, hyperparameters)
            records = {name: records[name].at[i].set(record[name]) for name in RECORDS}
            return state, metrics.add_sums(sums, more), records

        size = chunk["labels"].shape[0]
        records = {name: jnp.zeros((size,), jnp.float32) for name in RECORDS}
        return jax.lax.fori_loop(first, last, body, (state, sums, records))

    return jax.jit(run, donate_argnums=(0,))


def make_eval_chunk(task: Task) -> Callable[..., Sums]:
    """Make the program that evaluates some batches of a chunk.

    Args:
        task: the static part of the step.

    Returns:
        A jitted function of (variables, sums, chunk, first, last) that returns the
        sums with those batches added.
    """

    def run(
        variables: Any, sums: Sums, chunk: Chunk, first: jax.Array, last: jax.Array
    ) -> Sums:
        def body(i: jax.Array, sums: Sums) -> Sums:
            batch = _take_batch(chunk, i)
            return metrics.add_sums(sums, steps.eval_step(task, variables, batch))

        return jax.lax.fori_loop(first, last, body, sums)

    return jax.jit(run)


def _take_batch(chunk: Chunk, i: jax.Array) -> Batch:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False), chunk)
