"""A state dict turned into a model's variables and back, every tensor accounted for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import unflatten_dict

from cnn import models, option
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.weights import names, safetensors_file, torch_file

_READABLE = (np.float32, np.float16, ml_dtypes.bfloat16)
_SHOWN = 8
Scaling = tuple[tuple[float, ...], tuple[float, ...]]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_file(path: Path) -> dict[str, np.ndarray]:
    """Load a state dict from a PyTorch or safetensors file.

    Raises:
        UserError: the file is absent, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise UserError(
            f"--source={path} is no file; give a .pth, .th, .pt or .safetensors file"
        )
    if path.suffix == ".safetensors":
        return safetensors_file.load_safetensors(path)
    return torch_file.load_torch_file(path)


def choose_spelling(
    model: str, shapes: Mapping[str, Any], state_dict: Mapping[str, np.ndarray]
) -> list[names.Entry]:
    """Choose the spelling of which the most names are in a state dict."""
    spellings = names.list_spellings(model, shapes)
    return max(
        spellings, key=lambda entries: sum(e.name in state_dict for e in entries)
    )


def count_classes(
    model: str,
    shapes: Mapping[str, Any],
    state_dict: Mapping[str, np.ndarray],
    head: str = "head",
) -> int:
    """Read the number of classes off the bias of the head; 0 where it has none."""
    for entry in choose_spelling(model, shapes, state_dict):
        if entry.path == f"params/{head}/bias" and entry.name in state_dict:
            return state_dict[entry.name].size
    return 0


def import_state_dict(
    model: str, shapes: Any, state_dict: Mapping[str, np.ndarray], source: str
) -> dict[str, Any]:
    """Turn a state dict into variables.

    Args:
        state_dict: tensors by PyTorch's names; half precision is widened.
        source: what the file is called in messages.

    Returns:
        `params` and `batch_stats`, float32 numpy.

    Raises:
        UserError: tensors are missing, unexpected, of another shape or no
            floating-point numbers: each kind listed separately.
    """
    flat = flatten_paths(shapes)
    entries = choose_spelling(model, flat, state_dict)
    problems = _find_problems(entries, state_dict)
    if problems:
        lists = "".join(f"\n  {kind}: {_shorten(x)}" for kind, x in problems.items())
        raise UserError(
            f"{source} does not fit --model={model}; nothing was written. Give the "
            f"model that it was saved from, or --num_classes.{lists}"
        )
    arrays = {
        e.path: e.layout.from_torch(state_dict[e.name].astype(np.float32), e.shape)
        for e in entries
    }
    return {"params": {}, "batch_stats": {}} | unflatten_dict(arrays, sep="/")


def export_state_dict(
    model: str, variables: Any, num_batches: int
) -> dict[str, np.ndarray]:
    """Turn variables into a state dict, in torchvision's names where it has the model.

    Args:
        num_batches: what each normalisation's `num_batches_tracked` says.
    """
    flat = flatten_paths(variables)
    entries = names.list_spellings(model, flat)[0]
    found = {e.name: e.layout.to_torch(np.asarray(flat[e.path])) for e in entries}
    counter = np.asarray(num_batches, np.int64)
    return found | {name: counter for name in names.list_counters(entries)}


def _find_problems(
    entries: list[names.Entry], state_dict: Mapping[str, np.ndarray]
) -> dict[str, list[str]]:
    wanted = {entry.name: entry for entry in entries}
    ignored = set(names.list_counters(entries))
    problems = {
        "missing": sorted(wanted.keys() - state_dict.keys()),
        "unexpected": sorted(state_dict.keys() - wanted.keys() - ignored),
        "differently shaped": [],
        "of another dtype": [],
    }
    for name in sorted(wanted.keys() & state_dict.keys()):
        array, shape = state_dict[name], wanted[name].torch_shape
        if array.shape != shape:
            text = f"{name} is {list(array.shape)}, not {list(shape)}"
            problems["differently shaped"].append(text)
        if array.dtype not in _READABLE:
            text = f"{name} is {array.dtype}, not float32, float16 or bfloat16"
            problems["of another dtype"].append(text)
    return {kind: found for kind, found in problems.items() if found}


def _shorten(found: list[str]) -> str:
    more = f", … ({len(found)} in all)" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def choose_scaling(data: DataOptions, model: str, channels: int) -> Scaling:
    """Return mean and std of each channel, as a file's weights were trained with.

    Args:
        data: `scaling`, `mean` and `std` of the user; where those are not given,
            colour models for ImageNet have ImageNet's.

    Returns:
        mean [C] and std [C], in the units of images in [0, 1].

    Raises:
        UserError: they are neither given nor known.
    """
    if data.scaling == "unit":
        return (0.0,) * channels, (1.0,) * channels
    if data.scaling == "symmetric":
        return (0.5,) * channels, (0.5,) * channels
    mean, std = data.mean, data.std
    is_imagenet = models.get_published_input(model)[0] >= 224
    if is_imagenet and channels == 3:
        mean, std = mean or _IMAGENET_MEAN, std or _IMAGENET_STD
    for name, given in (("mean", mean), ("std", std)):
        if len(given) not in (1, channels):
            raise UserError(
                f"--{name}={option.format_value(given)}: give the {channels} numbers "
                "that the weights were trained with, or --scaling=unit"
            )
    mean, std = (tuple(np.broadcast_to(x, channels).tolist()) for x in (mean, std))
    return mean, std
