"""The strict merge: a source's arrays into a model, every leaf of both accounted for.

Leaves are compared by path, shape and dtype before anything is taken over; what
does not fit is refused leaf by leaf (`explain`).
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict
from rich.table import Table

from cnn.config import Config
from cnn.data.images import Dataset
from cnn.errors import UserError
from cnn.models import auxiliary
from cnn.optim import paths
from cnn.runtime.terminal import Terminal
from cnn.transfer.options import TransferOptions
from cnn.transfer.source import Source
from cnn.weights import exchange, leaf, names
from cnn.weights.flax_names import split_collection
from cnn.weights.renaming import rename
from cnn.weights.spelling import Spelling

Arrays = Mapping[str, np.ndarray | leaf.Leaf]
_MOST_CHANNELS = 4  # of images
PROBLEMS = ("missing", "unexpected", "differently shaped", "of another dtype")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A source beside a model.

    Attributes:
        shapes: our leaves' shapes and dtypes by path.
        theirs: the source's arrays by our path, or by its own name where we have none.
        entries: for files, how our leaves are written there, by our path.
        kinds: the leaves of each kind by name: `restored` and `adapted` hold what is
            taken, `reset` and `skipped` what a flag explains, the others what is wrong.
        spelling: whose names the source has; None where they are no library's.
        absent: the auxiliary classifiers that the source was written without; they
            are drawn at random.
    """

    source: Source
    shapes: Mapping[str, Any]
    theirs: Arrays
    entries: Mapping[str, names.Entry]
    kinds: dict[str, dict[str, Any]]
    spelling: Spelling | None
    absent: tuple[str, ...] = ()

    @functools.cached_property
    def taken(self) -> dict[str, np.ndarray]:
        """The arrays that are taken, by our path; only now are all of them read."""
        restored = {path: leaf.read(x) for path, x in self.kinds["restored"].items()}
        return restored | self.kinds["adapted"]


def compare(
    source: Source,
    model: str,
    shapes: Mapping[str, Any],
    layers: Sequence[str],
    options: TransferOptions,
    reset: Collection[str],
) -> Comparison:
    """Compare a source with a model, leaf by leaf.

    Args:
        options: `init_rename` and `init_skip` explain what differs.
        reset: our paths, without collection, that are drawn at random.

    Raises:
        UserError: a pattern of an option is malformed or means nothing.
    """
    theirs = rename(source.arrays, options.init_rename)
    insides = {split_collection(name)[1] for name in theirs}
    skipped = paths.select(options.init_skip, insides, "init_skip")
    kinds: dict[str, dict[str, Any]] = {"restored": {}, "adapted": {}, "reset": {}}
    kinds["skipped"] = {
        name: x for name, x in theirs.items() if split_collection(name)[1] in skipped
    }
    kinds |= {problem: {} for problem in PROBLEMS}
    theirs = {name: x for name, x in theirs.items() if name not in kinds["skipped"]}
    entries: list[names.Entry] = []
    if source.is_file:
        spelling, entries = exchange.choose_spelling(model, shapes, theirs)
        theirs = _translate(entries, theirs)
    else:
        theirs, spelling = exchange.name_leaves(model, shapes, theirs)
    ours, found = ([split_collection(x)[1] for x in each] for each in (shapes, theirs))
    absent = auxiliary.list_absent(ours, found)
    reset = {*reset, *absent}
    for path, here in shapes.items():
        if split_collection(path)[1] in reset:
            kinds["reset"][path] = here
        else:
            kind, found = _compare_leaf(path, theirs.get(path), here, layers)
            kinds[kind][path] = found
    kinds["unexpected"] = {name: x for name, x in theirs.items() if name not in shapes}
    by_path = {entry.path: entry for entry in entries}
    layers_absent = tuple(sorted(auxiliary.list_layers(absent)))
    return Comparison(source, shapes, theirs, by_path, kinds, spelling, layers_absent)


def _compare_leaf(
    path: str, there: np.ndarray | leaf.Leaf | None, here: Any, layers: Sequence[str]
) -> tuple[str, Any]:
    """Return the kind of a leaf, and what is taken or shown of it."""
    if there is None:
        return "missing", here
    if there.dtype != here.dtype:
        return "of another dtype", there
    if there.shape == here.shape:
        return "restored", there
    fitted = _fit_channels(path, there, here, layers)
    return ("differently shaped", there) if fitted is None else ("adapted", fitted)


