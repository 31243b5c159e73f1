"""Where weights come from, and how a run's images are scaled for them.

A source is a run of ours, one of its checkpoints, or a PyTorch file. Names in it are
its own: `params/stem/kernel` in checkpoints, PyTorch's in files.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.checkpoints import checkpoint, manifest, workdir
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
from cnn.weights import exchange

_SUFFIXES = (".pth", ".th", ".pt", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights with what is known of them.

    Attributes:
        name: what the user called them.
        is_file: whether they are PyTorch's.
        arrays: by the source's own names.
        description: what a checkpoint says of itself; empty for files.
        sha256: over names, dtypes, shapes and bytes of the arrays.
        checkpoint: what they were read from; None for files.
    """

    name: str
    is_file: bool
    arrays: Mapping[str, np.ndarray]
    description: Mapping[str, Any]
    sha256: str
    checkpoint: Path | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the classes' names; empty where the source does not name them."""
        if not self.description.get("classes_are_named", bool(self.description)):
            return ()
        return tuple(self.description["class_names"])


def open_source(
    init_from: str, which: str, terminal: Terminal, keeps_optimizer: bool = False
) -> Source:
    """Read the weights that `--init_from` names, and print which they are.

    Args:
        init_from: a run, a checkpoint, or a file.
        which: of `--checkpoint`, for a run.
        keeps_optimizer: take the weights that the optimizer stepped, not their average.

    Raises:
        UserError: there are none, or they are damaged; or `which` is for a run.
    """
    path = Path(init_from)
    is_file = path.suffix in _SUFFIXES and not path.is_dir()
    is_run = (path / workdir.CONFIG_FILE).exists() or (path / "checkpoints").is_dir()
    if which != "latest" and (is_file or not is_run):
        raise UserError(
            f"--checkpoint={which} chooses among the checkpoints of a run, but "
            f"--init_from={init_from} is none; leave it out, or give a run's directory"
        )
    if is_file:
        if not path.is_file():
            raise UserError(f"--init_from={path} does not exist")
        return _make_source(init_from, True, exchange.load_file(path), {})
    if is_run:
        path = path / "checkpoints" / str(manifest.find_step(path, which))
        terminal.say(f"source    {init_from}, step {path.name} ({which})")
    if not path.exists():
        raise UserError(f"--init_from={init_from} does not exist")
    if not (path / manifest.MANIFEST).exists():
        raise UserError(
            f"--init_from={init_from} holds no weights; give a run's directory, one of "
            f"its checkpoints DIR/checkpoints/STEP, or a file ({', '.join(_SUFFIXES)})"
        )
    try:
        description = manifest.read_description(path)
        averaged = weight_averaging.is_on(description["options"])
        averaged = averaged and not keeps_optimizer
        everywhere = devices.replicated(devices.make_mesh())
        variables = checkpoint.read_variables(path, averaged, everywhere)
    except manifest.DamagedCheckpoint as error:
        raise UserError(f"--init_from={init_from}: {error}") from None
    arrays = jax.tree.map(np.asarray, flatten_paths(variables))
    source = _make_source(init_from, False, arrays, description)
    return dataclasses.replace(source, checkpoint=path)


def rename(
    arrays: Mapping[str, np.ndarray], rules: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Rename arrays by `--init_rename`, all at once, so that names may be exchanged.

    Args:
        rules: `pattern->new`, of names without their collection.

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
        keeps_optimizer = config.transfer.keep_optimizer
        return open_source(config.transfer.init_from, which, terminal, keeps_optimizer)
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
    keeps_optimizer = config.transfer.keep_optimizer
    which = config.checkpoint.checkpoint
    found = open_source(now, which, terminal, keeps_optimizer).sha256
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
        chosen = exchange.choose_scaling(data, config.model.model, channels)
        terminal.say(f"scaling   {_show(chosen)}; the file does not say its own")
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
