"""A model's weights as images.

Kernels are float32 [S, S, C / groups, O] as the model has them, or [O, H, W, C] as
images; in what is scaled for showing, 0 is black, 1 white and a weight of 0 is 0.5.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from cnn.visualize.compute.layers import Layer


@dataclasses.dataclass(frozen=True)
class PixelWeights:
    """The weights that a model has for each pixel of the whole image.

    Attributes:
        images: float32 [O, H, W, C], one a class or unit.
        are_of_classes: whether they give the logits, or hidden units.
    """

    images: np.ndarray
    are_of_classes: bool


def find_pixel_weights(
    layers: Sequence[Layer], image_shape: tuple[int, int, int]
) -> PixelWeights | None:
    """Find the weights that a model has for each pixel of the whole image.

    Args:
        layers: the model's.
        image_shape: (H, W, C).

    Returns:
        Those of a first layer that is dense over all pixels, or of an only one whose
        kernels are as large as the image; None for a model that has no such layer.
    """
    kernel, is_only = layers[0].kernel, len(layers) == 1
    if kernel.shape[:-1] == (math.prod(image_shape),):
        images = as_images(kernel.reshape(*image_shape, -1))
        return PixelWeights(images, is_only)
    if is_only and kernel.shape[:-1] == image_shape:
        return PixelWeights(as_images(kernel), True)
    return None


def find_columns(layers: Sequence[Layer]) -> tuple[int, str]:
    """Find into how many columns the next layer parts the first layer's kernels.

    The two-column AlexNet is so: each half of its second layer's kernels sees one half
    of the first layer's channels. A layer that takes each channel alone has no columns.

    Args:
        layers: the model's.

    Returns:
        How many equal parts of neighbouring channels there are, and the name of the
        layer that keeps them apart; 1 and nothing if none does.

    Source: Krizhevsky et al. 2012, figures 2 and 3, https://papers.nips.cc/paper/4824
    """
    first = layers[0]
    for layer in layers[1:2]:
        is_next = layer.after == {first.path} and layer.is_convolution
        if is_next and 1 < layer.groups < first.kernel.shape[-1]:
            return layer.groups, layer.name
    return 1, ""


def as_images(kernel: np.ndarray) -> np.ndarray:
    """Bring a kernel [S, S, C, O] to images [O, S, S, C]."""
    return np.moveaxis(np.asarray(kernel, np.float32), -1, 0)


def sort_by_size(images: np.ndarray) -> np.ndarray:
    """Return the order of kernels [O, H, W, C] by their norm, largest first: [O]."""
    return np.argsort(-_compute_norms(images), kind="stable")


def sort_columns(images: np.ndarray, columns: int) -> list[np.ndarray]:
    """Return, for each of equal parts of neighbouring kernels, the order by their norm.

    Args:
        images: [O, H, W, C].
        columns: how many parts.

    Returns:
        Positions among all, [O / columns] for each part.
    """
    parts = np.split(np.arange(len(images)), columns)
    return [part[sort_by_size(images[part])] for part in parts]


def find_negligible(images: np.ndarray) -> np.ndarray:
    """Find the kernels [O, H, W, C] that weight decay has left nearly nothing of.

    Returns:
        bool [O], whether the norm is below 2 % of the largest; in the converted
        ResNet-20 of CIFAR-10 such kernels stay below 1.2 %, the others above 3 %.
    """
    norms = _compute_norms(images)
    return norms < 0.02 * norms.max()


def scale_each(images: np.ndarray, is_weak: np.ndarray) -> np.ndarray:
    """Scale each kernel to -1..1 by its own greatest weight: [O, H, W, C].

    Those that are weak, bool [O], become 0: blown up they would look like the others.
    """
    most = np.max(np.abs(images), axis=(1, 2, 3), keepdims=True)
    scaled = images / np.maximum(most, np.finfo(np.float32).tiny)
    return np.where(is_weak[:, None, None, None], 0, scaled)


def shift_right(images: np.ndarray, pixels: int) -> np.ndarray:
    """Move images to the right; what comes in from the left is black.

    Args:
        pixels: by how many, at least 0.
    """
    width = images.shape[2]
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, 0), (0, 0)))
    return padded[:, :, :width]


def _compute_norms(images: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(np.square(images.reshape(len(images), -1)), axis=1))
