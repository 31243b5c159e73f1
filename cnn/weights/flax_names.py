"""Flax's names of arrays brought under ours: `params/stem/kernel`, `batch_stats/…`.

Trees of linen have the two collections, those of nnx keep a normalisation's running
statistics beside its parameters, and flat files write `a/b/kernel` or `a.b.kernel`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

COLLECTIONS = ("params/", "batch_stats/")
_STATISTICS = ("mean", "var")
_VALUES = ("value", "raw_value")
# Last parts of PyTorch's names, which no array of Flax has.
_TORCH = {"weight", "running_mean", "num_batches_tracked"}


def is_flax(names: Iterable[str]) -> bool:
    """Return whether the arrays of a flat file have Flax's names, not PyTorch's."""
    last = {re.split(r"[/.]", name)[-1] for name in names}
    return bool(last & {"kernel", "scale"}) and not last & _TORCH


def unwrap_variables(node: Any) -> Any:
    """Put arrays in place of the variables of nnx that hold them, in a whole tree."""
    if not isinstance(node, Mapping):
        return node
    if len(node) == 1 and (name := next(iter(node))) in _VALUES:
        if not isinstance(node[name], Mapping):
            return node[name]
    return {name: unwrap_variables(inner) for name, inner in node.items()}


def name_by_collections(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Name the arrays of a set as ours are, with their collection.

    Args:
        leaves: by their path in the set, `a/b/kernel` or `a.b.kernel`.

    Returns:
        In the same order; each name is there once.
    """
    if not any("/" in name for name in leaves):
        leaves = {name.replace(".", "/"): leaf for name, leaf in leaves.items()}
    if any(name.startswith(COLLECTIONS) for name in leaves):
        return dict(leaves)
    joined = _join_parts(leaves)
    return {f"{_find_collection(name)}{name}": leaf for name, leaf in joined.items()}


def split_collection(name: str) -> tuple[str, str]:
    """Split `params/head/bias` into `params/` and the rest; other names have none."""
    for collection in COLLECTIONS:
        if name.startswith(collection):
            return collection, name.removeprefix(collection)
    return "", name


def _find_collection(name: str) -> str:
    return COLLECTIONS[name.rpartition("/")[2] in _STATISTICS]


def _join_parts(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Join the parts that `nnx.split` returns: parameters `0/…`, statistics `1/…`."""
    parts: dict[str, set[str]] = {}
    for name in leaves:
        first, _, rest = name.partition("/")
        parts.setdefault(first, set()).add(_find_collection(rest))
    plain = {name.partition("/")[2]: leaf for name, leaf in leaves.items()}
    is_split = all(first.isdecimal() for first in parts) and any(
        found == {COLLECTIONS[1]} for found in parts.values()
    )
    return plain if is_split and len(plain) == len(leaves) else dict(leaves)
