"""The numbers that images are normalised by, computed exactly from the training set.

A pixel value v in 0..255 becomes (v / 255 - mean) / std, channel by channel; mean
and std are in the units of images in [0, 1].
"""

import numpy as np

from cnn import option
from cnn.data import images
from cnn.errors import UserError

_CHUNK_BYTES = 2**24


def compute_mean_std(
    examples: images.Images,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute each channel's mean and standard deviation over all pixels.

    Sums are whole numbers, so the result does not depend on order or chunks. The
    standard deviation is that of the population; that of a constant channel is 1
    instead of 0, so that normalising leaves the channel at 0.

    Returns:
        mean [C] and std [C], in the units of images in [0, 1].
    """
    height, width, channels = examples.shape
    chunk = max(1, _CHUNK_BYTES // (height * width * channels))
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(examples), chunk):
        stop = min(start + chunk, len(examples))
        pixels = examples.read(np.arange(start, stop)).reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(pixels[:, channel], minlength=256)
    return summarise_histograms(counts)


def summarise_histograms(
    counts: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation from how often each value occurs.

    Args:
        counts: whole numbers [C, 256], one pixel at least in each channel.

    Returns:
        As `compute_mean_std`.
    """
    values = np.arange(256, dtype=object)
    means, stds = [], []
    for histogram in counts.astype(object):
        n = int(histogram.sum())
        total, squares = int(histogram @ values), int(histogram @ values**2)
        variance = (n * squares - total * total) / (n * n)
        means.append(total / n / 255)
        stds.append(variance**0.5 / 255 if variance else 1.0)
    return tuple(means), tuple(stds)


def compute_scaling(
    scaling: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    examples: images.Images,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std, one number a channel, of a `--scaling`.

    Args:
        scaling: `unit` (0..1), `symmetric` (-1..1) or `standardize`.
        mean: for standardize, one number for all channels or one for each; empty:
            computed.
        std: likewise.
        examples: the training set.

    Raises:
        UserError: there are more or fewer numbers than channels.
    """
    channels = examples.shape[-1]
    if scaling == "unit":
        return (0.0,) * channels, (1.0,) * channels
    if scaling == "symmetric":
        return (0.5,) * channels, (0.5,) * channels
    for name, given in (("mean", mean), ("std", std)):
        if len(given) not in (0, 1, channels):
            raise UserError(
                f"--{name}={option.format_value(given)}: the images have {channels} "
                f"channels; give {channels} numbers, or one for all"
            )
    if not (mean and std):
        computed_mean, computed_std = compute_mean_std(examples)
        mean, std = mean or computed_mean, std or computed_std
    mean, std = (tuple(np.broadcast_to(x, channels).tolist()) for x in (mean, std))
    return mean, std
