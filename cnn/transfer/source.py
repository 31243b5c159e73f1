"""Where weights come from, and how a run's images are scaled for them.

A source is a run of ours, one of its checkpoints, a PyTorch file, or what any Flax
codebase wrote. Names in it are its own: PyTorch's, or `params/stem/kernel`.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.checkpoints import checkpoint, manifest
from cnn.checkpoints.proof import hash_array
from cnn.config import Config
from cnn.data.images import Dataset
from cnn.data.statistics import compute_scaling
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.optim import weight_averaging
from cnn.option import format_value
from cnn.runtime import devices
from cnn.runtime.terminal import Terminal
from cnn.training import same_data
from cnn.weights import exchange, hub, leaf, load, recognise
from cnn.weights.beside import Stated
from cnn.weights.flax_names import is_flax
from cnn.weights.leaf import Leaf


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights with what is known of them.

    Attributes:
        name: what the user called them.
        is_file: whether they are PyTorch's.
        arrays: by the source's own names; leaves where they are not read yet.
        description: what a checkpoint of ours says of itself; else empty.
        checkpoint: what they were read from; None for files.
        says: what a file says of its architecture, by where it says it.
        stated: what files beside it say; None without such.
    """

    name: str
    is_file: bool
    arrays: Mapping[str, np.ndarray | Leaf]
    description: Mapping[str, Any]
    checkpoint: Path | None = None
    says: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stated: Stated | None = None

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of the arrays; reads them."""
        lines = [f"{name} {_hash(x)}\n" for name, x in sorted(self.arrays.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the classes' names; empty where the source does not name them."""
        if self.stated and self.stated.class_names:
            return self.stated.class_names
        if not self.description.get("classes_are_named", bool(self.description)):
            return ()
        return tuple(self.description["class_names"])


def open_source(
    init_from: str,
    which: str,
    terminal: Terminal,
    keeps_optimizer: bool = False,
    init_key: str = "",
) -> Source:
    """Read the weights that `--init_from` names, and print which they are.

    Args:
        init_from: a run, a checkpoint, a file, a directory of orbax, or `hf:…`.
        which: of `--checkpoint`, for what holds several.
        keeps_optimizer: take the weights that the optimizer stepped, not their average.
        init_key: which of several sets of weights.

    Raises:
        UserError: there are none, or they are damaged; or `which` is for a run.
    """
    path, kind = Path(init_from), ""
    if not hub.is_name(init_from):
        kind = recognise.recognise(path, "--init_from")
    if kind not in (recognise.RUN, recognise.CHECKPOINT):
        return _open_theirs(init_from, which, terminal, init_key)
    if init_key:
        raise UserError(
            f"--init_key={init_key} chooses among sets of weights, but --init_from="
            f"{init_from} is a {kind} of this program; leave it out"
        )
    if kind == recognise.RUN:
        path = path / "checkpoints" / str(manifest.find_step(path, which))
        terminal.say(f"source    {init_from}, step {path.name} ({which})")
    elif which != "latest":
        raise UserError(
            f"--checkpoint={which} chooses among the checkpoints of a run, but "
            f"--init_from={init_from} is one; leave it out, or give a run's directory"
        )
    return _open_checkpoint(init_from, path, keeps_optimizer)


def _open_theirs(
    init_from: str, which: str, terminal: Terminal, init_key: str
) -> Source:
    """Open what another program has saved, and print what is found in it."""
    found = load.load_weights(init_from, "--init_from", which, init_key)
    for note in found.notes:
        terminal.say(f"source    {note}")
    if found.stated and found.stated.options:
        text = found.stated.describe()
        terminal.say(f"source    {found.stated.file} says: {text}")
    return Source(
        init_from,
        not is_flax(found.leaves),
        found.leaves,
        {},
        says=found.says,
        stated=found.stated,
    )


def _open_checkpoint(init_from: str, path: Path, keeps_optimizer: bool) -> Source:
    """Read a checkpoint of ours, its average where there is one and it is wanted."""
    try:
        description = manifest.read_description(path)
        averaged = weight_averaging.is_on(description["options"])
        averaged = averaged and not keeps_optimizer
        everywhere = devices.replicated(devices.make_mesh())
        variables = checkpoint.read_variables(path, averaged, everywhere)
    except manifest.DamagedCheckpoint as error:
        raise UserError(f"--init_from={init_from}: {error}") from None
    arrays = jax.tree.map(np.asarray, flatten_paths(variables))
    return Source(init_from, False, arrays, description, path)


def _hash(array: np.ndarray | Leaf) -> str:
    """Hash an array, or what is known of one that is not read at all."""
    if isinstance(array.dtype, str):
        return f"{array.dtype} {array.shape}"
    return hash_array(leaf.read(array))


