"""How images are prepared as for published weights: the option `--preprocessing`.

Weights that only their training tells apart have the same names and shapes. Which of
them a file is follows from the first digits of its SHA-256, which torchvision writes in
the file's name too; where neither says so, the oldest are taken, and that is printed.
"""

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax

from cnn import models
from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.data.options import SIZES, DataOptions
from cnn.errors import UserError, suggest
from cnn.models import published
from cnn.models.published import Weights
from cnn.models.variables import create_variables, flatten_paths
from cnn.runtime.terminal import Terminal
from cnn.weights import exchange, hub, load, proposed_sizes
from cnn.weights.beside import Stated
from cnn.weights.flax_names import is_flax
from cnn.weights.spelling import TORCHVISION

AUTO, GIVEN, PUBLISHED = "auto", "given", "published"
_SIZES = ("image_size", "resize_mode", "resize_size", "resize_interpolation")
_CHANGING = {"init_from", "init_key", "model"}  # what the weights follow from


def check(model: str, wanted: str) -> None:
    """Refuse a `--preprocessing` that a model does not have.

    Raises:
        UserError: naming those that it has.
    """
    if wanted in (AUTO, GIVEN):
        return
    names = [x.name for x in list_weights(model)]
    if not names:
        raise UserError(
            f"--preprocessing={wanted}: no weights of --model={model} were published; "
            "give --image_size, --resize_size, --mean and --std, or leave it out"
        )
    if wanted not in (PUBLISHED, *names):
        known = [AUTO, GIVEN, PUBLISHED, *names]
        raise UserError(
            f"--preprocessing={wanted} is unknown for --model={model}"
            f"{suggest(wanted, known)}"
        )


def list_weights(model: str) -> tuple[Weights, ...]:
    """List the published weights of a model, the oldest first."""
    return published.PUBLISHED[model].weights if model in published.PUBLISHED else ()


def resolve(config: Config, directory: Path, terminal: Terminal) -> Config:
    """Fill in what training leaves open of images: see `_take_published`.

    Sizes that even then are open may be left to the files, see `proposed_sizes`.
    """
    config = _take_published(config, directory, terminal)
    return proposed_sizes.propose(config, directory, terminal)


def _take_published(config: Config, directory: Path, terminal: Terminal) -> Config:
    """Fill in what is open of images, as for the weights that training starts from.

    Args:
        directory: of the run; one that is resumed keeps what it took.

    Returns:
        The options; `preprocessing` names the weights whose evaluation they are of.

    Raises:
        UserError: as `check`; or a sweep varies what it depends on.
    """
    model, wanted = config.model.model, config.data.preprocessing
    source = config.transfer.init_from
    if wanted == GIVEN or (wanted == AUTO and not source):
        return config
    if changing := _CHANGING & {*_list_swept(config)}:
        if wanted == AUTO:
            return config
        raise UserError(
            f"--preprocessing={wanted} depends on --{min(changing)}, which --sweep "
            "varies; leave it out, and give --image_size, --mean and --std"
        )
    taken, path = _find_taken(directory), find_file(source)
    if taken and wanted in (AUTO, PUBLISHED):
        wanted = taken
        if wanted in (AUTO, GIVEN):
            return config
    elif wanted == AUTO:
        which, key = config.checkpoint.checkpoint, config.transfer.init_key
        if path is None or not is_published(
            config, load.load_weights(source, "--init_from", which, key)
        ):
            return config
        wanted = PUBLISHED
    stated, name = describe(model, wanted, path)
    data, said = fill(config.data, stated, _list_swept(config))
    if said and not taken:
        terminal.say(f"source    {stated.file} says: {said}")
    data = dataclasses.replace(data, preprocessing=name)
    return dataclasses.replace(config, data=data)


def _list_swept(config: Config) -> list[str]:
    """List the options that a sweep varies."""
    return re.findall(r"(?:^|;)\s*(\w+)\s*=", config.sweep.sweep)


