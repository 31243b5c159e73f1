"""Sets of weights, found in whatever tree a file holds.

A tree is mappings, lists and tuples down to leaves, which have `.shape` and `.dtype`;
everything else in it is left alone. A set is the weights of one model by flat names:
PyTorch's (`layer1.0.conv1.weight`), or paths (`params/stem/kernel`). Its own path says
where in the tree it lies: empty, or `model_ema/state_dict`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cnn.errors import UserError
from cnn.weights.wrapped_names import (
    Leaves,
    is_average,
    is_beside,
    is_holder,
    strip_names,
)

Sets = dict[str, Leaves]

_MOST_LEAVES = 1_000_000
_DEEPEST = 60
# Holders that are layers where others stand beside them.
_PARTS = {"backbone", "encoder", "module"}
_NO_WEIGHTS = re.compile(
    r"opt|optim|(optim|opt)_\w+|(\w+_)?optimi[sz]ers?(_\w+)?|(\w+_)?(lr_)?schedulers?"
    r"(_\w+)?|lr_\w+|(\w+_)?scaler(_\w+)?|amp|callbacks|loops|rng\w*|\w+_rng\w*|"
    r"hyper_parameters|hparams|args|config|metrics?|momentum\w*"
)
# Where flax.optim and big_vision keep the weights.
_OLD = ("optimizer/target", "opt/target")
_STATISTICS = ("batch_stats",)
_AVERAGED_STATISTICS = ("ema_batch_stats", "batch_stats_ema", "ema_stats")


def find_sets(tree: Any, where: str) -> Sets:
    """Find every set of weights in a tree; the optimizer's state is none.

    Args:
        where: what the file is called in messages.

    Returns:
        By path, the leaves by flat name. PyTorch's names are joined by points, all
        others by slashes; `params` and `batch_stats` of one model are one set.

    Raises:
        UserError: the tree has more leaves than any model.
    """
    pruned, count = _prune(tree, {}, 0)
    if count > _MOST_LEAVES:
        raise UserError(
            f"{where} holds {count:,} tensors; {_MOST_LEAVES:,} are allowed"
        )
    sets: Sets = {}
    if isinstance(pruned, dict):
        for path, leaves in _visit(pruned, ()):
            sets["/".join(path)] = leaves
    return sets


def _prune(value: Any, memo: dict[int, Any], depth: int) -> tuple[Any, int]:
    """Return a tree's mappings and leaves alone, and how many leaves it has.

    What occurs twice is looked at once: a few bytes can nest more than exists.
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return value, 1
    if isinstance(value, list | tuple):
        items = enumerate(value)
    elif isinstance(value, Mapping):
        items = value.items()
    else:
        return None, 0
    if depth > _DEEPEST:
        return None, 0
    if id(value) not in memo:
        memo[id(value)] = (None, 0)
        found, total = {}, 0
        items = {str(key): x for key, x in items if isinstance(key, str | int)}
        if {"param_groups", "state"} <= items.keys():  # a PyTorch optimizer
            return None, 0
        for key, item in items.items():
            inner, count = _prune(item, memo, depth + 1)
            if count:
                found[key], total = inner, total + count
        memo[id(value)] = (_split_keys(found), total) if total else (None, 0)
    return memo[id(value)]


def _split_keys(node: dict[str, Any]) -> dict[str, Any]:
    """Turn keys `params/head/bias` into mappings, where none is in the way."""
    if not any("/" in key for key in node):
        return node
    split: dict[str, Any] = {}
    for key, value in node.items():
        *above, last = key.split("/")
        inner = split
        for part in above:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                return node
        if last in inner:
            return node
        inner[last] = value
    return split


def _visit(node: dict, path: tuple[str, ...]) -> Iterator[tuple[tuple, Leaves]]:
    """Yield the sets at a node of a pruned tree and below it."""
    trees = {
        key: x
        for key, x in node.items()
        if isinstance(x, dict) and not _NO_WEIGHTS.fullmatch(key.lower())
    }
    for key in _OLD:
        name, _, target = key.partition("/")
        old = node.get(name)
        if isinstance(old, dict) and isinstance(old.get(target), dict):
            trees[key] = old[target]
    arrays = {key: x for key, x in node.items() if not isinstance(x, dict)}
    named = {key: x for key, x in arrays.items() if "." in key}
    if named or not trees:
        if arrays:
            yield from _split_average(arrays, path)
        for key, tree in trees.items():
            yield from _visit(tree, (*path, key))
    elif collections := _find_collections(trees):
        for key, leaves in collections.items():
            yield (*path, key), leaves
        for key, tree in trees.items():
            if key not in collections and not _hold_statistics(key, tree):
                yield from _visit(tree, (*path, key))
    elif _are_sets(trees):
        for key, tree in trees.items():
            yield from _visit(tree, (*path, key))
    else:
        yield path, _flatten(arrays | trees)


