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
    """Average what a model says of views of each image.

    Args:
        predict: maps images [N, h, w, C] to logits [N, K].
        images: [N, H, W, C].
        tta: `none` (the centre), `flip` (the centre and its mirror image), `crops`
            (the four corners, the centre, and their mirror images) or `shifts` (the
            centre, which counts twice, moved by a pixel up and left, down and right,
            and their mirror images).
        image_size: height and width of a view; 0: as the images are.

    Returns:
        float32 [N, K]: the logits of one view; the mean logits of `shifts`; else the
        logarithms of the mean probabilities, whose softmax is that mean.

    Source: Krizhevsky et al. 2012, section 4.1, averages the ten views' softmax;
        Jordan 2024, https://arxiv.org/abs/2404.00498, the logits of shifted ones.
    """
    views = make_views(images, tta, image_size)
    logits = [predict(view).astype(jnp.float32) for view in views]
    if len(views) == 1:
        return logits[0]
    if tta == "shifts":
        weights = jnp.array([0.25, 0.125, 0.125] * 2)
        return jnp.tensordot(weights, jnp.stack(logits), 1)
    logs = jnp.stack([jax.nn.log_softmax(view) for view in logits])
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(len(views))


def make_views(images: jax.Array, tta: str, image_size: int = 0) -> list[jax.Array]:
    """Return the views of images [N, H, W, C], each [N, image_size, image_size, C]."""
    height, width = images.shape[1:3]
    size = (image_size or height, image_size or width)
    bottom, right = height - size[0], width - size[1]
    top, left = bottom // 2, right // 2
    corners = [(top, left)]
    if tta == "crops":
        corners += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    if tta == "shifts":
        images = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        corners = [(top + move, left + move) for move in (1, 0, 2)]
    views = [
        images[:, top : top + size[0], left : left + size[1]] for top, left in corners
    ]
    if tta != "none":
        views += [view[:, :, ::-1] for view in views]
    return views
