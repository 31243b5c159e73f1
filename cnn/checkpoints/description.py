"""What a checkpoint says of itself, and what in it cannot be: description.json.

The checksums of a checkpoint keep damage out; here is kept out what was never true.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from cnn import config
from cnn.checkpoints import form
from cnn.errors import UserError

# What else than a run's the checkpoint of a directory may hold, by what it says.
UNTRAINED = {
    "average": "a mean of several runs",
    "num_batches_tracked": "converted weights",
}
# Of an image; one of more pixels is no image that was ever trained on.
_MOST_PIXELS = 2**28
_DATA = {
    "fingerprint": str,
    "dataset": str,
    "class_names": [str],
    "parts": {"*": {"count": int, "fingerprint": str, "*": object}},
    "changes": [{"from": str, "*": object}],
    "*": object,
}
_FORM = {
    "options": {"model": str, "dataset": str, "ema_decay": float, "*": object},
    "class_names": [str],
    "image_shape": [int],
    "mean": [float],
    "std": [float],
    "records": {"best_step": int, "*": object},
    "classes_are_named?": bool,
    "thresholds?": [float],
    "task?": str,
    "num_batches_tracked?": int,
    "average?": object,
    "environment?": {
        "versions?": {"*": str},
        "environment_variables?": {"*": str},
        "*": object,
    },
    "data?": _DATA,
    "transfer?": {
        "frozen?": {"*": str},
        "reset?": [str],
        "adapted?": [str],
        "*": str,
    },
    "teacher?": {
        "source": str,
        "model": str,
        "mean": [float],
        "std": [float],
        "sha256": str,
        "*": object,
    },
    "*": object,
}


def find_problem(found: Any) -> str:
    """Say what of a description cannot be; empty when nothing is wrong."""
    problem = form.find_problem(found, _FORM)
    if problem:
        return problem
    shape, classes = found["image_shape"], len(found["class_names"])
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > _MOST_PIXELS:
        return f"image_shape {str(shape)[:60]} is no shape of images"
    for name in ("mean", "std"):
        numbers = found[name]
        if len(numbers) not in (1, shape[2]) or not all(map(math.isfinite, numbers)):
            return f"{name} is not a number for each of {shape[2]} channels"
    if min(found["std"]) <= 0:
        return "std is not positive"
    if not classes:
        return "class_names are missing"
    thresholds = found.get("thresholds")
    if thresholds is not None and (
        len(thresholds) != classes or not all(0 <= x <= 1 for x in thresholds)
    ):
        return f"thresholds are not a probability for each of {classes} classes"
    try:
        config.check_stored(found["options"])
    except UserError as error:
        return str(error)
    return ""


def read_dataclass(kind: type, found: Mapping[str, Any]) -> Any:
    """Make a dataclass of numbers of a JSON object; what is absent takes its default.

    Args:
        kind: the dataclass, whose fields are of forms, or of such dataclasses or None.

    Raises:
        ValueError: naming the value that is of another type, or that is unknown.
    """
    types = typing.get_type_hints(kind)
    inner = {name: _find_dataclass(types[name]) for name in types}
    plain = {f"{name}?": x for name, x in types.items() if inner[name] is None}
    nested = {f"{x}?": object for x in types if inner[x] is not None}
    if problem := form.find_problem(found, plain | nested):
        raise ValueError(problem)
    made = {
        name: read_dataclass(inner[name], x) if inner[name] and x is not None else x
        for name, x in found.items()
    }
    return kind(**made)


def _find_dataclass(kind: Any) -> type | None:
    found = (kind, *typing.get_args(kind))
    return next((x for x in found if dataclasses.is_dataclass(x)), None)
