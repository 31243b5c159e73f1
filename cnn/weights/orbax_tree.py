"""Directories that orbax wrote, whatever program called it: trees of arrays by name.

Read are the tree's description (`_METADATA`, or the `checkpoint` of old versions) and
each array's own, by tensorstore: which devices held the arrays does not matter then,
and no array is read before it is asked for. Both zarr and OCDBT.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.runtime import own_files
from cnn.weights.leaf import Damaged, Leaf, check_shape, explain, nest
from cnn.weights.msgpack_file import is_msgpack, read_msgpack

_METADATA, _OLD, _MANIFEST = "_METADATA", "checkpoint", "manifest.ocdbt"
_STEP = re.compile(r"(?:.*_)?(\d+)")
_PLACEHOLDER = "PLACEHOLDER://"
_EMPTY = ("string", "None")  # values that are no arrays
_SECONDS = 60.0  # for an array's description


def find_trees(path: Path, which: str) -> dict[str, Path]:
    """Find the trees of a directory, of a step of it, or of its manager's directory.

    Args:
        which: `latest` or a step, where there are several.

    Returns:
        Directories of trees by the name of their item; the name of the only one is
        empty. Nothing where no tree is found.

    Raises:
        UserError: there is no such step.
    """
    if _is_tree(path):
        return {"": path}
    items = {each.name: each for each in _list_directories(path) if _is_tree(each)}
    steps = _list_steps(path)
    if steps and steps.keys() >= {_find_step(name) for name in items}:
        return find_trees(choose_step(steps, which, path), "latest")
    if which != "latest" and items:
        raise UserError(
            f"--checkpoint={which} chooses among steps, and {path} is one; leave it out"
        )
    return {"": next(iter(items.values()))} if len(items) == 1 else items


def choose_step(steps: Mapping[int, Path], which: str, path: Path) -> Path:
    """Return where the step lies that `--checkpoint` names.

    Args:
        steps: by number, where each lies.
        which: `latest` or a number.
        path: what holds them, for the message.

    Raises:
        UserError: there is no such step.
    """
    if which == "latest":
        return steps[max(steps)]
    if not which.isdecimal() or int(which) not in steps:
        raise UserError(
            f"--checkpoint={which} is not there; {path} has latest and steps "
            f"{', '.join(map(str, sorted(steps)))}"
        )
    return steps[int(which)]


def _list_steps(path: Path) -> dict[int, Path]:
    """List the steps of a directory of checkpoints, `5` or `checkpoint_5`."""
    found = {}
    for each in _list_directories(path):
        step = _find_step(each.name)
        is_step = _is_tree(each) or any(map(_is_tree, _list_directories(each)))
        if step is not None and is_step:
            found[step] = each
    return found


def read_orbax(path: Path, which: str) -> dict[str, Any]:
    """Read the tree of a directory.

    Args:
        path: a tree's, a step's, or that of a manager of checkpoints.
        which: as of `find_trees`.

    Returns:
        Nested mappings of leaves by name, a list as the mapping of its places. Of
        several items, their trees by the names of the items.

    Raises:
        UserError: it is damaged or holds no tree of arrays.
    """
    found = find_trees(path, which)
    trees = {name: _read_tree(directory) for name, directory in found.items()}
    return trees[""] if set(trees) == {""} else trees


def _find_step(name: str) -> int | None:
    found = _STEP.fullmatch(name)
    return int(found[1]) if found else None


def _is_tree(path: Path) -> bool:
    return (path / _METADATA).is_file() or is_msgpack(path / _OLD)


def _list_directories(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(
        each
        for each in path.iterdir()
        if each.is_dir() and "orbax-checkpoint-tmp" not in each.name
    )


def _read_tree(path: Path) -> dict[str, Any]:
    """Read a tree from its description and those of its arrays."""
    try:
        if (path / _METADATA).is_file():
            names, is_zarr3 = _read_description(path / _METADATA)
        else:
            names, is_zarr3 = _read_old(path / _OLD), False
        stored = {x: name for x, name in names.items() if isinstance(name, str)}
        opened = _open_arrays(path.absolute(), list(stored.values()), is_zarr3)
        leaves = {x: opened.get(name, name) for x, name in names.items()}
        tree = nest({x: leaf for x, leaf in leaves.items() if isinstance(leaf, Leaf)})
    except (Damaged, OSError, ValueError, LookupError, RecursionError) as error:
        raise explain(path, "directory of orbax", error) from None
    if not tree:
        raise explain(path, "directory of orbax", "it holds no array")
    return tree


def _read_description(path: Path) -> tuple[dict[tuple[str, ...], str], bool]:
    """Return the name on disk of each array by its path, and whether it is zarr 3."""
    found = json.loads(own_files.read(path))
    tree = found.get("tree_metadata") if isinstance(found, dict) else None
    if not isinstance(tree, dict):
        raise Damaged(f"{path.name} describes no tree")
    names = {}
    for entry in tree.values():
        try:
            keys = tuple(str(each["key"]) for each in entry["key_metadata"])
            value = entry["value_metadata"]
            is_empty = value.get("skip_deserialize") or value["value_type"] in _EMPTY
        except (TypeError, KeyError, AttributeError):
            raise Damaged(f"{path.name} describes no tree") from None
        if keys and not is_empty:
            names[keys] = ".".join(keys)
    return names, bool(found.get("use_zarr3"))


def _read_old(path: Path) -> dict[tuple[str, ...], Any]:
    """Read the tree of versions before `_METADATA`: arrays in it, or where they are."""
    names: dict[tuple[str, ...], Any] = {}

    def add(node: Any, keys: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            for name, inner in node.items():
                add(inner, (*keys, name))
        elif isinstance(node, Leaf):
            names[keys] = node
        elif isinstance(node, str) and node.startswith(_PLACEHOLDER):
            names[keys] = node.removeprefix(_PLACEHOLDER)

    add(read_msgpack(path), ())
    return names


def _open_arrays(path: Path, names: list[str], is_zarr3: bool) -> dict[str, Leaf]:
    """Read the descriptions of arrays, all at once; what is no number is left out."""
    import tensorstore

    specs = {}
    for name in names:
        if (path / _MANIFEST).is_file():
            base = {"driver": "file", "path": f"{path}/"}
            place = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        else:
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise Damaged(f"{name[:60]} is no name of an array")
            place = {"driver": "file", "path": f"{path / name}/"}
        specs[name] = {
            "driver": "zarr3" if is_zarr3 else "zarr",
            "kvstore": place,
            "fill_missing_data_reads": False,
        }
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 100_000_000}})
    waiting = {
        name: tensorstore.open(spec, open=True, read=True, context=context)
        for name, spec in specs.items()
    }
    opened = {}
    for name, future in waiting.items():
        try:
            store = future.result(timeout=_SECONDS)
            opened[name] = _make_leaf(path, name, store)
        except (Damaged, ValueError, OverflowError, TimeoutError) as error:
            raise Damaged(f"{name[:60]}: {error}") from None
    return {name: leaf for name, leaf in opened.items() if leaf is not None}


def _make_leaf(path: Path, name: str, store: Any) -> Leaf | None:
    dtype = store.dtype.numpy_dtype
    if dtype is None or dtype.kind in "OSU":
        return None
    shape = check_shape(tuple(int(size) for size in store.shape))
    chunk = store.chunk_layout.read_chunk.shape or ()
    if math.prod(chunk) > max(1, math.prod(shape)):
        raise Damaged(f"it is {list(shape)} in chunks of {list(chunk)}")

    def read() -> np.ndarray:
        try:
            array = np.asarray(store.read().result())
        except (ValueError, OverflowError, MemoryError) as error:
            where = f"{path}: {name[:60]}"
            raise explain(where, "directory of orbax", error) from None
        return array

    return Leaf(shape, np.dtype(dtype), read)
