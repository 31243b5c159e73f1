"""Where weights come from: a run of ours, one of its checkpoints, a PyTorch file.

Names in a source are its own: `params/stem/kernel` in checkpoints, PyTorch's in files.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn import averaging, checkpoint, devices, manifest, workdir
from cnn.errors import UserError
from cnn.state import flatten_paths
from cnn.weights import exchange

_SUFFIXES = (".pth", ".th", ".pt", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights with what is known of them.

    Attributes:
        name: what the person called them.
        is_file: whether they are PyTorch's.
        arrays: by the source's own names.
        description: what a checkpoint says of itself; empty for files.
        sha256: over names, dtypes, shapes and bytes of the arrays.
    """

    name: str
    is_file: bool
    arrays: Mapping[str, np.ndarray]
    description: Mapping[str, Any]
    sha256: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the classes' names; empty where the source does not name them."""
        if not self.description.get("classes_are_named", bool(self.description)):
            return ()
        return tuple(self.description["class_names"])


def open_source(init_from: str) -> Source:
    """Read the weights that `--init_from` names.

    Args:
        init_from: a run's directory, a checkpoint's, or a file.

    Raises:
        UserError: there are none, or they are damaged.
    """
    path = Path(init_from)
    if path.suffix in _SUFFIXES and not path.is_dir():
        if not path.is_file():
            raise UserError(f"--init_from={path} does not exist")
        return _make_source(init_from, True, exchange.load_file(path), {})
    if (path / workdir.CONFIG_FILE).exists() or (path / "checkpoints").is_dir():
        path = path / "checkpoints" / str(manifest.find_step(path, "latest"))
    if not (path / manifest.MANIFEST).exists():
        raise UserError(
            f"--init_from={init_from} holds no weights; give a run's directory, one of "
            f"its checkpoints DIR/checkpoints/STEP, or a file ({', '.join(_SUFFIXES)})"
        )
    try:
        description = manifest.read_description(path)
        averaged = averaging.is_on(description["options"])
        everywhere = devices.replicated(devices.make_mesh())
        variables = checkpoint.read_variables(path, averaged, everywhere)
    except manifest.DamagedCheckpoint as error:
        raise UserError(f"--init_from={init_from}: {error}") from None
    arrays = jax.tree.map(np.asarray, flatten_paths(variables))
    return _make_source(init_from, False, arrays, description)


def rename(
    arrays: Mapping[str, np.ndarray], rules: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Rename arrays by `--init_rename`, all at once, so that names may be exchanged.

    Args:
        arrays: by name; the rules speak of names without their collection.
        rules: `pattern->new`.

    Raises:
        UserError: a rule is malformed or matches nothing, or two arrays would have
            one name.
    """
    parsed = [_read_rule(rule) for rule in rules]
    used, renamed = set(), {}
    for name, array in arrays.items():
        collection, inside = split_collection(name)
        for rule, pattern, new in parsed:
            if found := re.match(pattern, inside):
                used.add(rule)
                inside = found.expand(new) + inside[found.end() :]
                break
        if collection + inside in renamed:
            raise UserError(
                f"--init_rename={','.join(rules)}: two arrays would be named {inside}"
            )
        renamed[collection + inside] = array
    for rule in rules:
        if rule not in used:
            raise UserError(
                f"--init_rename={rule} matches nothing in the source; it has "
                f"{', '.join(list(arrays)[:4])}, …"
            )
    return renamed


def split_collection(name: str) -> tuple[str, str]:
    """Split `params/head/bias` into `params/` and the rest; other names have none."""
    for collection in ("params/", "batch_stats/"):
        if name.startswith(collection):
            return collection, name.removeprefix(collection)
    return "", name


def hash_array(array: np.ndarray) -> str:
    """Return SHA-256 of an array's dtype, shape and bytes in C order."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


def _make_source(
    name: str, is_file: bool, arrays: Mapping[str, np.ndarray], description: Any
) -> Source:
    lines = [f"{key} {hash_array(array)}\n" for key, array in sorted(arrays.items())]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Source(name, is_file, arrays, description, digest)


def _read_rule(rule: str) -> tuple[str, re.Pattern, str]:
    pattern, arrow, new = rule.partition("->")
    try:
        if not arrow or not pattern:
            raise ValueError("write old->new, such as 'conv1->stem'")
        compiled = re.compile(rf"(?:{pattern})(?=[/_.]|$)")
        compiled.sub(new, "")  # refuses a group that there is not
        return rule, compiled, new
    except (re.error, ValueError) as error:
        raise UserError(f"--init_rename={rule}: {error}") from None
