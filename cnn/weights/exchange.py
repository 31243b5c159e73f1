"""A state dict, or leaves of Flax, turned into variables; and back to a state dict.

Every tensor is accounted for.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from cnn import models, option
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.models import published
from cnn.models.options import ModelOptions
from cnn.models.variables import flatten_paths
from cnn.weights import big_transfer, flax_example, leaf, names
from cnn.weights.spelling import Spelling

_SHOWN = 8
# The models that Flax's imagenet example has, and how its weights are told.
_EXAMPLE, _FIRST = r"resnet(18|34|50|101|152)", "params/conv_init/kernel"
_BIT = r"bit_r\d+x\d+"
Scaling = tuple[tuple[float, ...], tuple[float, ...]]


def choose_spelling(
    model: str, shapes: Mapping[str, Any], state_dict: Mapping[str, Any]
) -> tuple[Spelling, list[names.Entry]]:
    """Choose the spelling of which the most names are in a state dict."""
    spellings, entries = names.get_spellings(model), names.list_spellings(model, shapes)
    return max(
        zip(spellings, entries, strict=True),
        key=lambda pair: sum(entry.name in state_dict for entry in pair[1]),
    )


def name_leaves(
    model: str, shapes: Mapping[str, Any], leaves: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Spelling | None]:
    """Bring leaves of Flax's codebases that are known under our names.

    Args:
        shapes: of our leaves, by path.

    Returns:
        The leaves, those that are unknown by their own names; and the spelling, if
        they were in one.
    """
    if re.fullmatch(_EXAMPLE, model) and _FIRST in leaves:
        spelling = flax_example.spell_resnet(shapes)
        ours = names.list_paths(spelling, shapes)
        return {ours.get(name, name): x for name, x in leaves.items()}, spelling
    if re.fullmatch(_BIT, model) and big_transfer.FIRST in leaves:
        spelling = big_transfer.spell_bit(shapes)
        ours = names.list_paths(spelling, shapes)
        found = {ours.get(name, name): x for name, x in leaves.items()}
        if (head := "params/head/kernel") in found:
            found[head] = big_transfer.squeeze_head(found[head])
        return found, spelling
    return leaves, None


def count_classes(
    model: str,
    shapes: Mapping[str, Any],
    state_dict: Mapping[str, np.ndarray],
    head: str = "head",
) -> int:
    """Read the number of classes off the bias of the head; 0 where it has none."""
    for entry in choose_spelling(model, shapes, state_dict)[1]:
        if entry.path == f"params/{head}/bias" and entry.name in state_dict:
            return math.prod(state_dict[entry.name].shape)
    return 0


def count_outputs(leaves: Mapping[str, Any], head: str = "head") -> int:
    """Read the number of classes off a head under our names; 0 where it has none."""
    for name in ("bias", "kernel"):
        found = leaves.get(f"params/{head}/{name}")
        if found is not None and found.shape:
            return found.shape[-1]
    return 0


def import_leaves(
    model: str, shapes: Any, leaves: Mapping[str, Any], source: str, choices: str = ""
) -> dict[str, Any]:
    """Turn leaves under our names into variables, read once all of them fit.

    Args:
        leaves: by our paths, with their collection.
        source: what they are called in messages.
        choices: the model's options as flags, for messages.

    Returns:
        `params` and `batch_stats`, float32 numpy.

    Raises:
        UserError: leaves are missing, unexpected, of another shape or dtype, each kind
            listed separately; or they hold NaN or infinity.
    """
    wanted = {path: x.shape for path, x in flatten_paths(shapes).items()}
    problems = _compare(wanted, leaves)
    if problems:
        more = "; or rename them with --init_rename"
        raise _refuse(problems, source, model, choices, more)
    arrays = {path: _read(path, leaves[path], source) for path in wanted}
    return {"params": {}, "batch_stats": {}} | unflatten_dict(arrays, sep="/")


def import_state_dict(
    model: str,
    shapes: Any,
    state_dict: Mapping[str, np.ndarray],
    source: str,
    choices: str = "",
) -> dict[str, Any]:
    """Turn a state dict into variables.

    Args:
        state_dict: tensors by PyTorch's names; other precision becomes float32.
        source: what the file is called in messages.
        choices: the model's options as flags, for messages.

    Returns:
        `params` and `batch_stats`, float32 numpy.

    Raises:
        UserError: tensors are missing, unexpected, of another shape or no
            floating-point numbers: each kind listed separately.
    """
    flat = flatten_paths(shapes)
    _, entries = choose_spelling(model, flat, state_dict)
    wanted = {entry.name: entry.torch_shape for entry in entries}
    ignored = set(names.list_counters(entries))
    given = {name: x for name, x in state_dict.items() if name not in ignored}
    if problems := _compare(wanted, given):
        raise _refuse(problems, source, model, choices)
    arrays = {
        e.path: e.layout.from_torch(_read(e.name, state_dict[e.name], source), e.shape)
        for e in entries
    }
    return {"params": {}, "batch_stats": {}} | unflatten_dict(arrays, sep="/")


def export_state_dict(
    model: str,
    variables: Any,
    num_batches: int,
    options: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Turn variables into a state dict, in the names of a library that has the model.

    Args:
        num_batches: what each normalisation's `num_batches_tracked` says.
        options: of the model, by name, which choose among libraries.
    """
    flat = flatten_paths(variables)
    spelling = names.choose_written(model, options or {})
    entries = names.list_entries(model, flat, spelling)
    found = {e.name: e.layout.to_torch(np.asarray(flat[e.path])) for e in entries}
    counter = np.asarray(num_batches, np.int64)
    return found | {name: counter for name in names.list_counters(entries)}


