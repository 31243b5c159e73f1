"""How images were scaled for weights whose file does not say."""

import numpy as np

from cnn import models, option
from cnn.data.options import DataOptions
from cnn.errors import UserError

Scaling = tuple[tuple[float, ...], tuple[float, ...]]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def choose_scaling(data: DataOptions, model: str, channels: int) -> Scaling:
    """Return mean and std of each channel, as a file's weights were trained with.

    Args:
        data: `scaling`, `mean` and `std` of the user; where those are not given,
            colour models for ImageNet have ImageNet's.

    Returns:
        mean [C] and std [C], in the units of images in [0, 1].

    Raises:
        UserError: they are neither given nor known.
    """
    if data.scaling == "unit":
        return (0.0,) * channels, (1.0,) * channels
    if data.scaling == "symmetric":
        return (0.5,) * channels, (0.5,) * channels
    mean, std = data.mean, data.std
    is_imagenet = models.get_published_input(model)[0] >= 224
    if is_imagenet and channels == 3:
        mean, std = mean or _IMAGENET_MEAN, std or _IMAGENET_STD
    for name, given in (("mean", mean), ("std", std)):
        if len(given) not in (1, channels):
            raise UserError(
                f"--{name}={option.format_value(given)}: give the {channels} numbers "
                "that the weights were trained with, or --scaling=unit"
            )
    mean, std = (tuple(np.broadcast_to(x, channels).tolist()) for x in (mean, std))
    return mean, std
