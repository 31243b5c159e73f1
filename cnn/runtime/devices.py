"""The devices of a run as a mesh, and how arrays lie on it.

Batches are split over its axis `data`. Its axis `model`, where it has one, splits the
large leaves of parameters, optimizer state and averages, and batches as well.
"""

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn.errors import UserError
from cnn.runtime import machine
from cnn.runtime.options import DeviceOptions

LEAST_SPLIT = 1024
_PLATFORMS = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")


def open_backend() -> None:
    """Open the devices, which XLA's flags do not reach afterwards.

    Raises:
        UserError: this machine, or this installation of jax, has none of the platform
            that the environment asks for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # without its plugin the latter
        asked = [f"{n}={os.environ[n]}" for n in _PLATFORMS if os.environ.get(n)]
        reason = re.split(r"\n|\. \(set JAX", str(error))[0]
        reason = reason or "its plugin is not installed"
        raise UserError(
            f"{' '.join(asked) or 'jax'}: no such device can be opened ({reason}); "
            "unset the variable or give cpu, or install the driver and jax's plugin "
            "for it, as pip install 'jax[cuda13]'"
        ) from None


def make_mesh(axes: str = "") -> Mesh:
    """Make the mesh of a run from the value of `--mesh`.

    Raises:
        UserError: it is malformed, there are fewer devices, or several processes would
            leave some of theirs unused.
    """
    found = re.fullmatch(r"data:([1-9]\d*)(?:,model:([1-9]\d*))?", axes)
    if axes and not found:
        raise UserError(f"--mesh={axes}: write data:N or data:N,model:M, as data:4")
    devices = jax.devices()
    sizes = [int(size) for size in found.groups() if size] if found else [len(devices)]
    count = math.prod(sizes)
    if count > len(devices):
        on_cpu = f", or on CPU --cpu_devices={count} for virtual ones"
        raise UserError(
            f"--mesh={axes} asks for {count} devices and there are "
            f"{describe_device()}; give a smaller one"
            f"{on_cpu if devices[0].platform == 'cpu' else ''}"
        )
    if count < len(devices) and jax.process_count() > 1:
        raise UserError(
            f"--mesh={axes} takes {count} of {len(devices)} devices, but several "
            "processes use all that they have; leave it out, or start fewer"
        )
    return jax.make_mesh(
        sizes,
        ("data", "model")[: len(sizes)],
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices[:count],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def put(sharding: NamedSharding, tree: Any) -> Any:
    """Bring host arrays, equal in all processes, to the devices."""

    def put_one(array: Any) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(put_one, tree)


def split_batches(mesh: Mesh, batch_size: int = 0) -> NamedSharding:
    """Return the sharding of chunks [steps, batch, …], whose batches are split.

    Args:
        batch_size: those that only `data` divides are repeated along `model`.
    """
    axes = mesh.axis_names if batch_size % mesh.size == 0 else "data"
    return NamedSharding(mesh, PartitionSpec(None, axes))


def split_leaves(mesh: Mesh, tree: Any) -> Any:
    """Return the sharding of each leaf of a state, given as arrays or their shapes.

    With an axis `model`, a leaf of at least `LEAST_SPLIT` numbers is split along its
    largest axis that divides; every device holds the other leaves whole.
    """
    count = mesh.shape.get("model", 1)

    def split(leaf: Any) -> NamedSharding:
        sizes = [n if n % count == 0 else 0 for n in leaf.shape]
        if count == 1 or leaf.size < LEAST_SPLIT or not any(sizes):
            return replicated(mesh)
        axis = sizes.index(max(sizes))
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "model"))

    return jax.tree.map(split, tree)


def place_state(mesh: Mesh, tree: Any) -> Any:
    """Let the compiler lay a traced state on the mesh as `split_leaves` says."""
    return jax.lax.with_sharding_constraint(tree, split_leaves(mesh, tree))


def gather(mesh: Mesh, tree: Any) -> Any:
    """Return a tree of which every device holds every leaf whole."""
    if mesh.shape.get("model", 1) == 1:
        return tree
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)


def check_batch_size(batch_size: int, mesh: Mesh, pieces: int = 1) -> None:
    """Refuse a batch that does not divide evenly over the devices.

    Args:
        pieces: of `--accumulate_steps`, each of which must divide too.

    Raises:
        UserError: naming the nearest sizes that do.
    """
    count = mesh.shape["data"]
    if pieces > 1 and batch_size % pieces == 0 and batch_size // pieces % count:
        raise UserError(
            f"--accumulate_steps={pieces} makes pieces of {batch_size // pieces} "
            f"examples of --batch_size={batch_size}, which do not divide over {count} "
            f"devices; give a --batch_size that {pieces * count} divides"
        )
    if batch_size % count:
        below = batch_size // count * count
        near = f"{below} or {below + count}" if below else str(count)
        raise UserError(
            f"--batch_size={batch_size} does not divide over {count} devices; "
            f"use {near}"
        )


def describe_device(mesh: Mesh | None = None) -> str:
    """Describe the devices of a mesh, or all, as `2 x cpu (cpu)`."""
    devices = jax.devices() if mesh is None else list(mesh.devices.flat)
    kind, platform = devices[0].device_kind, devices[0].platform
    text = f"{len(devices)} x {kind} ({platform})"
    if mesh is not None and "model" in mesh.shape:
        text += ", " + ",".join(f"{name}:{n}" for name, n in mesh.shape.items())
    if jax.process_count() > 1:
        text += f", {jax.process_count()} processes"
    return text


def get_dtype(options: DeviceOptions) -> Any:
    """Return the type that layers compute in."""
    return jnp.bfloat16 if options.precision == "bfloat16" else jnp.float32


def lie_in_host_memory(mesh: Mesh) -> bool:
    """Return whether the memory of the devices is that of the host."""
    return mesh.local_devices[0].platform == "cpu"


def get_device_memory(mesh: Mesh) -> int:
    """Return the bytes of a device's memory; a CPU's devices share the machine's."""
    device: Any = mesh.local_devices[0]
    statistics: dict | Sequence | None = device.memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    memory = machine.get_memory()
    return memory // (len(mesh.local_devices) if device.platform == "cpu" else 1)
