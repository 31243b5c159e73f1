"""The first convolution as a whitening of the patches that it sees.

Source: Jordan 2024, https://arxiv.org/abs/2404.00498, after
    https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks

Patches are of scaled images: a scaling is mean [C] and std [C] of images in [0, 1].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnn.data.images import Images
from cnn.errors import UserError
from cnn.transfer.options import TransferOptions
from cnn.weights.exchange import Scaling

_CHUNK = 256


def compute_moments(
    images: Images, count: int, scaling: Scaling, side: int
) -> np.ndarray:
    """Compute the second moments of patches, not centred.

    Args:
        images: the training set, whose first `count` are used.
        side: S of the patches, in pixels.

    Returns:
        float64 [D, D], D = S * S * C, rows before columns before channels.
    """
    mean, std = (np.float32(x) for x in scaling)
    moments, patches_seen = np.zeros(()), 0
    for start in range(0, count, _CHUNK):
        x = images.read(np.arange(start, min(start + _CHUNK, count)))
        x = (x.astype(np.float32) / 255 - mean) / std
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
        # [N, H', W', C, S, S] to [N * H' * W', S * S * C]
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, side**2 * x.shape[3])
        moments = moments + (patches.T @ patches).astype(np.float64)
        patches_seen += len(patches)
    return moments / patches_seen


def make_kernel(
    moments: np.ndarray, shape: tuple[int, int, int, int], epsilon: float
) -> np.ndarray:
    """Make the kernel whose outputs are uncorrelated and of mean square 1.

    Args:
        moments: [D, D] of `compute_moments`.
        shape: (S, S, C, O) of the kernel, S * S * C = D, O even and at most 2 D.
        epsilon: added to the mean squares before their root divides.

    Returns:
        float32 [S, S, C, O]: the O / 2 directions of largest mean square, largest
        first, each over the root of its mean square; then their negatives.
    """
    squares, directions = np.linalg.eigh(moments)
    chosen = np.argsort(-squares)[: shape[-1] // 2]
    filters = directions[:, chosen] / np.sqrt(np.maximum(squares[chosen], 0) + epsilon)
    return np.concatenate([filters, -filters], 1).reshape(shape).astype(np.float32)


def find_kernel(model: str, layers: Sequence[str], shapes: Mapping[str, Any]) -> str:
    """Find the kernel of a model's first layer.

    Args:
        layers: its layers in the order in which they run.

    Returns:
        The path, with `params/`.

    Raises:
        UserError: the layer is no convolution that can hold a whitening.
    """
    path = f"params/{layers[0]}/kernel"
    shape = shapes[path].shape if path in shapes else ()
    if len(shape) != 4:
        raise UserError(
            f"--whitening_images: the first layer of {model}, {layers[0]}, is no "
            "convolution; leave it out, or give --model=airbench94"
        )
    most, outputs = 2 * int(np.prod(shape[:3])), shape[3]
    if outputs % 2 or outputs > most:
        raise UserError(
            f"--whitening_images: the first convolution of {model} has {outputs} "
            f"outputs, and a whitening needs an even number of at most {most}"
        )
    return path


def compute_kernel(
    options: TransferOptions,
    shape: tuple[int, int, int, int],
    scaling: Scaling,
    images: Images,
) -> np.ndarray:
    """Compute the first convolution's kernel from the training set.

    Args:
        shape: (S, S, C, O) of the kernel.

    Returns:
        float32 [S, S, C, O].
    """
    count = min(options.whitening_images, len(images))
    moments = compute_moments(images, count, scaling, shape[0])
    return make_kernel(moments, shape, options.whitening_epsilon)
