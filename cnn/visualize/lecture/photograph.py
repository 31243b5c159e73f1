"""Classic kernels and ways to shrink an image, on a photograph.

Images are float32 [H, W, C] in 0..1.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cnn.ops import convolution, kernels, pooling, rearrange

CREDIT = "by danielbuechele, CC BY 2.0,\nin scikit-learn"
_TOP, _LEFT, _SIDE = 0, 130, 320
FILTERS: dict[str, np.ndarray] = {
    "box blur 3×3": kernels.box_blur(3),
    "box blur 5×5": kernels.box_blur(5),
    "Gaussian blur 7×7, σ 1.5": kernels.gaussian(7, 1.5),
    "sharpen": np.asarray(kernels.SHARPEN, np.float32),
    "vertical edges": np.asarray(kernels.SOBEL_VERTICAL, np.float32),
    "horizontal edges": np.asarray(kernels.SOBEL_HORIZONTAL, np.float32),
    "diagonal edges": np.asarray(kernels.SOBEL_DIAGONAL, np.float32),
    "antidiagonal edges": np.asarray(kernels.SOBEL_ANTIDIAGONAL, np.float32),
}


def load_photograph() -> np.ndarray:
    """Load the photograph of a Chinese palace that scikit-learn brings along.

    Returns:
        float32 [320, 320, 3].
    """
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg")
    cut = image[_TOP : _TOP + _SIDE, _LEFT : _LEFT + _SIDE]
    return cut.astype(np.float32) / 255


def apply_filters(image: np.ndarray) -> dict[str, np.ndarray]:
    """Apply each of `FILTERS` to the grey image.

    Args:
        image: [H, W, C].

    Returns:
        By the filter's name, float32 [H, W]; answers of edges are signed.
    """
    grey = jnp.asarray(image.mean(axis=-1))[None, :, :, None]
    # Beyond its border the image repeats its outermost pixels, so that the filters do
    # not answer to the frame.
    return {
        name: np.asarray(_filter(grey, kernel))[0, :, :, 0]
        for name, kernel in FILTERS.items()
    }


def shrink(image: np.ndarray, factor: int = 8) -> dict[str, np.ndarray]:
    """Shrink an image by each way of down-sampling.

    Args:
        image: [H, W, C], H and W multiples of the factor.
        factor: pixels of the input by pixel of the output, on each axis.

    Returns:
        By name, float32 [H / factor, W / factor, C]; `space_to_depth`, which keeps
        every pixel, has factor² · C channels.
    """
    x = jnp.asarray(image)[None]
    channels = image.shape[-1]
    # A convolution of one pixel that leaves channels alone, so that it only skips.
    first = jnp.eye(channels)[None, None]
    blurred = _filter(x, kernels.gaussian(2 * factor + 1, factor / 2))
    shrunk = {
        "stride": convolution.conv2d(x, first, stride=factor),
        "max_pool": pooling.max_pool2d(x, factor),
        "avg_pool": pooling.avg_pool2d(x, factor),
        "blur, then stride": convolution.conv2d(blurred, first, stride=factor),
        "space_to_depth": rearrange.space_to_depth(x, factor),
    }
    return {name: np.asarray(y)[0] for name, y in shrunk.items()}


def _filter(images: jax.Array, kernel: np.ndarray) -> jax.Array:
    """Convolve each channel; beyond the border its outermost pixels are repeated."""
    rim = kernel.shape[0] // 2
    sides = ((0, 0), (rim, rim), (rim, rim), (0, 0))
    padded = jnp.pad(images, sides, mode="edge")
    return kernels.apply_per_channel(padded, kernel, "valid")
