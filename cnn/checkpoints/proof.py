"""The proof that frozen leaves have not changed: they are compared with their source.

Compared are SHA-256 digests of each leaf's dtype, shape and bytes, taken before the
first step and kept with every checkpoint. `variables` are `params` and `batch_stats`.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.models.variables import flatten_paths


def hash_array(array: np.ndarray) -> str:
    """Return SHA-256 of an array's dtype, shape and bytes in C order."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
    digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def hash_leaves(variables: Any, is_wanted: Callable[[str], bool]) -> dict[str, str]:
    """Return the digests, by path, of the leaves whose path `is_wanted`."""
    return {
        path: hash_array(np.asarray(leaf))
        for path, leaf in flatten_paths(variables).items()
        if is_wanted(path)
    }


def hash_variables(variables: Any) -> str:
    """Return SHA-256 over the digests of all leaves in the order of their paths."""
    digests = hash_leaves(variables, lambda path: True)
    lines = [f"{path} {digest}\n" for path, digest in sorted(digests.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_changed(digests: Mapping[str, str], *variables: Any) -> list[str]:
    """Find frozen leaves that have changed.

    Args:
        digests: of the frozen leaves by path.
        *variables: as trained and as averaged.

    Returns:
        The paths of leaves that are missing or have another digest.
    """
    trees = [flatten_paths(tree) for tree in variables]
    return [
        path
        for path, digest in digests.items()
        if any(
            path not in leaves or hash_array(np.asarray(leaves[path])) != digest
            for leaves in trees
        )
    ]


def summarise(transfer: Mapping[str, Any], changed: list[str]) -> dict[str, Any]:
    """Return the part of result.json on a run that started from other weights.

    Args:
        transfer: of a checkpoint's description; empty if it started from scratch.
        changed: of `find_changed`.
    """
    if not transfer:
        return {}
    return {
        "frozen_leaves": len(transfer["frozen"]),
        "frozen_unchanged": not changed,
        "source_sha256": transfer.get("source_sha256", ""),
    }


def check_unchanged(changed: list[str], where: str) -> None:
    """Refuse frozen leaves that are not their source's, naming them."""
    if changed:
        shown = ", ".join(changed[:5])
        raise UserError(
            f"{where}: {len(changed)} frozen leaves differ from their source: {shown}. "
            "Its weights were changed; train it again in another --workdir"
        )
