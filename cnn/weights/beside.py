"""What files beside weights say of them: of how images are made, and of classes.

`config.json` of timm (with its `pretrained_cfg`), `config.json` and
`preprocessor_config.json` of transformers, and `model.json` of `--mode=export`.

Sources: timm.data.config and timm.data.transforms_factory; transformers' image
processors of ConvNeXT, EfficientNet, MobileNetV2.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn import option
from cnn.checkpoints import workdir
from cnn.data.names import check_class_names
from cnn.data.options import DataOptions
from cnn.errors import UserError

# What the Hub calls the weights of a repository, the best first.
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
_MALFORMED = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
)
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclasses.dataclass(frozen=True)
class Stated:
    """What is said of weights.

    Attributes:
        file: that says it, for messages.
        architecture: as its library calls it.
        options: of `DataOptions`, by name, those that are said: `image_size`,
            `channels`, `resize_mode`, `resize_size`, `resize_interpolation`, `mean`,
            `std`.
        class_names: in the order of the logits; empty where classes are numbers.
    """

    file: str
    architecture: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def describe(self) -> str:
        """Write what is said of images, in flags."""
        return " ".join(
            f"--{n}={option.format_value(x)}" for n, x in self.options.items()
        )


def read(weights: Path, is_theirs: bool) -> Stated | None:
    """Read what stands beside weights; None where nothing known does.

    Args:
        weights: a file, or a directory of orbax.
        is_theirs: whether a `config.json` there is of these weights, whatever they are
            called. Of others than `WEIGHTS` it may be, so that it is asked about the
            architecture alone.

    Raises:
        UserError: a file there is no JSON, or its numbers make no sense.
    """
    own, theirs = weights.with_name("model.json"), weights.with_name("config.json")
    if own.is_file() and _lists(own, weights.name):
        path, reader = own, _read_own
    elif theirs.is_file():
        path, reader = theirs, _read_config
    else:
        return None
    content = _read_mapping(path)
    try:
        found = reader(path, content)
        if found:
            _check(path, found)
    except _MALFORMED as error:
        raise _refuse(path, repr(error)) from None
    if found is None or path is own or is_theirs or weights.name in WEIGHTS:
        return found
    return Stated(found.file, found.architecture)


def _lists(path: Path, name: str) -> bool:
    """Return whether a `model.json` is that of a file."""
    files = _read_mapping(path).get("files")
    return isinstance(files, dict) and name in files


def _refuse(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path}, beside the weights, is not what it seems ({problem}); mend it or "
        "move it away"
    )


def _check(path: Path, found: Stated) -> None:
    """Check what is said as if flags had said it.

    Raises:
        UserError: a number is out of range, or a name is no text.
    """
    names = (found.architecture, *found.class_names)
    if not all(isinstance(name, str) for name in names):
        raise _refuse(path, "a name that is no text")
    try:
        option.check(option.read_group(DataOptions, found.options))
        check_class_names(found.file, found.class_names)
    except UserError as error:
        raise _refuse(path, str(error)) from None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        found = workdir.read_json(path)
    except UserError as error:
        raise UserError(
            f"{error}; it stands beside the weights: mend it or move it away"
        ) from None
    return found if isinstance(found, dict) else {}


def _read_own(path: Path, found: Mapping[str, Any]) -> Stated:
    """Read the `model.json` of an export."""
    seen = found["input"]
    height, width = seen["image_size"]
    options = {"mean": tuple(seen["mean"]), "std": tuple(seen["std"])}
    if height == width:
        sizes = {n: seen[n] for n in ("resize_mode", "resize_size")}
        interpolation = {"resize_interpolation": seen["interpolation"]}
        options = (
            {"image_size": height, "channels": seen["channels"]}
            | sizes
            | interpolation
            | options
        )
    names = tuple(found["classes"]) if found["classes_are_named"] else ()
    return Stated(path.name, "", options, names)


def _read_config(path: Path, found: Mapping[str, Any]) -> Stated | None:
    """Read the `config.json` of timm or of transformers."""
    if "architecture" in found:
        published = found.get("pretrained_cfg") or found
        names = tuple(map(str, found.get("label_names") or ()))
        return Stated(path.name, found["architecture"], _read_timm(published), names)
    if "architectures" not in found:
        return None
    labels = found.get("id2label") or {}
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    if all(name == f"LABEL_{i}" for i, name in enumerate(names)):
        names = ()
    beside = path.with_name("preprocessor_config.json")
    architecture = " ".join(found["architectures"] or ())
    if not beside.is_file():
        return Stated(path.name, architecture, {}, names)
    options = _read_processor(_read_mapping(beside))
    return Stated(f"{path.name} and {beside.name}", architecture, options, names)


def _read_timm(found: Mapping[str, Any]) -> dict[str, Any]:
    options = _take_scaling(found.get("mean"), found.get("std"))
    channels, height, width = found.get("input_size") or (3, 0, 0)
    share, mode = found.get("crop_pct") or 0.875, found.get("crop_mode") or "center"
    interpolation = found.get("interpolation") or "bilinear"
    known = interpolation in _RESAMPLING.values() and (
        mode == "center" or (mode == "squash" and share == 1)
    )
    if height != width or not height or not known:
        return options
    resized = 0 if mode == "squash" else math.floor(height / share)
    return {
        "image_size": height,
        "channels": channels,
        "resize_mode": "squash" if mode == "squash" else "crop",
        "resize_size": resized,
        "resize_interpolation": interpolation,
    } | options


def _read_processor(found: Mapping[str, Any]) -> dict[str, Any]:
    kind = found.get("image_processor_type") or found.get("feature_extractor_type", "")
    mean, std = found.get("image_mean"), found.get("image_std")
    options = {}
    if found.get("do_normalize", True) and std:
        if kind.startswith("EfficientNet") and found.get("include_top", True):
            std = [x * x for x in std]  # it divides by them twice
        if not found.get("rescale_offset"):
            options = _take_scaling(mean, std)
    size, interpolation = (
        found.get("size") or {},
        _RESAMPLING.get(found.get("resample", 2)),
    )
    sizes = _read_sizes(kind, size, found)
    if not sizes or not interpolation or not found.get("do_resize", True):
        return options
    return {**sizes, "resize_interpolation": interpolation} | options


def _read_sizes(kind: str, size: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return image_size, resize_mode and resize_size; empty where none gives that."""
    shorter = size if isinstance(size, int) else size.get("shortest_edge", 0)
    if kind.startswith("ConvNext"):
        if shorter >= 384:
            return {"image_size": shorter, "resize_mode": "squash", "resize_size": 0}
        resized = int(shorter / found.get("crop_pct", 224 / 256))
        return {"image_size": shorter, "resize_mode": "crop", "resize_size": resized}
    if found.get("do_center_crop"):
        crop = found.get("crop_size")
        sides = (
            (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        )
        if not shorter or sides[0] != sides[1]:
            return {}
        return {"image_size": sides[0], "resize_mode": "crop", "resize_size": shorter}
    sides = (
        (size, size)
        if isinstance(size, int)
        else (size.get("height", 0), size.get("width", 0))
    )
    if sides[0] != sides[1] or not sides[0]:
        return {}
    return {"image_size": sides[0], "resize_mode": "squash", "resize_size": 0}


def _take_scaling(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> dict[str, Any]:
    if not mean or not std:
        return {}
    return {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