def open_start(
    config: Config, stored: Mapping[str, Any], terminal: Terminal
) -> Source | None:
    """Open what a run starts from, before any image is decoded.

    Args:
        stored: the description of the run's own newest checkpoint; empty before it
            has one.

    Returns:
        The source; None for a run that is resumed or starts from nothing.

    Raises:
        UserError: as `open_source`; or a run is resumed that started from another
            checkpoint of its source.
    """
    if not config.transfer.init_from:
        return None
    if config.transfer.whitening_images:
        raise UserError(
            f"--whitening_images={config.transfer.whitening_images} computes weights "
            "that --init_from brings; leave one of them out"
        )
    which = config.checkpoint.checkpoint
    if not stored:
        keeps, key = config.transfer.keep_optimizer, config.transfer.init_key
        return open_source(config.transfer.init_from, which, terminal, keeps, key)
    check_same_checkpoint(config, stored)
    return None


def check_same_checkpoint(config: Config, stored: Mapping[str, Any]) -> None:
    """Refuse to resume a run as one that started from another `--checkpoint`.

    Args:
        stored: the description of the run's newest checkpoint.
    """
    which = config.checkpoint.checkpoint
    taken = stored.get("transfer", {}).get("source_checkpoint", "latest")
    if which != taken:
        raise UserError(
            f"This run started from --checkpoint={taken} of its --init_from, not "
            f"{which}; give that to resume it, or another --workdir to start from "
            "scratch"
        )


def find_run(init_from: str) -> Path | None:
    """Return the directory of the run that `--init_from` names, or a checkpoint of."""
    path = Path(init_from)
    runs = path, path.resolve().parent.parent
    return next((x for x in runs if (x / "checkpoints").is_dir()), None)


def warn_of_trained(
    config: Config, source: Source | None, dataset: Dataset, terminal: Terminal
) -> None:
    """Print how many images to select on or to test on the source was trained on."""
    run = find_run(config.transfer.init_from) if source else None
    if run:
        data = source.description.get("data", {})
        same_data.warn_of_trained(run, data, dataset, terminal)


def check_same_source(
    config: Config,
    before: str,
    stored: Mapping[str, Any],
    directory: Path,
    terminal: Terminal,
) -> None:
    """Refuse to resume a run whose `--init_from` names other weights than it took.

    Args:
        before: the run's `--init_from`, where this start names another place; else
            empty.
        stored: the description of the run's newest checkpoint; empty without one.

    Raises:
        UserError: naming both, with the digests of their weights.
    """
    now = config.transfer.init_from
    if not before:
        return
    taken = stored.get("transfer", {}).get("source_sha256", "")
    keeps, key = config.transfer.keep_optimizer, config.transfer.init_key
    which = config.checkpoint.checkpoint
    found = open_source(now, which, terminal, keeps, key).sha256
    if found != taken:
        raise UserError(
            f"{directory} holds another run: it took --init_from={before} (weights "
            f"{taken[:12] or 'unknown'}), and --init_from={now} holds others "
            f"({found[:12]}). Give its own, or another --workdir to start from scratch"
        )


def choose_scaling(
    config: Config,
    source: Source | None,
    stored: Mapping[str, Any],
    dataset: Dataset,
    terminal: Terminal,
) -> exchange.Scaling | None:
    """Choose how pixels are scaled, and print it: as for the source, unless given.

    Args:
        source: as of `open_start`.
        stored: as of `open_start`.

    Returns:
        mean [C] and std [C]; None where the options alone decide.

    Raises:
        UserError: a file's weights come without numbers, and none are given.
    """
    if source is None:
        return (tuple(stored["mean"]), tuple(stored["std"])) if stored else None
    data, channels = config.data, dataset.train.shape[2]
    is_given = data.scaling != "standardize" or bool(data.mean or data.std)
    if not source.description:
        stated = source.stated.options if source.stated else {}
        if stated.get("mean") and not is_given:
            said = f"as {source.stated.file} says"
            chosen = tuple(_fit_channels(stated[x], channels) for x in ("mean", "std"))
        else:
            said = "as given" if is_given else "the file does not say its own"
            chosen = exchange.choose_scaling(data, config.model, channels)
        terminal.say(f"scaling   {_show(chosen)}; {said}")
        return chosen
    theirs = tuple(
        _fit_channels(source.description[name], channels) for name in ("mean", "std")
    )
    if not is_given:
        terminal.say(f"scaling   as the source's: {_show(theirs)}")
        return theirs
    ours = compute_scaling(data.scaling, data.mean, data.std, dataset.train)
    if not all(np.allclose(x, y) for x, y in zip(ours, theirs, strict=True)):
        terminal.say(
            "warning   the images are scaled otherwise than the source's "
            f"({_show(theirs)}); leave out --scaling, --mean and --std to scale them "
            "as it did"
        )
    return ours


def _fit_channels(numbers: Sequence[float], channels: int) -> tuple[float, ...]:
    """Bring a channel's numbers to another number of channels, by their mean."""
    if len(numbers) != channels:
        numbers = [float(np.mean(numbers))] * channels
    return tuple(numbers)


def _show(pixels: exchange.Scaling) -> str:
    mean, std = (format_value(tuple(round(x, 4) for x in part)) for part in pixels)
    return f"mean {mean}, std {std}"
