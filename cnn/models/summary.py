"""A model in numbers: parameters, multiply-accumulates and shapes, layer by layer.

Everything is computed from shapes; nothing is compiled and no memory is taken.
"""

import copy
import functools
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.table import Table

from cnn.models.variables import count_parameters, create_variables, is_kernel

_CONTAINERS = 40
_NUMBER = re.compile(r"\d+$")  # of a block among those of its stage


def describe_model(model: nn.Module, image_shape: tuple[int, int, int]) -> dict:
    """Describe a model for images of one shape.

    Args:
        model: maps float32 [N, H, W, C] to logits.
        image_shape: (H, W, C).

    Returns:
        `num_parameters`, `num_batch_stats`, `macs` (multiply-accumulates of all
        convolutions and dense layers for one image that is evaluated; biases,
        normalisation and pooling are not counted, as in the published tables, and what
        is computed in training alone has none), `parameter_bytes`,
        `input_shape`, `output_shape`, and `layers`: for each layer with parameters
        `path`, `type`, `output_shape`, `parameters`, `macs`, in order of execution.

    Raises:
        UserError: the image is too small for the model.
    """
    return copy.deepcopy(_describe(model, tuple(image_shape)))


# Tracing densenet121 takes a second, and a run asks more than once.
@functools.lru_cache
def _describe(model: nn.Module, image_shape: tuple[int, int, int]) -> dict:
    created: dict[str, dict] = {}
    evaluated: dict[str, dict] = {}

    def run() -> tuple[Any, Any]:
        with nn.intercept_methods(_note_layers(created)):
            variables = create_variables(model, 0, image_shape)
        with nn.intercept_methods(_note_layers(evaluated)):
            images = jnp.zeros((1, *image_shape), jnp.float32)
            # What is sown says where a kernel right in the model is laid.
            output, _ = model.apply(variables, images, mutable=["features"])
            return variables, output

    variables, output = jax.eval_shape(run)
    layers = [evaluated.get(path, x | {"macs": 0}) for path, x in created.items()]
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
    """Make the table of a description; long ones have a row for each block.

    Blocks in a row that are alike are one row of it, with how many there are.
    """
    table = Table(box=None, pad_edge=False)
    for name, side in (("layer", "left"), ("type", "left"), ("output", "right")):
        table.add_column(name, justify=side)
    table.add_column("parameters", justify="right")
    table.add_column("MACs", justify="right")
    layers = description["layers"]
    if len(layers) > _CONTAINERS:
        layers = _merge_blocks(layers)
    for layer, count in _fold(layers):
        times = f"{count} x " if count > 1 else ""
        shape = "x".join(str(size) for size in layer["output_shape"])
        table.add_row(
            layer["path"],
            layer["type"],
            shape,
            f"{times}{layer['parameters']:,}",
            f"{times}{layer['macs']:,}" if layer["macs"] else "0",
        )
    parameters, macs = description["num_parameters"], description["macs"]
    table.add_row("all", "", "", f"{parameters:,}", f"{macs:,}", style="bold")
    return table


def _fold(layers: list[dict]) -> list[tuple[dict, int]]:
    """Return layers with how many there are: of equal ones in a row, numbered, one."""

    def describe(layer: dict) -> tuple:
        about = {name: x for name, x in layer.items() if name != "path"}
        return _NUMBER.sub("", layer["path"]), str(about)

    folded = []
    for _, equal in itertools.groupby(layers, describe):
        first, *others = equal
        numbers = [_NUMBER.search(x["path"]) for x in (first, *others)]
        if others and all(numbers):
            path = f"{first['path']}…{numbers[-1][0]}"
            folded.append((first | {"path": path}, len(numbers)))
        else:
            folded += [(layer, 1) for layer in (first, *others)]
    return folded


def _note_layers(rows: dict[str, dict]) -> Callable[..., Any]:
    """Return an interceptor that notes each layer with parameters of its own."""

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        output = call(*args, **kwargs)
        module = context.module
        params = module.variables.get("params", {})
        own = {name: leaf for name, leaf in params.items() if hasattr(leaf, "shape")}
        if context.method_name == "__call__" and own:
            path = "/".join(module.path)
            sown = [x[-1] for x in module.variables.get("features", {}).values()]
            rows[path] = {
                "path": path,
                "type": type(module).__name__,
                "output_shape": list(output.shape[1:]),
                "parameters": count_parameters(own),
                "macs": count_macs(own, [*sown, output][0]),
            }
        return output

    return note


def count_macs(own: Mapping[str, Any], output: Any) -> int:
    """Count a layer's multiply-accumulates: its kernels at each place of its output.

    A kernel of more than four axes has weights of its own for each place.

    Args:
        own: the layer's parameters, or their shapes, by name.
        output: [N, ..., O], or its shape.
    """
    places = output.size // (output.shape[0] * output.shape[-1])
    kernels = [leaf for name, leaf in own.items() if is_kernel(name)]
    return sum(x.size * (1 if x.ndim > 4 else places) for x in kernels)


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
