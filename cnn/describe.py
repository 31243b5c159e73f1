"""Mode describe: a model in numbers, and what training it takes of memory.

Parameters, shapes and the bytes of the state follow from shapes, at once;
`--measure_memory` compiles the training step and reports the rest.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnn import models
from cnn.checkpoints import checkpoint, workdir
from cnn.config import Config
from cnn.data.chunks import CHUNK_BYTES
from cnn.models import remat, summary
from cnn.runtime import devices, xla
from cnn.runtime.terminal import Terminal
from cnn.training import epoch, memory, steps
from cnn.training.setup import check_pieces, make_create, make_structure_of_model
from cnn.training.steps import Structure


def describe(config: Config, directory: Path, terminal: Terminal) -> dict:
    """Print the table of the config's model and write `describe.json`.

    What --image_size, --channels and --num_classes leave open is what the model was
    published for; no dataset is opened.

    Args:
        directory: where `describe.json` goes; made if need be.

    Returns:
        As `summary.describe_model`, with `model`, and `memory`: bytes of `parameters`,
        `batch_stats`, `optimizer_state`, `averaged_weights`, `images` (two chunks: one
        is filled while the other is used), with --measure_memory `temporary`
        (activations, gradients and workspace), their sum, `total`, and what the
        `device` has.

    Raises:
        UserError: the model is unknown, the image too small for it, or the options
            of a step do not fit each other.
    """
    directory.mkdir(parents=True, exist_ok=True)
    batch_size, pieces = config.step.batch_size, config.step.accumulate_steps
    check_pieces(batch_size, pieces)
    mesh = devices.make_mesh(config.device.mesh)
    devices.check_batch_size(batch_size, mesh, pieces)
    size, channels, num_classes = models.get_published_input(config.model.model)
    size = config.data.image_size or size
    image_shape = (size, size, config.data.channels or channels)
    structure = make_structure_of_model(config, config.data.num_classes or num_classes)
    found = {"model": config.model.model}
    found |= summary.describe_model(structure.model, image_shape)
    remat.check(config.model, found["layers"])
    found["memory"], advice = _count_memory(config, structure, mesh, image_shape)
    workdir.write_json(directory / "describe.json", found)
    terminal.show(summary.make_table(found))
    terminal.say(
        f"{config.model.model} on {size}x{size}x{image_shape[2]}: "
        f"{found['num_parameters']:,} parameters ({found['parameter_bytes'] / 1e6:.1f} "
        f"MB), {found['num_batch_stats']:,} batch statistics, "
        f"{found['macs'] / 1e9:.4f} GMACs"
    )
    for line in [*_list_memory(config, found["memory"]), *advice]:
        terminal.say(line)
    terminal.say(f"written to {directory / 'describe.json'}")
    return found


def _count_memory(
    config: Config, structure: Structure, mesh: Mesh, image_shape: tuple[int, int, int]
) -> tuple[dict[str, int], list[str]]:
    """Count the bytes that training takes of one device; advise when it is too much."""
    numbers, batch_size = config.make_numbers(), config.step.batch_size
    stored = config.data.storage_size or image_shape[0]
    batch = (batch_size, stored, stored, image_shape[2])
    create = make_create(structure.model, image_shape, structure.rule, mesh)
    state = jax.eval_shape(create, numbers, {})
    sizes = {
        "parameters": state.params,
        "batch_stats": state.batch_stats,
        "optimizer_state": state.opt_state,
        "averaged_weights": state.ema,
    }
    found = {name: memory.count_bytes(tree) for name, tree in sizes.items()}
    own = int(np.prod(batch)) // mesh.shape["data"]
    found["images"] = 2 * max(CHUNK_BYTES, own)
    capacity = devices.get_device_memory(mesh)
    if not config.describe.measure_memory:
        advice = ["--measure_memory compiles, and adds activations and gradients"]
        return found | {"total": sum(found.values()), "device": capacity}, advice
    call = _make_call(config, structure, mesh, state, batch)
    found["temporary"] = memory.measure_temporary(*call) or 0
    total, pieces = sum(found.values()), structure.accumulate_steps
    advice = []
    if total > capacity:
        advice = [memory.describe_shortage(*call, memory.REMEDIES, pieces)]
    return found | {"total": total, "device": capacity}, advice


def _make_call(
    config: Config, structure: Structure, mesh: Mesh, state: Any, batch: tuple
) -> tuple[Any, tuple]:
    """Make the training program and the shapes that it is called with.

    Args:
        state: shapes of the state.
        batch: (B, H, W, C) of the stored images.
    """
    kernels = config.device.cpu_kernels
    options = xla.choose_compiler_options(kernels, mesh, xla.LEAST_MACS)
    split, whole = devices.split_batches(mesh, batch[0]), devices.replicated(mesh)
    images = np.broadcast_to(np.uint8(0), (1, *batch))
    ids = np.broadcast_to(np.int32(0), (1, batch[0]))
    chunk = {"images": images, "labels": ids, "ids": ids}
    sums = jax.eval_shape(steps.create_train_sums)
    rest = config.make_numbers(), epoch.make_bounds(0, 1)
    arguments = (
        checkpoint.abstract(state, devices.split_leaves(mesh, state)),
        checkpoint.abstract(sums, whole),
        checkpoint.abstract(chunk, split),
        *checkpoint.abstract(rest, whole),
    )
    return epoch.make_train_chunk(structure, mesh, options), arguments


def _list_memory(config: Config, found: dict[str, int]) -> list[str]:
    """Write out the bytes that training takes, a line each."""
    lines = [
        f"training with --batch_size={config.step.batch_size} takes of a device's "
        f"{found['device'] / 2**20:,.1f} MiB:"
    ]
    for name, size in found.items():
        if name != "device":
            lines.append(f"  {name.replace('_', ' '):20}{size / 2**20:14,.1f} MiB")
    return lines
