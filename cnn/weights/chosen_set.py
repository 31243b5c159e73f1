"""Which one of a file's sets of weights is taken: the one named, or the model's own."""

from cnn.errors import UserError
from cnn.weights.nested import Sets
from cnn.weights.wrapped_names import (
    Leaves,
    is_average,
    is_beside,
    is_holder,
    strip_names,
)

_SHOWN = 12


def choose_set(sets: Sets, init_key: str, where: str) -> tuple[str, Leaves, list[str]]:
    """Choose the set that is taken.

    Of several it is the one that `init_key` names; else the weights themselves before
    an average of them, and what is called a model before what lies beside it.

    Args:
        sets: as of `nested.find_sets`.
        init_key: a path of a set, a part of it, or the beginning of names in one.
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
    # Where a beginning of names is taken, nothing is said of the rest.
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


def _find_main(sets: Sets, where: str) -> tuple[str, Leaves]:
    """Return the set that is taken where none is named, with its path."""
    plain = [
        path
        for path in sets
        if not is_average(path) and not any(map(is_beside, path.split("/")))
    ]
    for candidates in (
        list(sets),
        [path for path in plain if all(map(is_holder, path.split("/")))],
        plain,
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
