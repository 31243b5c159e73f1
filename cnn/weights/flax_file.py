"""Trees of any Flax codebase: orbax directories, msgpack, `.npz`.

Arrays come with what they claim to be; their numbers are read when they are asked for.
"""

from pathlib import Path
from typing import Any

from cnn.weights import recognise
from cnn.weights.flax_names import unwrap_variables
from cnn.weights.msgpack_file import read_msgpack
from cnn.weights.npz_file import read_npz
from cnn.weights.orbax_tree import choose_step, read_orbax


def read_tree(path: Path, kind: str, which: str) -> dict[str, Any]:
    """Read the tree of a path: nested mappings of leaves.

    Args:
        kind: as of `recognise`.
        which: `latest` or a step, for directories of several.

    Raises:
        UserError: the tree is damaged, or there is no such step.
    """
    if kind == recognise.NPZ:
        tree = read_npz(path)
    elif kind == recognise.ORBAX:
        tree = read_orbax(path, which)
    else:
        if kind == recognise.FLAX_FILES:
            path = choose_step(recognise.list_flax_files(path), which, path)
        tree = read_msgpack(path)
    return unwrap_variables(tree)
