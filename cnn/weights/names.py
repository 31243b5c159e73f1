"""Which tensor of a PyTorch state dict is which of our arrays, for every model.

The same entries serve import and export, so that one undoes the other. Our paths are
`params/stage2_block1/conv1/kernel` and `batch_stats/stem_norm/mean`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from cnn.weights import layouts, tables

COUNTER = "num_batches_tracked"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family's arrays are written in PyTorch.

    Attributes:
        models: pattern of the models' names.
        list_spellings: a model's tables, of `tables`; the first is written.
        flattened: for dense layers that follow a flattening, by path, the side in
            pixels of what is flattened: PyTorch orders it C, H, W and we H, W, C.
    """

    models: str
    list_spellings: Callable[[str], list[tables.Spelling]]
    flattened: Mapping[str, int] = dataclasses.field(default_factory=dict)


FAMILIES = (
    Family(r"resnet(20|32|44|56|110)", tables.list_cifar_resnet),
    Family(r"(wide_)?resne(x)?t\d+(_\w+)?", tables.list_resnet),
    Family(r"wrn_\d+_\d+", tables.list_wide_resnet),
    Family("alexnet", tables.list_alexnet, {"dense1": 6}),
    Family(r"vgg\d+(_bn)?", tables.list_vgg, {"dense1": 7}),
    Family(r"densenet\d+", tables.list_densenet),
    Family("squeezenet1_1", tables.list_squeezenet),
    Family("mobilenet_v2", tables.list_mobilenet),
    Family("efficientnet_b0", tables.list_efficientnet),
    Family("convnext_tiny", tables.list_convnext),
    Family(r".+", tables.list_own),
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array on both sides.

    Attributes:
        path: ours.
        name: PyTorch's.
        shape: ours.
        layout: how one becomes the other.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    layout: layouts.Layout

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Return PyTorch's shape."""
        return self.layout.torch_shape(self.shape)


def list_spellings(model: str, arrays: Mapping[str, Any]) -> list[list[Entry]]:
    """List the names of a model's arrays in PyTorch, in each spelling known.

    Args:
        model: its name.
        arrays: its arrays or their shapes, by path.

    Returns:
        For each spelling an entry an array, in the order of `arrays`. The first is
        the spelling that is written.
    """
    family = next(f for f in FAMILIES if re.fullmatch(f.models, model))
    return [
        [
            _make_entry(path, array.shape, rules, family)
            for path, array in arrays.items()
        ]
        for rules in family.list_spellings(model)
    ]


def has_torch_class(model: str) -> bool:
    """Return whether a PyTorch library has the model, under names of its own."""
    family = next(f for f in FAMILIES if re.fullmatch(f.models, model))
    return family.list_spellings is not tables.list_own


def list_counters(entries: list[Entry]) -> list[str]:
    """List the names of PyTorch's `num_batches_tracked`, one a normalisation."""
    suffix = "running_mean"
    names = [entry.name for entry in entries if entry.name.endswith(suffix)]
    return [name.removesuffix(suffix) + COUNTER for name in names]


def _make_entry(
    path: str, shape: tuple[int, ...], rules: tables.Spelling, family: Family
) -> Entry:
    _, _, inside = path.partition("/")
    module, _, leaf = inside.rpartition("/")
    for pattern, template, *reshaped in rules:
        if match := re.fullmatch(pattern, module):
            name = f"{_fill(template, match)}.{_LEAVES.get(leaf, leaf)}"
        elif match := re.fullmatch(pattern, inside):
            name = _fill(template, match)
        else:
            continue
        side = family.flattened.get(module, 0) if leaf == "kernel" else 0
        there = reshaped[0] if reshaped else None
        kind = "kernel" if leaf == "kernel" else "other"
        return Entry(path, name, shape, layouts.Layout(kind, side, there))
    raise AssertionError(f"{path} is in no rule of its family's table")


def _fill(template: str, match: re.Match) -> str:
    def value(found: re.Match) -> str:
        group, less = match[int(found[1])], found[2]
        return str(int(group) - int(less)) if less else group.replace("/", ".")

    return re.sub(r"\{(\d)(?:-(\d))?\}", value, template)
