"""What a program takes of a device's memory, and what to change when it is too much.

The compiler says it of the very program that will run (`memory_analysis`). Programs
are those of `cnn/training/epoch.py`, whose third argument is the chunk.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnn.errors import UserError
from cnn.runtime import devices

REMEDIES = (
    "; or keep the batch and take --accumulate_steps=2 (or more), --remat=blocks or "
    "--precision=bfloat16"
)
_CHUNK = 2
_SMALLER, _TRIES = 3 / 4, 8


def measure_temporary(program: Any, arguments: tuple) -> int | None:
    """Compile a program and return the bytes that it needs besides its arguments.

    Args:
        program: jitted; a later call of it takes what is compiled here.
        arguments: arrays, or their shapes with shardings.

    Returns:
        Bytes on one device, 0 where the backend does not say; None where compiling
        it takes more memory than there is.
    """
    try:
        return read_temporary(program.lower(*arguments).compile())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise


def read_temporary(compiled: Any) -> int:
    """Return the bytes that a compiled program needs besides its arguments."""
    return getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0)


def check_fits(compiled: Any, arguments: tuple) -> None:
    """Refuse a compiled program that the device has no room for.

    Raises:
        MemoryError: for `explain_shortage`.
    """
    needed = count_taken(arguments) + read_temporary(compiled)
    if needed > devices.get_device_memory(_get_mesh(arguments)):
        raise MemoryError


@contextlib.contextmanager
def explain_shortage(
    program: Any, arguments: tuple, remedies: str = "", pieces: int = 1
) -> Iterator[None]:
    """Turn a device's lack of memory into a message that names what would fit.

    Args:
        program: jitted; what is called or compiled inside.
        arguments: of the call.
        remedies: what to change instead of the batch size, for the message.
        pieces: in which the program computes a batch.

    Raises:
        UserError: the device had too little memory for what was done inside.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            message = describe_shortage(program, arguments, remedies, pieces)
            raise UserError(message) from error
        raise


def describe_shortage(
    program: Any, arguments: tuple, remedies: str = "", pieces: int = 1
) -> str:
    """Say what is needed, what there is and what would fit.

    Args:
        program: jitted.
        arguments: of a call, arrays or their shapes with shardings.
        remedies: what to change instead of the batch size.
        pieces: in which the program computes a batch.
    """
    mesh, shapes = _get_mesh(arguments), _list_shapes(arguments)
    capacity = devices.get_device_memory(mesh)
    temporary = measure_temporary(program, shapes)
    if temporary is None:
        needed = "more memory than there is to be compiled"
    else:
        total = count_taken(arguments) + temporary
        needed = f"about {total / 2**30:.2f} GiB of memory"
    batch_size = shapes[_CHUNK]["labels"].shape[1]
    text = (
        f"--batch_size={batch_size} takes {needed}, and a device has "
        f"{capacity / 2**30:.2f} GiB; "
    )
    size = find_batch_size(program, arguments, mesh.devices.size * pieces)
    if not size:
        return f"{text}no batch fits: take a smaller model or --image_size{remedies}"
    return f"{text}--batch_size={size} would fit{remedies}"


def count_bytes(tree: Any) -> int:
    """Count the bytes of a tree of arrays or of their shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(int(leaf.size) * leaf.dtype.itemsize for leaf in leaves)


def count_taken(arguments: tuple) -> int:
    """Count the bytes of all arrays on a device, those of the arguments among them."""
    own = jax.tree.leaves(arguments)
    known = {id(x) for x in own}
    others = [x for x in jax.live_arrays() if id(x) not in known]
    total = 0
    for array in [*own, *others]:
        shape = array.sharding.shard_shape(array.shape)
        total += int(np.prod(shape)) * array.dtype.itemsize
    return total


def find_batch_size(program: Any, arguments: tuple, multiple: int = 1) -> int:
    """Find a batch size that fits, by compiling smaller ones; each takes its time.

    Args:
        program: jitted.
        arguments: of a batch that does not fit.
        multiple: what the size must be a multiple of.

    Returns:
        A size below it; 0 when none fits.
    """
    mesh, shapes = _get_mesh(arguments), _list_shapes(arguments)
    room = devices.get_device_memory(mesh) - count_taken(arguments)
    size, measured = shapes[_CHUNK]["labels"].shape[1], None
    for _ in range(_TRIES):
        # What a batch needs grows about as its size does.
        share = max(room, 0) / measured if measured else 1.0
        size = int(size * min(share, _SMALLER)) // multiple * multiple
        if size <= 0:
            return 0
        measured = measure_temporary(program, _resize_batch(mesh, shapes, size))
        if measured is not None and measured <= room:
            return size
    return 0


def _list_shapes(arguments: tuple) -> tuple:
    # A call that failed may have taken its donated arguments away.
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arguments
    )


def _resize_batch(mesh: Mesh, shapes: tuple, size: int) -> tuple:
    sharding = devices.split_batches(mesh, size)
    chunk = {
        name: jax.ShapeDtypeStruct(
            (x.shape[0], size, *x.shape[2:]), x.dtype, sharding=sharding
        )
        for name, x in shapes[_CHUNK].items()
    }
    return (*shapes[:_CHUNK], chunk, *shapes[_CHUNK + 1 :])


def _get_mesh(arguments: tuple) -> Mesh:
    return arguments[_CHUNK]["labels"].sharding.mesh
