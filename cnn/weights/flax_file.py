"""Trees of any Flax codebase: orbax directories, msgpack, `.npz`.

Arrays come with what they claim to be; their numbers are read when they are asked for.
"""

import re
from pathlib import Path
from typing import Any

from cnn.errors import UserError
from cnn.weights import recognise
from cnn.weights.flax_names import unwrap_variables
from cnn.weights.msgpack_file import read_msgpack
from cnn.weights.npz_file import read_npz
from cnn.weights.orbax_tree import read_orbax

_FILE = re.compile(r"checkpoint_(\d+)")


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
        is_file = kind == recognise.MSGPACK
        tree = read_msgpack(path if is_file else _find_file(path, which))
    return unwrap_variables(tree)


def _find_file(path: Path, which: str) -> Path:
    """Find one of the msgpack files `checkpoint_N` that Flax wrote before orbax."""
    found = [(_FILE.fullmatch(each.name), each) for each in path.iterdir()]
    files = {int(step[1]): each for step, each in found if step and each.is_file()}
    if which != "latest" and not (which.isdigit() and int(which) in files):
        raise UserError(
            f"--checkpoint={which} is not there; {path} has latest and steps "
            f"{', '.join(map(str, sorted(files)))}"
        )
    return files[max(files) if which == "latest" else int(which)]
