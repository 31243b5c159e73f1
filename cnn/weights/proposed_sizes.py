"""Sizes that photos are brought to: the option `--choose_sizes=files`.

They follow from the weights that training starts from, else from the files. A run that
is resumed keeps what it took.
"""

import dataclasses
import statistics
from pathlib import Path

from cnn import models
from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.data import folder
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal

_LARGEST = 224  # pixels: what most published models of the lecture's families see
_STEP = 32  # pixels: what a model of five halvings divides


def propose(config: Config, directory: Path, terminal: Terminal) -> Config:
    """Choose `image_size` and `storage_size` where they are left to the files.

    Args:
        directory: of the run.

    Returns:
        The options; images are stored an eighth larger than the model sees them, for
        random crops.

    Raises:
        UserError: the folder is not there, or is not laid out as one of classes.
    """
    data = config.data
    is_given = data.training_size and (data.storage_size or not data.resize_size)
    is_read = data.choose_sizes == "files" and data.dataset.startswith("folder:")
    if not is_read or is_given:
        return config
    if stored := _find_stored(directory):
        return dataclasses.replace(config, data=dataclasses.replace(data, **stored))
    size, why = data.training_size, "the weights' evaluation"
    if not size:
        size, why = _follow_weights(config)
    if not size:
        size, why = _follow_files(data)
    sizes = {"image_size": size, "storage_size": find_stored_size(size)}
    text = " ".join(f"--{name}={value}" for name, value in sizes.items())
    terminal.say(f"sizes     {text}: {why}")
    return dataclasses.replace(config, data=dataclasses.replace(data, **sizes))


def find_stored_size(size: int) -> int:
    """Return the pixels to store for crops of `size`: 256 for 224, a multiple of 8."""
    return -(-size * 8 // 7 // 8) * 8


def find_size(shorter: float) -> int:
    """Return the pixels that a model is to see of files with so many.

    Args:
        shorter: the median of their shorter sides.
    """
    return int(min(max(shorter * 7 / 8 // _STEP * _STEP, _STEP), _LARGEST))


def _find_stored(directory: Path) -> dict[str, int]:
    """Return the sizes that a run which is there has taken; empty where none is."""
    try:
        stored = workdir.read_config(directory)
    except UserError:
        return {}
    names = ("image_size", "storage_size")
    is_taken = stored.get("choose_sizes") == "files"
    return {name: stored[name] for name in names} if is_taken else {}


def _follow_weights(config: Config) -> tuple[int, str]:
    """Return what weights have seen, and whose; 0 where there are none."""
    source = config.transfer.init_from
    if not source:
        return 0, ""
    try:
        options = DataOptions(
            image_size=workdir.read_config(Path(source))["image_size"]
        )
        if options.image_size:
            return options.image_size, f"the images of {source}"
    except (UserError, KeyError):
        pass
    size = models.get_published_input(config.model.model, config.model.stem)[0]
    return size, f"the images that {config.model.model} was published for"


def _follow_files(data: DataOptions) -> tuple[int, str]:
    found = folder.measure(data)
    shorter = [min(size) for size in found]
    middle, low, high = statistics.median(shorter), min(shorter), max(shorter)
    why = f"of {len(found)} files the shorter side is {low} to {high} pixels, "
    return find_size(middle), f"{why}half of them {middle:g} or more"
