"""The classic kernels of image processing, [S, S], and how to apply one.

They are made for cross-correlation, as `convolution.conv2d` computes it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cnn.ops import convolution
from cnn.ops.geometry import Padding

# Each answers to a rise of brightness: from left to right, from top to bottom, from
# the upper left to the lower right, from the upper right to the lower left.
SOBEL_VERTICAL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
SOBEL_HORIZONTAL = ((-1, -2, -1), (0, 0, 0), (1, 2, 1))
SOBEL_DIAGONAL = ((-2, -1, 0), (-1, 0, 1), (0, 1, 2))
SOBEL_ANTIDIAGONAL = ((0, -1, -2), (1, 0, -1), (2, 1, 0))
SHARPEN = ((0, -1, 0), (-1, 5, -1), (0, -1, 0))


def box_blur(size: int) -> np.ndarray:
    """Return the average of size × size pixels: every entry 1 / size².

    Raises:
        ValueError: size is not positive.
    """
    _check_size(size)
    return np.full((size, size), 1 / size**2, np.float32)


def gaussian(size: int, sigma: float) -> np.ndarray:
    """Return exp(−(i² + j²) / 2σ²) around the centre, divided by its sum.

    Args:
        sigma: standard deviation in pixels, positive.

    Returns:
        float32 [size, size] of sum 1.

    Raises:
        ValueError: size or sigma is not positive.
    """
    _check_size(size)
    if sigma <= 0:
        raise ValueError(f"sigma={sigma}: give a positive number of pixels")
    distance = np.arange(size) - (size - 1) / 2
    profile = np.exp(-(distance**2) / (2 * sigma**2))
    profile /= profile.sum()
    return np.outer(profile, profile).astype(np.float32)


def apply_per_channel(
    images: jax.Array, kernel: jax.Array | np.ndarray | tuple, padding: Padding = "same"
) -> jax.Array:
    """Convolve every channel with the same kernel.

    Returns:
        [N, H', W', C] in the images' dtype.

    Raises:
        ValueError: the kernel has not two axes, or the images have not four.
    """
    kernel = jnp.asarray(kernel, images.dtype)
    if kernel.ndim != 2:
        raise ValueError(f"kernel {list(kernel.shape)}: give a matrix [S, S]")
    if images.ndim != 4:
        raise ValueError(f"images {list(images.shape)}: give [N, H, W, C]")
    count, height, width, channels = images.shape
    # Channels join the batch: XLA's CPU backend is slow at grouped convolutions.
    planes = images.transpose(0, 3, 1, 2).reshape(-1, height, width, 1)
    planes = convolution.conv2d(planes, kernel[:, :, None, None], padding=padding)
    planes = planes.reshape(count, channels, *planes.shape[1:3])
    return planes.transpose(0, 2, 3, 1)


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size={size}: give a positive number of pixels")
