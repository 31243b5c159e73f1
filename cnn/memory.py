"""What a program takes of a device's memory, and what to change when it is too much.

Predictions are made from shapes, before anything is compiled; see `cnn/liveness.py`.
Programs are those of `cnn/epoch.py`, whose third argument is the chunk.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import epoch, liveness, steps
from cnn.data.chunks import CHUNK_BYTES, get_device_memory
from cnn.errors import UserError
from cnn.optimizer import Hyperparameters
from cnn.state import TrainState, create_state
from cnn.task import Task

# How far a prediction may be off: tests/test_memory.py compares it with XLA's own.
TOLERANCE = 0.3
REMEDIES = (
    "; or keep the batch and take --accumulate_steps=2 (or more), --remat=blocks or "
    "--precision=bfloat16"
)
_CHUNK = 2


def predict(
    task: Task,
    image_shape: tuple[int, int, int],
    stored_shape: tuple[int, int, int],
    batch_size: int,
    hyperparameters: Hyperparameters,
) -> dict[str, int]:
    """Predict the most bytes that training takes on one device.

    Args:
        task: the static part of the step.
        image_shape: (H, W, C) of what the model sees.
        stored_shape: (H, W, C) of what a batch holds.
        batch_size: images of a batch on that device.
        hyperparameters: every number.

    Returns:
        Bytes: `parameters`, `batch_stats`, `optimizer_state`, `averaged_weights`,
        `images` (two chunks: one is filled while the other is used),
        `activations` (with gradients and workspace, at the moment when they are
        most), and their sum, `total`. Images that stay on the device are not counted.
    """
    create = functools.partial(create_state, task.model, image_shape, task.optimizer)
    state: TrainState = jax.eval_shape(create, hyperparameters)
    ids = jax.ShapeDtypeStruct((1, batch_size), jnp.int32)
    images = jax.ShapeDtypeStruct((1, batch_size, *stored_shape), jnp.uint8)
    chunk = {"images": images, "labels": ids, "ids": ids}
    sums = jax.eval_shape(steps.create_train_sums)
    bounds = np.int32(0), np.int32(1)
    program = epoch.make_train_chunk(task)
    traced = program.trace(state, sums, chunk, hyperparameters, *bounds)
    platform = jax.devices()[0].platform
    found = {
        "parameters": count_bytes(state.params),
        "batch_stats": count_bytes(state.batch_stats),
        "optimizer_state": count_bytes(state.opt_state),
        "averaged_weights": count_bytes(state.ema),
        "images": 2 * max(CHUNK_BYTES, batch_size * int(np.prod(stored_shape))),
        "activations": liveness.count_temporary_bytes(traced.jaxpr, platform),
    }
    return found | {"total": sum(found.values())}


def compile_if_it_fits(program: Any, arguments: tuple, pieces: int = 1) -> Any:
    """Compile a training program, unless the device has too little memory for it.

    Args:
        program: jitted.
        arguments: what it will be called with, on the devices.
        pieces: in which it computes a batch.

    Raises:
        UserError: it does not fit: by prediction before it is compiled, or by what
            XLA says of the compiled one.
    """
    capacity, taken = get_device_memory(_get_mesh(arguments)), _count_taken(arguments)
    with explain_shortage(program, arguments, REMEDIES, pieces):
        traced = program.trace(*arguments)
        temporary = _count_temporary(traced, arguments)
        # What a prediction is wrong about must not be refused: XLA has the last word.
        if taken + temporary / 2 > capacity:
            raise MemoryError
        compiled = traced.lower().compile()
        # Some backends do not tell.
        temporary = getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0)
        if taken + temporary > capacity:
            raise MemoryError
    return compiled


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
            message = _describe_shortage(program, arguments, remedies, pieces)
            raise UserError(message) from error
        raise


def count_bytes(tree: Any) -> int:
    """Count the bytes of a tree of arrays or of their shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(int(leaf.size) * leaf.dtype.itemsize for leaf in leaves)


def find_batch_size(
    predict: Callable[[int], int], batch_size: int, capacity: int, multiple: int = 1
) -> int:
    """Find a batch size that fits.

    Args:
        predict: from a batch size, a multiple, to bytes; about a straight line.
        batch_size: one that does not fit.
        capacity: bytes that there are.
        multiple: what it must be a multiple of.

    Returns:
        A size below `batch_size`, near the largest; 0 when none fits.
    """
    half = max(multiple, batch_size // 2 // multiple * multiple)
    high, low = predict(batch_size), predict(half)
    slope = (high - low) / max(1, batch_size - half)
    size = min(batch_size - multiple, int(half + (capacity - low) / max(1.0, slope)))
    size = size // multiple * multiple
    while size > 0 and predict(size) > capacity:
        size = size * 7 // 8 // multiple * multiple
    return max(size, 0)


def _describe_shortage(
    program: Any, arguments: tuple, remedies: str, pieces: int
) -> str:
    """Say what is needed, what there is and what would fit."""
    capacity, taken = get_device_memory(_get_mesh(arguments)), _count_taken(arguments)
    # By shapes alone: a call that failed may have taken its donated arguments away.
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    batch_size = shapes[_CHUNK]["labels"].shape[1]

    @functools.cache  # each size traces the program anew
    def predict_size(size: int) -> int:
        chunk = {
            name: jax.ShapeDtypeStruct((x.shape[0], size, *x.shape[2:]), x.dtype)
            for name, x in shapes[_CHUNK].items()
        }
        changed = (*shapes[:_CHUNK], chunk, *shapes[_CHUNK + 1 :])
        return taken + _count_temporary(program.trace(*changed), arguments)

    text = (
        f"--batch_size={batch_size} takes about {predict_size(batch_size) / 2**30:.2f} "
        f"GiB of memory, and a device has {capacity / 2**30:.2f} GiB; "
    )
    multiple = _get_mesh(arguments).devices.size * pieces
    size = find_batch_size(predict_size, batch_size, capacity, multiple)
    if not size:
        return f"{text}no batch fits: take a smaller model or --image_size{remedies}"
    return f"{text}--batch_size={size} would fit{remedies}"


def _get_mesh(arguments: tuple) -> Any:
    return arguments[_CHUNK]["labels"].sharding.mesh


def _count_taken(arguments: tuple) -> int:
    """Count the bytes of all arrays on a device, those of the arguments among them."""
    own = jax.tree.leaves(arguments)
    known = {id(x) for x in own}
    others = [x for x in jax.live_arrays() if id(x) not in known]
    total = 0
    for array in [*own, *others]:
        shape = array.sharding.shard_shape(array.shape)
        total += int(np.prod(shape)) * array.dtype.itemsize
    return total


def _count_temporary(traced: Any, arguments: tuple) -> int:
    """Predict what one device needs besides arrays; batches are split over them."""
    mesh = _get_mesh(arguments)
    platform = mesh.devices.flat[0].platform
    whole = liveness.count_temporary_bytes(traced.jaxpr, platform)
    return whole // mesh.devices.size
