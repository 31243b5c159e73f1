"""Test-time averaging: several views of each image, one answer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def average_views(
    predict: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    tta: str = "none",
    image_size: int = 0,
) -> jax.Array:
    """Average the probabilities that views of each image get.

    Args:
        predict: maps images [N, h, w, C] to logits [N, K].
        images: [N, H, W, C].
        tta: `none` (the centre), `flip` (the centre and its mirror image) or `crops`
            (the four corners, the centre, and their mirror images).
        image_size: height and width of a view; 0: as the images are.

    Returns:
        float32 [N, K]: the logits of one view, or the logarithms of the mean
        probabilities of several, whose softmax is that mean.

    Source: Krizhevsky et al. 2012, section 4.1, averages the ten views' softmax.
    """
    views = make_views(images, tta, image_size)
    logits = [predict(view).astype(jnp.float32) for view in views]
    if len(views) == 1:
        return logits[0]
    logs = jnp.stack([jax.nn.log_softmax(view) for view in logits])
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(len(views))


def make_views(images: jax.Array, tta: str, image_size: int = 0) -> list[jax.Array]:
    """Return the views of images [N, H, W, C], each [N, image_size, image_size, C]."""
    height, width = images.shape[1:3]
    size = (image_size or height, image_size or width)
    bottom, right = height - size[0], width - size[1]
    corners = [(bottom // 2, right // 2)]
    if tta == "crops":
        corners += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    views = [
        images[:, top : top + size[0], left : left + size[1]] for top, left in corners
    ]
    if tta != "none":
        views += [view[:, :, ::-1] for view in views]
    return views
