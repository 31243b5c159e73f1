"""What Python hands over as images: looked at before a model sees it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.training.trained import Trained, check_image_shape, make_classifier


def make_checked_classifier(trained: Trained) -> Callable[[Any], np.ndarray]:
    """Make the function from uint8 images [N, H, W, C] to probabilities [N, K].

    No images give no rows; the function raises ValueError for what `check_images`
    refuses.
    """
    classify = make_classifier(trained)

    def check_and_classify(images: Any) -> np.ndarray:
        images = np.asarray(images)
        if images.ndim and not len(images):
            return np.zeros((0, trained.structure.num_classes), np.float32)
        check_images(trained, images)
        return classify(images)

    return check_and_classify


def check_images(trained: Trained, images: np.ndarray) -> None:
    """Refuse an array that is no uint8 [N, H, W, C] of the run, saying how to mend it.

    Raises:
        ValueError: naming what is wrong.
    """
    is_whole = images.dtype == np.uint8
    if images.ndim != 4 or not is_whole:
        problem = f"images must be uint8 [N, H, W, C], not {images.dtype} "
        problem += f"{list(images.shape)}"
        if images.ndim == 3:
            problem += "; one image is images[None], grey ones are images[..., None]"
        raise ValueError(problem if is_whole else problem + _describe_range(images))
    if not images.size:
        raise ValueError(f"images {list(images.shape)} have no pixels")
    height, width, channels = trained.image_shape
    if images.shape[3] != channels:
        problem = (
            f"images have {images.shape[3]} channels, and the run takes {channels}"
        )
        if images.shape[1] == channels:
            problem += "; with channels first, give images.transpose(0, 2, 3, 1)"
        raise ValueError(problem)
    if images.shape[1:3] != (height, width):
        try:
            check_image_shape(trained, images.shape[1:])
        except UserError:
            raise ValueError(
                f"images are {images.shape[1]} pixels high and {images.shape[2]} wide, "
                f"and the run takes {height} and {width} alone; resize them"
            ) from None


def _describe_range(images: np.ndarray) -> str:
    """Say how an array of another type becomes uint8."""
    if images.dtype.kind not in "biuf" or not images.size:
        return "; give the pixels of decoded images, 0 to 255"
    low, high = images.min(), images.max()
    problem = f"; they hold {low:g} to {high:g}"
    if 0 <= low and high <= 1:
        return f"{problem}: give (images * 255).round().astype(np.uint8)"
    if 0 <= low and high <= 255:
        return f"{problem}: give images.round().astype(np.uint8)"
    return f"{problem}: give pixels from 0 to 255, neither scaled nor normalised"
