"""Which tensor of a PyTorch state dict is which of our arrays, for every model.

The same entries serve import and export, so that one undoes the other. Our paths are
`params/stage2_block1/conv1/kernel` and `batch_stats/stem_norm/mean`.

A tensor becomes one of ours bit for bit: convolution kernels are [S, S, I, O] here and
[O, I, S, S] there; dense kernels [I, O] here and [O, I] there, and behind a flattening
I is in the order H, W, C here and C, H, W there. Everything else has the same order.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cnn.models.options import ModelOptions
from cnn.weights.spelling import Rule, Spelling, Table, check_needs
from cnn.weights.tables import TABLES

COUNTER = "num_batches_tracked"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """One array's order on both sides.

    Attributes:
        kind: `kernel`, or `other` for what is the same on both sides.
        side: of the feature map in pixels, where a dense kernel follows a flattening;
            else 0.
        reshaped: PyTorch's shape, where it is not the usual one; -1 is what is left.
    """

    kind: str
    side: int = 0
    reshaped: tuple[int, ...] | None = None

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return PyTorch's shape of an array of ours."""
        if self.reshaped is not None:
            known = -int(np.prod(self.reshaped))
            rest = int(np.prod(shape)) // known
            return tuple(rest if size == -1 else size for size in self.reshaped)
        return self._canonical_shape(shape)

    def _canonical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.kind == "kernel" and len(shape) == 4:
            return (shape[3], shape[2], shape[0], shape[1])
        if self.kind == "kernel" and len(shape) == 2:
            return (shape[1], shape[0])
        return shape

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Turn our array into PyTorch's."""
        there = self.torch_shape(array.shape)
        if self.kind == "kernel" and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif self.kind == "kernel" and array.ndim == 2:
            if self.side:
                outputs = array.shape[1]
                array = array.reshape(self.side, self.side, -1, outputs)
                array = array.transpose(2, 0, 1, 3).reshape(-1, outputs)
            array = array.T
        return np.ascontiguousarray(array).reshape(there)

    def from_torch(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Turn PyTorch's array into ours, of a given shape: a view if it can be."""
        array = array.reshape(self._canonical_shape(shape))
        if self.kind == "kernel" and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif self.kind == "kernel" and array.ndim == 2:
            array = array.T
            if self.side:
                outputs = array.shape[1]
                array = array.reshape(-1, self.side, self.side, outputs)
                array = array.transpose(1, 2, 0, 3)
        return array.reshape(shape)


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
    layout: Layout

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Return PyTorch's shape."""
        return self.layout.torch_shape(self.shape)


def list_spellings(model: str, arrays: Mapping[str, Any]) -> list[list[Entry]]:
    """List the names of a model's arrays in PyTorch, in each spelling known.

    Returns:
        For each spelling one entry for each array, in the order of `arrays`.
    """
    return [list_entries(model, arrays, x) for x in get_spellings(model)]


def list_entries(
    model: str, arrays: Mapping[str, Any], spelling: Spelling
) -> list[Entry]:
    """List the names of a model's arrays in one spelling, in the order of `arrays`."""
    table, rules = _find_table(model), spelling.rules
    return [_make_entry(path, x.shape, rules, table) for path, x in arrays.items()]


def choose_written(model: str, options: Mapping[str, Any]) -> Spelling:
    """Choose the spelling that a model's weights are written in.

    Args:
        options: of the model, by name. The library whose numbers need them has its
            names, so that no other loads the weights and computes something else.
    """
    spellings = get_spellings(model)
    fitting = (
        x
        for x in spellings
        if x.needs and all(options.get(n) == value for n, value in x.needs.items())
    )
    return next(fitting, spellings[0])


def check_spelling(spelling: Spelling, options: ModelOptions, source: str) -> None:
    """Refuse weights in a spelling whose library computes something else.

    Args:
        options: of the model. They fit if they do for any library of these names: timm
            has some nets with two epsilons.
        source: what the weights are called in the message.

    Raises:
        UserError: naming the flags to type.
    """
    spellings = get_spellings(options.model)
    same = [x.needs for x in spellings if x.rules == spelling.rules]
    given = dataclasses.asdict(options).items()
    if not any(needs.items() <= given for needs in same):
        check_needs(spelling.needs, spelling.library, options, source)


def list_paths(spelling: Spelling, paths: Iterable[str]) -> dict[str, str]:
    """List our paths by what a codebase of Flax calls them.

    Args:
        spelling: names the modules, and leaves, that are called otherwise.
        paths: ours, with their collection.
    """
    found = {}
    for path in paths:
        collection, _, inside = path.partition("/")
        module, _, leaf = inside.rpartition("/")
        name = f"{module}/{leaf}"
        for pattern, template, *_ in spelling.rules:
            if match := re.fullmatch(pattern, module):
                name = f"{_fill(template, match)}/{leaf}"
            elif match := re.fullmatch(pattern, inside):
                name = _fill(template, match)
            if match:
                break
        found[f"{collection}/{name}"] = path
    return found


def get_spellings(model: str) -> list[Spelling]:
    """Return the spellings of a model, in the order of `list_spellings`."""
    return _find_table(model).list_spellings(model)


def _find_table(model: str) -> Table:
    return next(x for x in TABLES if re.fullmatch(x.models, model))


def list_counters(entries: list[Entry]) -> list[str]:
    """List the names of PyTorch's `num_batches_tracked`, one a normalisation."""
    suffix = "running_mean"
    names = [entry.name for entry in entries if entry.name.endswith(suffix)]
    return [name.removesuffix(suffix) + COUNTER for name in names]


def _make_entry(
    path: str, shape: tuple[int, ...], rules: list[Rule], table: Table
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
        side = table.flattened.get(module, 0) if leaf == "kernel" else 0
        there = reshaped[0] if reshaped else None
        kind = "kernel" if leaf == "kernel" else "other"
        return Entry(path, name, shape, Layout(kind, side, there))
    raise AssertionError(f"{path} is in no rule of its family's table")


def _fill(template: str, match: re.Match) -> str:
    def value(found: re.Match) -> str:
        group, less = match[int(found[1])], found[2]
        return str(int(group) - int(less)) if less else group.replace("/", ".")

    return re.sub(r"\{(\d)(?:-(\d))?\}", value, template)