def _read(name: str, array: Any, source: str) -> np.ndarray:
    """Read an array as float32, and refuse what no network computes with."""
    found = leaf.to_float32(array)
    # The sum is finite where all are, and takes no memory as `isfinite` of all does.
    if not np.isfinite(np.sum(found, dtype=np.float64)):
        bad = int(np.sum(~np.isfinite(found)))
        raise UserError(
            f"{source}: {name} holds {bad} numbers that are NaN or infinite; "
            "nothing was written. Give an earlier checkpoint"
        )
    return found


def _refuse(
    problems: Mapping[str, list[str]],
    source: str,
    model: str,
    choices: str,
    more: str = "",
) -> UserError:
    if choices:  # of which nobody may have typed some
        model = f"{model} with {choices} (by flags or by the preset)"
    lists = "".join(f"\n  {kind}: {_shorten(x)}" for kind, x in problems.items())
    return UserError(
        f"{source} does not fit --model={model}; nothing was written. Give the model "
        f"that it was saved from, with its options, or --num_classes{more}.{lists}"
    )


def _compare(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]
) -> dict[str, list[str]]:
    """List what differs between wanted shapes and given arrays, by kind."""
    problems = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "differently shaped": [],
        "of another dtype": [],
    }
    for name in sorted(wanted.keys() & given.keys()):
        array, shape = given[name], wanted[name]
        if tuple(array.shape) != tuple(shape):
            text = f"{name} is {list(array.shape)}, not {list(shape)}"
            problems["differently shaped"].append(text)
        if not leaf.is_readable(array):
            text = f"{name} is {array.dtype}, no float of 16, 32 or 64 bits"
            problems["of another dtype"].append(text)
    return {kind: found for kind, found in problems.items() if found}


def _shorten(found: list[str]) -> str:
    more = f", … ({len(found)} in all)" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def choose_scaling(data: DataOptions, options: ModelOptions, channels: int) -> Scaling:
    """Return mean and std of each channel, as a file's weights were trained with.

    Args:
        data: `scaling`, `mean` and `std` of the user; where those are not given,
            colour models for ImageNet have those of their oldest published weights,
            or ImageNet's.
        options: of the model.

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
    size, _, _ = models.get_published_input(options.model, options.stem)
    if size >= 224:
        entry = published.PUBLISHED.get(options.model)
        weights = entry.weights[0] if entry and entry.weights else published.Weights("")
        if channels == len(weights.mean):
            mean, std = mean or weights.mean, std or weights.std
        elif len({*weights.mean}) == len({*weights.std}) == 1:  # of any channel
            mean, std = mean or weights.mean[:1], std or weights.std[:1]
    for name, given in (("mean", mean), ("std", std)):
        if len(given) not in (1, channels):
            raise UserError(
                f"--{name}={option.format_value(given)}: give the {channels} numbers "
                "that the weights were trained with, or --scaling=unit"
            )
    mean, std = (tuple(np.broadcast_to(x, channels).tolist()) for x in (mean, std))
    return mean, std
