"""The programs of a run with one more axis: several trials in one call.

States, sums, numbers and orders are stacked, [T, …]; images and a teacher lie on the
device once.
Trials are spread over the devices of a mesh (`make_trials_mesh`), and each device
runs its own one after another (`map`) or side by side (`vmap`). No trial's numbers
touch another's.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn.config import Numbers
from cnn.training import epoch
from cnn.training.state import TrainState, create_state
from cnn.training.steps import Structure, Sums

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


@functools.lru_cache(epoch.PROGRAMS_KEPT)
def make_create_trials(
    structure: Structure, image_shape: tuple[int, int, int], axis: str, mesh: Mesh
) -> Callable[..., TrainState]:
    """Make the program that creates every trial's state before the first step.

    Returns:
        A jitted function of (taken, numbers): variables that all trials start from,
        and stacked numbers.
    """

    def create_one(taken: Any, numbers: Numbers) -> TrainState:
        return create_state(
            structure.model, image_shape, structure.rule, numbers, taken
        )

    return _name(over_trials(create_one, axis, mesh), "create_trials")


@functools.lru_cache(epoch.PROGRAMS_KEPT)
def make_train_trials(structure: Structure, axis: str, mesh: Mesh) -> Callable:
    """Make the program that takes some steps of an epoch in every trial.

    Returns:
        A jitted function of (shared, states, chunk, sums, numbers, bounds): `images`
        uint8 [N, H, W, C] and `labels`, and the variables of a teacher, or None; the
        chunk's `ids` int32 [T, S, B] and maybe `copies`; two int32 [T]. It returns
        states, sums and step metrics [T, S]. A trial whose bounds are equal stays as
        it is. States and sums are donated.
    """

    def train_one(
        shared: tuple[Images, Any],
        state: TrainState,
        chunk: epoch.Chunk,
        sums: Sums,
        numbers: Numbers,
        bounds: tuple[jax.Array, jax.Array],
    ) -> tuple:
        images, teacher = shared

        def take(chunk: epoch.Chunk, i: jax.Array) -> dict[str, jax.Array]:
            drawn = epoch.take_batch(chunk, i)
            return {name: x[drawn["ids"]] for name, x in images.items()} | drawn

        state = state.replace(teacher=teacher)
        return epoch.train_chunk(
            structure, None, take, state, sums, chunk, numbers, bounds
        )

    return _name(over_trials(train_one, axis, mesh), "train_trials", donated=(1, 3))


@functools.lru_cache(epoch.PROGRAMS_KEPT)
def make_eval_trials(structure: Structure, axis: str, mesh: Mesh) -> Callable:
    """Make the program that evaluates some batches in every trial.

    Returns:
        A jitted function of (shared, variables, sums, bounds): `images`, `labels`,
        `positions` int32 [S, B] and `mask` bool [S, B] for all trials; stacked
        variables and sums; two int32 [T]. It returns the sums with those batches added;
        where metrics need every example, these and the examples, as
        `epoch.example_chunk`.
    """
    evaluate = epoch.eval_chunk
    if structure.task.keeps_examples:
        evaluate = epoch.example_chunk

    def eval_one(
        shared: Images,
        variables: Any,
        sums: Sums,
        bounds: tuple[jax.Array, jax.Array],
    ) -> Sums:
        def take(shared: Images, i: jax.Array) -> dict[str, jax.Array]:
            ids = shared["positions"][i]
            return {
                "images": shared["images"][ids],
                "labels": shared["labels"][ids],
                "mask": shared["mask"][i],
            }

        return evaluate(structure, None, take, variables, sums, shared, bounds)

    return _name(over_trials(eval_one, axis, mesh), "eval_trials")


def _name(function: Callable, name: str, donated: tuple[int, ...] = ()) -> Callable:
    # The name is what logs of compilations show.
    function.__name__ = name
    return jax.jit(function, donate_argnums=donated)