def _are_sets(trees: Mapping[str, dict]) -> bool:
    """Return whether mappings beside one another are sets, and not a model's parts."""
    flat = [key for key, tree in trees.items() if _leads_to_names(tree)]
    known = [key for key in trees if is_holder(key) or is_average(key)]
    if any(map(_hold_params, trees.values())):
        return True
    if len(trees) == 1:
        return bool(known or flat or all(key.isdecimal() for key in trees))
    if any(key not in _PARTS for key in known):
        return True
    kinds = [_list_shapes(_flatten(tree)) for tree in trees.values()]
    return len(flat) == len(trees) and all(_are_alike(kinds[0], x) for x in kinds[1:])


def _leads_to_names(tree: dict) -> bool:
    """Return whether PyTorch's names lie in a mapping, or in the only one in it."""
    while not any("." in name for name in tree):
        inner = [x for key, x in tree.items() if not _NO_WEIGHTS.fullmatch(key.lower())]
        if len(inner) != 1 or not isinstance(inner[0], dict):
            return False
        tree = inner[0]
    return True


def _hold_params(tree: Mapping[str, Any]) -> bool:
    """Return whether Flax's `params` are in a tree, or anywhere below."""
    inner = [x for x in tree.values() if isinstance(x, dict)]
    return isinstance(tree.get("params"), dict) or any(map(_hold_params, inner))


def _find_collections(trees: Mapping[str, dict]) -> Sets:
    """Find Flax's `params`, and averages of them, each with its `batch_stats`."""
    flat = {key: _flatten(tree) for key, tree in trees.items()}
    main = next((key for key in ("params", *_OLD) if key in trees), "")
    found: Sets = {}
    for key, leaves in flat.items():
        is_copy = is_average(key) and (
            "params" in key
            or _are_alike(_list_shapes(flat.get(main, {})), _list_shapes(leaves))
        )
        is_plain = "params" not in trees[key] and not any("." in x for x in leaves)
        if is_plain and (key == main or (is_copy and "batch_stats" not in key)):
            names = {f"params/{name}": x for name, x in leaves.items()}
            found[key] = names | _find_statistics(trees, is_copy)
    return found


def _find_statistics(trees: Mapping[str, dict], averaged: bool) -> Leaves:
    """Find what normalisations keep: `batch_stats` here, or in a mapping here."""
    holders = [trees] + [x for key, x in trees.items() if "params" not in x]
    for key in _AVERAGED_STATISTICS * averaged + _STATISTICS:
        for holder in holders:
            if isinstance(holder.get(key), dict):
                flat = _flatten(holder[key])
                return {f"batch_stats/{name}": x for name, x in flat.items()}
    return {}


def _hold_statistics(key: str, tree: Mapping[str, Any]) -> bool:
    return key in _STATISTICS + _AVERAGED_STATISTICS or (
        "batch_stats" in tree and "params" not in tree
    )


def _split_average(arrays: Leaves, path: tuple) -> Iterator[tuple[tuple, Leaves]]:
    """Split flat names into a model's, those of its average, and the loss's."""
    groups: dict[str, Leaves] = {}
    for name, x in arrays.items():
        first, point, rest = name.partition(".")
        groups.setdefault(first if point else "", {})[rest if point else name] = x
    if len(groups) == 1 and is_holder(*groups):
        (first,) = groups
        inner = list(_split_average(groups[first], (*path, first)))
        if len(inner) > 1:
            yield from inner
            return
    plain = {n: x for n, x in arrays.items() if not is_average(n.partition(".")[0])}
    holders = [x for first, x in groups.items() if is_holder(first)]
    shapes = [_list_shapes(strip_names(x)[0]) for x in (plain, *holders)]
    others = {}
    for first, leaves in groups.items():
        theirs = _list_shapes(strip_names(leaves)[0])
        is_copy = is_average(first) and any(_are_alike(x, theirs) for x in shapes)
        if is_copy or (holders and is_beside(first)):
            others[first] = leaves
    kept = {n: x for n, x in arrays.items() if n.partition(".")[0] not in others}
    if not kept:
        kept, others = arrays, {}
    yield path, kept
    for first, leaves in others.items():
        yield (*path, first), leaves


def _list_shapes(leaves: Leaves) -> set[tuple]:
    return {(name, tuple(x.shape)) for name, x in leaves.items()}


def _are_alike(one: set, other: set) -> bool:
    return 2 * len(one & other) > min(len(one), len(other)) > 0


def _flatten(node: Mapping[str, Any]) -> Leaves:
    """Return the leaves below a node, by names that are joined as the leaves' own."""
    flat: list[tuple[tuple[str, ...], Any]] = []
    waiting: list[tuple[tuple[str, ...], Any]] = [((), node)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [((*path, key), x) for key, x in reversed(value.items())]
        else:
            flat.append((path, value))
    endings = {path[-1].rpartition(".")[2] for path, _ in flat}
    is_torch = endings & {"weight", "running_mean"} and not endings & {"kernel"}
    return {("." if is_torch else "/").join(path): x for path, x in flat}
