"""A model in numbers: parameters, multiply-accumulates and shapes, layer by layer.

Everything is computed from shapes; nothing is compiled and no memory is taken.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.table import Table

from cnn import models, workdir
from cnn.state import count_parameters, create_variables

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
        As `describe_model`, with `model`.

    Raises:
        UserError: the model is unknown, or the image too small for it.
    """
    size, channels, num_classes = models.get_published_input(config.model.model)
    size = config.data.image_size or size
    image_shape = (size, size, config.data.channels or channels)
    model = models.create_model(config.model, config.data.num_classes or num_classes)
    found = {"model": config.model.model} | describe_model(model, image_shape)
    directory.mkdir(parents=True, exist_ok=True)
    workdir.write_json(directory / "describe.json", found)
    terminal.console.print(make_table(found))
    terminal.say(
        f"{config.model.model} on {size}x{size}x{image_shape[2]}: "
        f"{found['num_parameters']:,} parameters ({found['parameter_bytes'] / 1e6:.1f} "
        f"MB), {found['num_batch_stats']:,} batch statistics, "
        f"{found['macs'] / 1e9:.4f} GMACs"
    )
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

    def run() -> tuple[Any, Any]:
        variables = create_variables(model, 0, image_shape)
        with nn.intercept_methods(note):
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
