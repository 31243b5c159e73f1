"""Sets of weights in what a file holds: which there are, and which one is taken.

A tree is mappings, lists and tuples down to leaves, which have `.shape` and `.dtype`;
everything else in it is left alone. A set is the weights of one model by flat names:
PyTorch's (`layer1.0.conv1.weight`), or paths (`params/stem/kernel`). Its own path says
where in the tree it lies: empty, or `model_ema/state_dict`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cnn.errors import UserError
from cnn.weights.flax_names import split_collection

Leaves = dict[str, Any]
Sets = dict[str, Leaves]

_MOST_LEAVES = 1_000_000
_DEEPEST = 60
_SHOWN = 12

# What holds or precedes the weights of one model, and is no layer of it.
_HOLDERS = (
    "state_dict model_state_dict model_state model_dict model_weights model net "
    "network module weights params parameters variables target student backbone "
    "encoder online_network _orig_mod _forward_module _module"
).split()
# Those that are layers where others stand beside them.
_PARTS = {"backbone", "encoder", "module"}
_HEADS = {"head", "heads", "fc", "classifier", "linear", "last_linear"}
# What wrappers insert anywhere in a name.
_INSERTED = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_AVERAGE = re.compile(
    r"(?<![a-z])(ema|swa|avg|averaged?|teacher|shadow|polyak)(?![a-z])|EMA|Ema"
)
_NO_WEIGHTS = re.compile(
    r"opt|optim|(optim|opt)_\w+|(\w+_)?optimi[sz]ers?(_\w+)?|(\w+_)?(lr_)?schedulers?"
    r"(_\w+)?|lr_\w+|(\w+_)?scaler(_\w+)?|amp|callbacks|loops|rng\w*|\w+_rng\w*|"
    r"hyper_parameters|hparams|args|config|metrics?|momentum\w*"
)
_BESIDE = re.compile(
    r"criterion(_\w+)?|(\w+_)?loss(_\w+)?|(\w+_)?metrics?(_\w+)?|"
    r"(\w+_)?(acc|accuracy|auroc|auc|f1|iou|precision|recall)"
)
# Where flax.optim and big_vision keep the weights.
_OLD = ("optimizer/target", "opt/target")
_STATISTICS = ("batch_stats",)
_AVERAGED_STATISTICS = ("ema_batch_stats", "batch_stats_ema", "ema_stats")


def find_sets(tree: Any) -> Sets:
    """Find every set of weights in a tree; the optimizer's state is none.

    Returns:
        By path, the leaves by flat name. PyTorch's names are joined by points, all
        others by slashes; `params` and `batch_stats` of one model are one set.

    Raises:
        UserError: the tree has more leaves than any model.
    """
    pruned, count = _prune(tree, {}, 0)
    if count > _MOST_LEAVES:
        raise UserError(f"It holds {count:,} tensors; {_MOST_LEAVES:,} are allowed")
    sets: Sets = {}
    if isinstance(pruned, dict):
        for path, leaves in _visit(pruned, ()):
            sets["/".join(path)] = leaves
    return sets


def choose_set(sets: Sets, init_key: str, where: str) -> tuple[str, Leaves, list[str]]:
    """Choose the set that is taken.

    Of several it is the one that `init_key` names; else the weights themselves before
    an average of them, and what is called a model before what lies beside it.

    Args:
        sets: as of `find_sets`.
        init_key: a path of a set, its end, or the beginning of names in one.
        where: what the file is called in messages.

    Returns:
        The set's path, its leaves by name, without what wraps all names, and what is
        to be said of both.

    Raises:
        UserError: there is none, or it does not follow which one is meant.
    """
    if not any(sets.values()):
        raise UserError(
            f"{where} holds no weights: no tensors under names; save model.state_dict()"
        )
    if init_key:
        path, leaves = _find_key(sets, init_key, where)
    else:
        path, leaves = _find_main(sets, where)
    notes = []
    # Of the beginning of names the rest of its set is no other one.
    others = [other for other in sets if other != path] if path in sets else []
    if path:
        kind = ", an average" if is_average(path) else ""
        notes.append(f"takes {path} ({len(leaves)} tensors{kind})")
    if others:
        notes.append(
            f"leaves {_show_sets({x: sets[x] for x in others})} alone; "
            f"--init_key={next(filter(None, others), path)} takes "
            f"{'one of them' if others[1:] else 'that'}"
        )
    leaves, left_out = strip_names(leaves)
    if left_out:
        notes.append(f"leaves out {', '.join(left_out)} in the names")
    return path, leaves, notes


def strip_names(leaves: Leaves) -> tuple[Leaves, list[str]]:
    """Leave out of all names what wrappers put before them: `module.`, `_orig_mod.`.

    Returns:
        The leaves by shorter name, and what was left out.
    """
    leaves = {name: x for name, x in leaves.items() if name != "n_averaged"}
    left_out: list[str] = []
    short = {name: _INSERTED.sub("", name) for name in leaves}
    if len(set(short.values())) == len(leaves):
        found = {m[0] for name in leaves for m in _INSERTED.finditer(name)}
        left_out += sorted(found)
        leaves = {short[name]: x for name, x in leaves.items()}
    while prefix := _find_prefix(leaves):
        left_out.append(prefix)
        leaves = {_strip(name, prefix): x for name, x in leaves.items()}
    return leaves, left_out


def is_average(path: str) -> bool:
    """Return whether a path speaks of averaged weights."""
    return bool(_AVERAGE.search(path))


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
    known = [key for key in trees if _is_holder(key) or is_average(key)]
    if any(map(_hold_params, trees.values())):
        return True
    if len(trees) == 1:
        return bool(known or flat or all(key.isdigit() for key in trees))
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
    if len(groups) == 1 and _is_holder(*groups):
        (first,) = groups
        inner = list(_split_average(groups[first], (*path, first)))
        if len(inner) > 1:
            yield from inner
            return
    plain = {n: x for n, x in arrays.items() if not is_average(n.partition(".")[0])}
    holders = [x for first, x in groups.items() if _is_holder(first)]
    shapes = [_list_shapes(strip_names(x)[0]) for x in (plain, *holders)]
    others = {}
    for first, leaves in groups.items():
        theirs = _list_shapes(strip_names(leaves)[0])
        is_copy = is_average(first) and any(_are_alike(x, theirs) for x in shapes)
        if is_copy or (holders and _BESIDE.fullmatch(first)):
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


def _is_holder(key: str) -> bool:
    return key.lower() in _HOLDERS or "state_dict" in key.lower()


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


def _find_main(sets: Sets, where: str) -> tuple[str, Leaves]:
    """Return the set that is taken where none is named, with its path."""
    plain = [
        path
        for path in sets
        if not is_average(path) and not any(map(_BESIDE.fullmatch, path.split("/")))
    ]
    for candidates in (
        list(sets),
        [path for path in plain if all(map(_is_holder, path.split("/")))],
        plain,
        [] if plain else list(sets),
    ):
        if len(candidates) == 1:
            return candidates[0], sets[candidates[0]]
    raise UserError(
        f"{where} holds several sets of weights: {_show_sets(sets)}; name one with "
        f"--init_key={next(path for path in sets if path)}"
    )


def _find_key(sets: Sets, init_key: str, where: str) -> tuple[str, Leaves]:
    """Return the set, or what of one begins with a name, that a key means."""
    wanted = _spell(init_key)
    spelled = {path: _spell(path) for path in sets}
    for paths in (
        [path for path in sets if spelled[path] == wanted],
        [path for path in sets if spelled[path].endswith(f".{wanted}")],
        [path for path in sets if spelled[path].startswith(f"{wanted}.")],
        [path for path in sets if f".{wanted}." in spelled[path]],
    ):
        if paths:
            matches = {path: sets[path] for path in paths}
            break
    else:
        matches = _find_beginnings(sets, wanted)
    if len(matches) == 1:
        return next(iter(matches.items()))
    raise UserError(
        f"--init_key={init_key} names {'several sets' if matches else 'nothing'} in "
        f"{where}; it holds {_show_sets(sets)}"
    )


def _find_beginnings(sets: Sets, wanted: str) -> Sets:
    """Find leaves by what their long names begin with up to a key; the rest names."""
    found: Sets = {}
    for path, leaves in sets.items():
        inside: Sets = {}
        for name, x in leaves.items():
            long = _spell(f"{path}.{name}")
            place = f".{long}".find(f".{wanted}.")
            if place >= 0:
                end = place + len(wanted)
                inside.setdefault(long[:end], {})[name[end + 1 - len(long) :]] = x
        found = inside | found
    return found


def _spell(path: str) -> str:
    return path.replace("/", ".").strip(".")


def _show_sets(sets: Sets) -> str:
    shown = [
        f"{path or 'weights at the top'} ({len(leaves)} tensors)"
        for path, leaves in list(sets.items())[:_SHOWN]
    ]
    return ", ".join(shown) + (", …" if len(sets) > _SHOWN else "")


def _find_prefix(leaves: Leaves) -> str:
    """Return what precedes all names, or all but the head's, and is no layer."""
    names = [split_collection(name)[1] for name in leaves]
    firsts = [re.match(r"(\w+)([./])", name) for name in names]
    holders = {m[1] for m in firsts if m and (_is_holder(m[1]) or is_average(m[1]))}
    if len(holders) != 1 or None in firsts:
        return ""
    (holder,) = holders
    prefix = next(m[0] for m in firsts if m[1] == holder)
    if {m[1] for m in firsts} - holders - _HEADS:
        return ""
    return prefix if len({_strip(x, prefix) for x in leaves}) == len(leaves) else ""


def _strip(name: str, prefix: str) -> str:
    collection, inside = split_collection(name)
    return collection + inside.removeprefix(prefix)
