"""A model in numbers: parameters, multiply-accumulates and shapes, layer by layer.

So are the bytes that training it takes. Everything is computed from shapes; nothing is
compiled and no memory is taken.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.table import Table

from cnn import devices, memory, models, workdir
from cnn.data import feed
from cnn.data.chunks import get_device_memory
from cnn.models import remat
from cnn.state import count_parameters, create_variables
from cnn.task import Task, check_pieces

if TYPE_CHECKING:
    from cnn.config import Config
    from cnn.progress import Terminal

_CONTAINERS = 40


def describe(config: "Config", directory: Path, terminal: "Terminal") -> dict:
    """Print the table of the config's model and write `describe.json`.

    What --image_size, --channels and --num_classes leave open is what the model was
    published for; no dataset is opened.

    Args:
        config: every option.
        directory: where `describe.json` goes; made if need be.
        terminal: where to print.

    Returns:
        As `describe_model`, with `model`; `memory`, as `memory.predict`, with
        `device`, the bytes that it has; and, when a step's rate is given, `feed`:
        `decode_images_per_second` of one core, and `cores`.

    Raises:
        UserError: the model is unknown, the image too small for it, or the options
            of a step do not fit each other.
    """
    directory.mkdir(parents=True, exist_ok=True)
    size, channels, num_classes = models.get_published_input(config.model.model)
    size = config.data.image_size or size
    image_shape = (size, size, config.data.channels or channels)
    task = _make_task(config, config.data.num_classes or num_classes)
    found = {"model": config.model.model} | describe_model(task.model, image_shape)
    remat.check(config.model, found["layers"])
    stored = config.data.storage_size or size
    memory_lines, found["memory"] = _predict_memory(config, task, image_shape, stored)
    feed_lines, cores = feed.describe_cores(config.feed, stored, image_shape[2])
    found |= cores
    workdir.write_json(directory / "describe.json", found)
    terminal.console.print(make_table(found))
    terminal.say(
        f"{config.model.model} on {size}x{size}x{image_shape[2]}: "
        f"{found['num_parameters']:,} parameters ({found['parameter_bytes'] / 1e6:.1f} "
        f"MB), {found['num_batch_stats']:,} batch statistics, "
        f"{found['macs'] / 1e9:.4f} GMACs"
    )
    for line in [*memory_lines, *feed_lines]:
        terminal.say(line)
    terminal.say(f"written to {directory / 'describe.json'}")
    return found


def describe_model(model: nn.Module, image_shape: tuple[int, int, int]) -> dict:
    """Describe a model for images of one shape.

    Args:
        model: maps float32 [N, H, W, C] to logits.
        image_shape: (H, W, C).

    Returns:
        `num_parameters`, `num_batch_stats`, `macs` (multiply-accumulates of all
        convolutions and dense layers for one image; biases, normalisation and
        pooling are not counted, as in the published tables), `parameter_bytes`,
        `input_shape`, `output_shape`, and `layers`: for each layer with parameters
        `path`, `type`, `output_shape`, `parameters`, `macs`, in order of execution.

    Raises:
        UserError: the image is too small for the model.
    """
    rows: dict[str, dict] = {}

    def run() -> tuple[Any, Any]:
        variables = create_variables(model, 0, image_shape)
        with nn.intercept_methods(_note_layers(rows)):
            images = jnp.zeros((1, *image_shape), jnp.float32)
            return variables, model.apply(variables, images, train=False)

    variables, output = jax.eval_shape(run)
    layers = list(rows.values())
    num_parameters = count_parameters(variables["params"])
    return {
        "num_parameters": num_parameters,
        "num_batch_stats": count_parameters(variables["batch_stats"]),
        "macs": sum(layer["macs"] for layer in layers),
        "parameter_bytes": 4 * num_parameters,
        "input_shape": list(image_shape),
        "output_shape": list(output.shape[1:]),
        "layers": layers,
    }


def make_table(description: dict) -> Table:
    """Make the table of a description; long ones have a row for each block."""
    table = Table(box=None, pad_edge=False)
    for name, side in (("layer", "left"), ("type", "left"), ("output", "right")):
        table.add_column(name, justify=side)
    table.add_column("parameters", justify="right")
    table.add_column("MACs", justify="right")
    layers = description["layers"]
    if len(layers) > _CONTAINERS:
        layers = _merge_blocks(layers)
    for layer in layers:
        shape = "x".join(str(size) for size in layer["output_shape"])
        table.add_row(
            layer["path"],
            layer["type"],
            shape,
            f"{layer['parameters']:,}",
            f"{layer['macs']:,}",
        )
    parameters, macs = description["num_parameters"], description["macs"]
    table.add_row("all", "", "", f"{parameters:,}", f"{macs:,}", style="bold")
    return table


def _note_layers(rows: dict[str, dict]) -> Callable[..., Any]:
    """Return an interceptor that notes each layer with parameters of its own."""

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        output = call(*args, **kwargs)
        module = context.module
        params = module.variables.get("params", {})
        own = {name: leaf for name, leaf in params.items() if hasattr(leaf, "shape")}
        if context.method_name == "__call__" and own:
            path = "/".join(module.path)
            rows[path] = {
                "path": path,
                "type": type(module).__name__,
                "output_shape": list(output.shape[1:]),
                "parameters": count_parameters(own),
                "macs": _count_macs(own.get("kernel"), output),
            }
        return output

    return note


def _make_task(config: "Config", num_classes: int) -> Task:
    """Make the static part of a step as training does, but for what data tell."""
    batch_size, pieces = config.step.batch_size, config.step.accumulate_steps
    check_pieces(batch_size, pieces)
    static, dtype = config.make_static(), devices.get_dtype(config.device)
    return Task(
        model=models.create_model(static.model, num_classes, dtype),
        num_classes=num_classes,
        mean=(0.5,),
        std=(0.25,),
        image_size=config.data.image_size,
        optimizer=static.optimizer,
        accumulate_steps=pieces,
        remat=config.model.remat == "blocks",
        augment=static.augment,
    )


def _predict_memory(
    config: "Config", task: Task, image_shape: tuple[int, int, int], stored: int
) -> tuple[list[str], dict[str, int]]:
    """Predict what training takes of one device, in lines and in bytes."""
    mesh, numbers = devices.make_mesh(config.device.mesh), config.make_hyperparameters()
    pieces, count = task.accumulate_steps, mesh.devices.size
    devices.check_batch_size(config.step.batch_size, mesh, pieces)
    if config.step.batch_size % (count * pieces):
        count = mesh.shape["data"]  # what only `data` divides repeats along `model`
    stored_shape = (stored, stored, image_shape[2])

    @functools.cache
    def predict(batch_size: int) -> dict[str, int]:
        own = batch_size // count
        return memory.predict(task, image_shape, stored_shape, own, numbers)

    found = predict(config.step.batch_size)
    capacity = get_device_memory(mesh)
    lines = [
        f"training with --batch_size={config.step.batch_size} takes of a device's "
        f"memory (predicted, within {memory.TOLERANCE:.0%}):"
    ]
    for name, size in found.items():
        lines.append(f"  {name.replace('_', ' '):20}{size / 2**20:14,.1f} MiB")
    if found["total"] > capacity:
        multiple = count * pieces
        size = memory.find_batch_size(
            lambda size: predict(size)["total"],
            config.step.batch_size,
            capacity,
            multiple,
        )
        fits = f"--batch_size={size} would fit" if size else "no batch fits"
        lines.append(
            f"a device has {capacity / 2**20:,.1f} MiB; {fits}{memory.REMEDIES}"
        )
    return lines, found | {"device": capacity}


def _count_macs(kernel: Any, output: Any) -> int:
    """Count a layer's multiply-accumulates: its kernel at each place of its output."""
    if kernel is None:
        return 0
    places = output.size // (output.shape[0] * output.shape[-1])
    return kernel.size * places


def _merge_blocks(layers: list[dict]) -> list[dict]:
    blocks: dict[str, dict] = {}
    for layer in layers:
        name = layer["path"].split("/")[0]
        block = blocks.setdefault(
            name, {"path": name, "type": "", "parameters": 0, "macs": 0}
        )
        block["output_shape"] = layer["output_shape"]
        block["parameters"] += layer["parameters"]
        block["macs"] += layer["macs"]
    return list(blocks.values())
