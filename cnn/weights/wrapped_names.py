"""Names that wrap a model's: of what holds its weights, precedes them or averages them.

What a checkpoint calls its parts is told by these words alone, wherever they stand: as
a key (`model_ema`), or at the beginning of names (`module.conv1.weight`).
"""

import re
from typing import Any

from cnn.weights.flax_names import split_collection

Leaves = dict[str, Any]

# What holds or precedes the weights of one model, and is no layer of it.
_HOLDERS = (
    "state_dict model_state_dict model_state model_dict model_weights model net "
    "network module weights params parameters variables target student backbone "
    "encoder online_network _orig_mod _forward_module _module"
).split()
_HEADS = {"head", "heads", "fc", "classifier", "linear", "last_linear"}
# What wrappers insert anywhere in a name.
_INSERTED = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_AVERAGE = re.compile(
    r"(?<![a-z])(ema|swa|avg|averaged?|teacher|shadow|polyak)(?![a-z])|EMA|Ema"
)
_BESIDE = re.compile(
    r"criterion(_\w+)?|(\w+_)?loss(_\w+)?|(\w+_)?metrics?(_\w+)?|"
    r"(\w+_)?(acc|accuracy|auroc|auc|f1|iou|precision|recall)"
)


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


def is_holder(key: str) -> bool:
    """Return whether a key says that a model's weights are under it."""
    return key.lower() in _HOLDERS or "state_dict" in key.lower()


def is_beside(key: str) -> bool:
    """Return whether a key is that of a loss or a metric, which models have beside."""
    return bool(_BESIDE.fullmatch(key))


def _find_prefix(leaves: Leaves) -> str:
    """Return what precedes all names, or all but the head's, and is no layer."""
    names = [split_collection(name)[1] for name in leaves]
    firsts = [re.match(r"(\w+)([./])", name) for name in names]
    holders = {m[1] for m in firsts if m and (is_holder(m[1]) or is_average(m[1]))}
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
