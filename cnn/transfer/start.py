"""What a run starts from, and how its images are scaled for these weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.data.images import Dataset
from cnn.data.statistics import compute_scaling
from cnn.errors import UserError
from cnn.options import format_value
from cnn.progress import Terminal
from cnn.transfer.source import Source, open_source
from cnn.weights import preprocessing

if TYPE_CHECKING:
    from cnn.config import Config


def open_start(
    config: "Config", stored: Mapping[str, Any], dataset: Dataset, terminal: Terminal
) -> tuple[Source | None, preprocessing.Scaling | None]:
    """Open what a run starts from.

    Args:
        config: every option.
        stored: the description of the run's own newest checkpoint; empty before it
            has one.
        dataset: the images.
        terminal: told how pixels are scaled.

    Returns:
        The source, None for a run that goes on or starts from nothing; the scaling
        that goes with it, None where the options alone decide.

    Raises:
        UserError: as `open_source` and `choose_scaling`; or a flag for a source is
            given without one.
    """
    if not config.transfer.init_from:
        for name in ("init_reset", "init_skip", "init_rename"):
            if value := getattr(config.transfer, name):
                raise UserError(
                    f"--{name}={format_value(value)} is for weights that are taken "
                    "from somewhere; give --init_from"
                )
        return None, None
    if config.transfer.whitening_images:
        raise UserError(
            f"--whitening_images={config.transfer.whitening_images} computes weights "
            "that --init_from brings; leave one of them out"
        )
    if stored:
        return None, (tuple(stored["mean"]), tuple(stored["std"]))
    source = open_source(config.transfer.init_from)
    return source, choose_scaling(config, source, dataset, terminal)


def choose_scaling(
    config: "Config", source: Source, dataset: Dataset, terminal: Terminal
) -> preprocessing.Scaling:
    """Choose how pixels are scaled: as they were for the source, unless given.

    Args:
        config: every option.
        source: the weights.
        dataset: the images.
        terminal: told what was chosen.

    Returns:
        mean [C] and std [C].

    Raises:
        UserError: a file's weights come without numbers, and none are given.
    """
    data, channels = config.data, dataset.train.shape[2]
    is_given = data.scaling != "standardize" or bool(data.mean or data.std)
    if not source.description:
        chosen = preprocessing.choose_scaling(data, config.model.model, channels)
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


def _show(pixels: preprocessing.Scaling) -> str:
    mean, std = (format_value(tuple(round(x, 4) for x in part)) for part in pixels)
    return f"mean {mean}, std {std}"