def _find_taken(directory: Path) -> str:
    """Return what a run that is there has resolved; empty where there is none."""
    try:
        return workdir.read_config(directory).get("preprocessing", AUTO)
    except UserError:
        return ""  # or a damaged one, which is refused when it is resumed


def find_file(source: str) -> Path | None:
    """Return the file of this machine that a source names; None where it is none."""
    path = Path(source)
    return path if source and not hub.is_name(source) and path.is_file() else None


def is_published(config: Config, found: load.Weights) -> bool:
    """Return whether weights have the names and classes of published ones.

    What files beside them say of images is of them, and not what was published.
    """
    model, leaves = config.model.model, found.leaves
    says = bool(found.stated and found.stated.options)
    if says or not list_weights(model) or is_flax(leaves):
        return False
    shapes, classes = _find_shapes(config)
    spelling, entries = exchange.choose_spelling(model, shapes, leaves)
    if spelling.library != TORCHVISION or not any(x.name in leaves for x in entries):
        return False
    return exchange.count_classes(model, shapes, leaves) == classes


def _find_shapes(config: Config) -> tuple[Mapping[str, Any], int]:
    """Return the shapes of the published model's leaves by path, and its classes."""
    size, channels, classes = models.get_published_input(config.model.model)
    model = models.create_model(config.make_static().model, classes)
    shape = (size, size, channels)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, shape))
    return flatten_paths(shapes), classes


def describe(model: str, wanted: str, path: Path | None) -> tuple[Stated, str]:
    """Choose among a model's published weights.

    Args:
        wanted: the name of some, or `published` for those that a file is.
        path: of the file; None without one.

    Returns:
        What their evaluation says of images, and their name.

    Raises:
        UserError: as `check`.
    """
    check(model, wanted)
    found = list_weights(model)
    if wanted != PUBLISHED:
        chosen, why = next(x for x in found if x.name == wanted), "as given"
    else:
        chosen, why = _tell(found, path)
    where = f"the evaluation of {chosen.name} ({why})"
    return Stated(where, options=chosen.options), chosen.name


def _tell(found: tuple[Weights, ...], path: Path | None) -> tuple[Weights, str]:
    """Tell which weights a file is, and write how."""
    if len(found) == 1:
        return found[0], "the only one published"
    if path is not None:
        for chosen in found:
            if _is_in(path.name, (chosen.sha256, chosen.name)):
                return chosen, "so the file's name says"
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        for chosen in found:
            if chosen.sha256 and digest.startswith(chosen.sha256):
                return chosen, "so the file's SHA-256 says"
    others = ", ".join(x.name for x in found[1:])
    why = "the file does not say which it is" if path is not None else "the oldest"
    return found[0], f"{why}; --preprocessing= names others: {others}"


def _is_in(file: str, parts: Collection[str]) -> bool:
    return any(part and part.lower() in file.lower() for part in parts)


def fill(
    data: DataOptions, stated: Stated, swept: Collection[str] = ()
) -> tuple[DataOptions, str]:
    """Fill in what is not given of images as is stated.

    Sizes are one whole, and so are mean and std: who gives one has to give the others.

    Args:
        swept: options that are given otherwise.

    Returns:
        The options, and what was taken, in flags.
    """
    given = set()
    is_sized = data.training_size or data.resize_size or data.storage_size
    if is_sized or {*_SIZES, *SIZES} & {*swept}:
        given |= {*_SIZES}
    is_scaled = data.scaling != "standardize" or data.mean or data.std
    is_scaled = is_scaled or data.channels == 1 < len(stated.options.get("mean", ()))
    if is_scaled or {"scaling", "mean", "std"} & {*swept}:
        given |= {"mean", "std"}
    if data.channels:
        given |= {"channels"}
    taken = {n: x for n, x in stated.options.items() if n not in given}
    said = dataclasses.replace(stated, options=taken).describe()
    return dataclasses.replace(data, **taken), said