def make_table(kinds: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make the table of kinds of leaves: how many, their numbers and bytes."""
    table = Table(box=None, pad_edge=False)
    table.add_column("leaves")
    for name in ("count", "numbers", "bytes"):
        table.add_column(name, justify="right")
    for kind, leaves in kinds.items():
        sizes = [int(np.prod(x.shape)) for x in leaves.values()]
        widths = [getattr(x.dtype, "itemsize", 0) for x in leaves.values()]
        total = sum(size * width for size, width in zip(sizes, widths, strict=True))
        table.add_row(kind, f"{len(leaves):,}", f"{sum(sizes):,}", f"{total:,}")
    return table


def find_resets(
    patterns: tuple[str, ...], shapes: Mapping[str, Any], default: str, head: str
) -> set[str]:
    """Return the paths, without collection, that are drawn at random.

    Args:
        patterns: `--init_reset`; empty: the layer `default`, if any; none: nothing.
        head: the last layer; with it go the heads of auxiliary classifiers.

    Raises:
        UserError: a pattern means nothing.
    """
    insides = {split_collection(path)[1] for path in shapes}
    if patterns == ("none",):
        return set()
    if patterns:
        found = paths.select(patterns, insides, "init_reset")
    else:
        found = {path for path in insides if path.split("/")[0] == default}
    with_head = any(path.split("/")[0] == head for path in found)
    return found | auxiliary.list_heads(insides) if with_head else found


def nest(arrays: Arrays) -> dict[str, Any]:
    """Return arrays by path as nested dicts."""
    return unflatten_dict(arrays, sep="/")


def _translate(spelling: list[names.Entry], arrays: Arrays) -> dict[str, Any]:
    """Bring PyTorch's arrays under our names; those that are unknown keep theirs."""
    counters = names.list_counters(spelling)
    rest = {name: x for name, x in arrays.items() if name not in counters}
    found = {}
    for entry in spelling:
        if entry.name not in rest:
            continue
        array = rest.pop(entry.name)
        if tuple(array.shape) == entry.torch_shape and leaf.is_readable(array):
            array = entry.layout.from_torch(leaf.read(array), entry.shape)
        elif entry.layout.kind == "kernel" and len(array.shape) >= 2:
            array = leaf.transpose(array, (*range(2, len(array.shape)), 1, 0))
        found[entry.path] = array
    return found | rest


def _fit_channels(
    path: str, array: np.ndarray | leaf.Leaf, here: Any, layers: Sequence[str]
) -> np.ndarray | None:
    """Fit the first convolution to grey or colour images; None where undefined.

    Colour to grey is the sum over the channels, grey to colour an equal share for
    each, so that a grey image gives what it gave in its other form.
    """
    shape, there = here.shape, array.shape
    is_first = path == f"params/{layers[0]}/kernel" and len(there) == len(shape) == 4
    if not is_first or (*there[:2], there[3]) != (*shape[:2], shape[3]):
        return None
    if shape[2] == 1 and there[2] <= _MOST_CHANNELS:
        return leaf.read(array).sum(axis=2, keepdims=True)
    if there[2] == 1:
        return np.repeat(leaf.read(array) / shape[2], shape[2], axis=2)
    return None


def choose_reset(
    config: Config,
    source: Source,
    shapes: Mapping[str, Any],
    head: str,
    dataset: Dataset,
    terminal: Terminal,
) -> set[str]:
    """Choose what is drawn at random: as the options say, or a head of other classes.

    Args:
        head: the last layer.

    Returns:
        Paths without their collection.

    Raises:
        UserError: the source has the classes in another order and its head is kept.
    """
    patterns, ours = config.transfer.init_reset, dataset.class_names
    theirs = source.class_names
    if theirs:
        differ = theirs != ours
    else:
        count = _count_classes(config, source, shapes, head)
        differ = count != len(ours)
    is_permuted = differ and sorted(theirs) == sorted(ours)
    default = head if differ and not is_permuted else ""
    reset = find_resets(patterns, shapes, default, head)
    if any(path.split("/")[0] == head for path in reset):
        return reset
    if is_permuted:
        raise UserError(
            f"--init_from={source.name} has the classes in another order: "
            f"{', '.join(theirs[:9])} there, {', '.join(ours[:9])} here; bring them "
            f"into its order with --classes, or give --init_reset={head}"
        )
    if differ and theirs:
        terminal.say(f"note      {head} is kept, although the classes have other names")
    elif not theirs:
        terminal.say(
            f"note      the source does not name its classes; {head} is kept, and they "
            "are taken to be in this dataset's order"
        )
    return reset


def _count_classes(
    config: Config, source: Source, shapes: Mapping[str, Any], head: str
) -> int:
    """Return the number of a source's classes; 0 where a file has no head."""
    if source.description:
        return len(source.description["class_names"])
    if source.is_file:
        model = config.model.model
        return exchange.count_classes(model, shapes, source.arrays, head)
    renamed = rename(source.arrays, config.transfer.init_rename)
    named, _ = exchange.name_leaves(config.model.model, shapes, renamed)
    return exchange.count_outputs(named, head)
