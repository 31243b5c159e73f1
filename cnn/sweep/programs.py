"""The programs of a run with one more axis: several trials in one call.

States, sums, numbers and orders are stacked, [T, …]; images lie on the device once.
Trials are spread over the devices of a mesh, and on each of them come one after
another (`map`) or side by side (`vmap`). No trial's numbers touch another's.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn import epoch
from cnn.optimizer import Hyperparameters
from cnn.state import TrainState
from cnn.steps import Sums, Task

Images = dict[str, jax.Array]


def _map(function: Callable) -> Callable:
    return lambda *stacked: jax.lax.map(lambda own: function(*own), stacked)


AXES: dict[str, Callable[[Callable], Callable]] = {"map": _map, "vmap": jax.vmap}


def make_trials_mesh(devices: list) -> Mesh:
    """Make a mesh over which trials are spread."""
    return Mesh(np.array(devices), ("trials",), axis_types=(AxisType.Auto,))


def stacked(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays [T, …], T a multiple of the devices."""
    return NamedSharding(mesh, PartitionSpec("trials"))


def over_trials(function: Callable, axis: str, mesh: Mesh) -> Callable:
    """Give a function of one trial the trials' axis.

    Args:
        function: of (shared, *own), pytrees of arrays.
        axis: one of `AXES`.
        mesh: of `make_trials_mesh`.

    Returns:
        A function of (shared, *stacked) to stacked results.
    """

    def on_each_device(shared: Any, *own: Any) -> Any:
        return AXES[axis](functools.partial(function, shared))(*own)

    def everywhere(shared: Any, *own: Any) -> Any:
        trials = PartitionSpec("trials")
        specs = (PartitionSpec(), *[trials] * len(own))
        return jax.shard_map(
            on_each_device, mesh=mesh, in_specs=specs, out_specs=trials, check_vma=False
        )(shared, *own)

    return everywhere


def make_train_trials(task: Task, axis: str, mesh: Mesh) -> Callable[..., tuple]:
    """Make the program that takes some steps of an epoch in every trial.

    Args:
        task: the static part of the step.
        axis: one of `AXES`.
        mesh: of `make_trials_mesh`.

    Returns:
        A jitted function of (images, states, sums, order, numbers, first, last):
        `images` uint8 [N, H, W, C] and `labels` int32 [N]; states and sums; positions
        int32 [T, S, B]; hyperparameters; int32 [T] each. It returns states, sums and
        records [T, S]. A trial whose `first` is its `last` stays as it is. States and
        sums are donated.
    """

    def train_one(
        images: Images,
        state: TrainState,
        sums: Sums,
        order: jax.Array,
        numbers: Hyperparameters,
        first: jax.Array,
        last: jax.Array,
    ) -> tuple:
        def take_batch(i: jax.Array) -> dict[str, jax.Array]:
            ids = jax.lax.dynamic_index_in_dim(order, i, 0, False)
            return {name: x[ids] for name, x in images.items()} | {"ids": ids}

        size = order.shape[0]
        return epoch.run_steps(
            task, take_batch, size, state, sums, numbers, first, last
        )

    train_trials = over_trials(train_one, axis, mesh)
    return _name(train_trials, "train_trials", donated=(1, 2))


def make_eval_trials(task: Task, axis: str, mesh: Mesh) -> Callable[..., Sums]:
    """Make the program that evaluates some batches in every trial.

    Args:
        task: the static part of the step.
        axis: one of `AXES`.
        mesh: of `make_trials_mesh`.

    Returns:
        A jitted function of (shared, variables, sums, first, last): `images`,
        `labels`, `positions` int32 [S, B] and `mask` bool [S, B] for all trials;
        stacked variables and sums; int32 [T] each. It returns the sums with those
        batches added.
    """

    def eval_one(
        shared: Images, variables: Any, sums: Sums, first: jax.Array, last: jax.Array
    ) -> Sums:
        def take_batch(i: jax.Array) -> dict[str, jax.Array]:
            ids = shared["positions"][i]
            return {
                "images": shared["images"][ids],
                "labels": shared["labels"][ids],
                "mask": shared["mask"][i],
            }

        return epoch.sum_batches(task, take_batch, variables, sums, first, last)

    return _name(over_trials(eval_one, axis, mesh), "eval_trials")


def _name(function: Callable, name: str, donated: tuple[int, ...] = ()) -> Callable:
    # The name is what logs of compilations show.
    function.__name__ = name
    return jax.jit(function, donate_argnums=donated)
