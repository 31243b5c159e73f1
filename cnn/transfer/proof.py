"""The proof that frozen is frozen: leaves compared bit for bit with their source.

What is compared are SHA-256 digests of each leaf's dtype, shape and bytes, taken
before the first step and kept with every checkpoint.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.state import flatten_paths
from cnn.transfer.freezing import Phase
from cnn.transfer.source import hash_array


def hash_frozen(phase: Phase | None, variables: Any) -> dict[str, str]:
    """Return the digests of the frozen leaves by path.

    Args:
        phase: what is frozen.
        variables: `params` and `batch_stats` as the source has them.
    """
    if phase is None:
        return {}
    leaves = flatten_paths(variables)
    return {
        path: hash_array(np.asarray(leaf))
        for path, leaf in leaves.items()
        if phase.is_frozen(path)
    }


def find_changed(digests: Mapping[str, str], *variables: Any) -> list[str]:
    """Find frozen leaves that are not what they were.

    Args:
        digests: of the frozen leaves by path.
        *variables: trees of `params` and `batch_stats`, as trained and as averaged.

    Returns:
        The paths of leaves that are missing or not what their digests say.
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
    """Return what result.json says of a run that started from other weights.

    Args:
        transfer: of a checkpoint's description; empty: nothing is said.
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
    """Refuse frozen leaves that are not their source's.

    Raises:
        UserError: naming them.
    """
    if changed:
        shown = ", ".join(changed[:5])
        raise UserError(
            f"{where}: {len(changed)} frozen leaves differ from their source: {shown}. "
            "Its weights are not what they say; train it anew in another --workdir"
        )
