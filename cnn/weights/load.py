"""Weights of any file or directory, told by its content: one set of them by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cnn.errors import UserError
from cnn.weights import (
    beside,
    flax_file,
    hub,
    leaf,
    nested,
    recognise,
    safetensors_file,
    torch_file,
)
from cnn.weights.beside import Stated
from cnn.weights.chosen_set import choose_set
from cnn.weights.flax_names import is_flax, name_by_collections
from cnn.weights.leaf import Leaf


@dataclasses.dataclass(frozen=True)
class Weights:
    """A set of weights as a file or directory holds it.

    Attributes:
        leaves: by our kind of names where they are Flax's, else by PyTorch's; floating
            point is float32 once it is read.
        notes: what is to be said: which set was taken, what was left out.
        says: what the file says of its architecture, by where it says it.
        stated: what files beside it say; None without such.
    """

    leaves: Mapping[str, Leaf]
    notes: Sequence[str] = ()
    says: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stated: Stated | None = None


def load_weights(source: str | Path, flag: str, which: str, init_key: str) -> Weights:
    """Find a set of weights in a source, and what is said of them beside it.

    Args:
        source: a path, or `hf:OWNER/NAME`; numbers are read later.
        flag: that named it, for messages.
        which: `--checkpoint`, for directories of several.
        init_key: which of several sets.

    Raises:
        UserError: it is absent, damaged, something else, or holds no weights.
    """
    path, notes = hub.fetch(str(source), flag)
    found = _load(path, flag, which, init_key)
    stated, says = beside.read(path, is_theirs=bool(notes)), found.says
    if stated and stated.architecture:
        says = {**says, stated.file: stated.architecture}
    notes = [*notes, *found.notes]
    return dataclasses.replace(found, notes=notes, says=says, stated=stated)


def _load(path: Path, flag: str, which: str, init_key: str) -> Weights:
    """Find a set of weights in whatever lies at a path.

    Args:
        flag: that names the path, for messages.
        which: `--checkpoint`, for directories of several.
        init_key: which of several sets.

    Raises:
        UserError: it is absent, damaged, something else, or holds no weights.
    """
    kind, where = recognise.recognise(path, flag), f"{flag}={path}"
    if kind in (recognise.RUN, recognise.CHECKPOINT):
        raise UserError(
            f"{where} is a {kind} of this program, which needs no conversion; give it "
            "to --init_from, or as --workdir to --mode=evaluate or predict"
        )
    if which != "latest" and kind not in (recognise.ORBAX, recognise.FLAX_FILES):
        raise UserError(
            f"--checkpoint={which} chooses among checkpoints, but {where} is none that "
            "holds several; leave it out, or give a directory of a run or of orbax"
        )
    says: Mapping[str, str] = {}
    about = {"the file's name": path.name}
    if kind in recognise.TORCH:
        leaves, notes, says = torch_file.take_set(path, init_key, where)
    else:
        if kind == recognise.SAFETENSORS:
            tree = safetensors_file.load_safetensors(path)
            says = safetensors_file.read_metadata(path)
        else:
            tree = flax_file.read_tree(path, kind, which)
        sets = nested.find_sets(tree, where)
        _, leaves, notes = choose_set(sets, init_key, where)
    if is_flax(leaves):
        leaves = name_by_collections(leaves)
    leaves, widened = leaf.widen(leaves)
    return Weights(leaves, [*notes, *widened], about | dict(says))
