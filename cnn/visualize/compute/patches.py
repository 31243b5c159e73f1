"""The patches of images that excite a channel most, and what in them does.

`function` maps scaled images float32 [N, H, W, C] to (logits [N, K], features by
stage) and is a `jax.tree_util.Partial`, as `named_run.NamedRun.function` is; `images`
are such images.

Source: Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.visualize.compute import tracing
from cnn.visualize.compute.receptive_field import Field


@jax.jit
def find_peaks(
    function: Any, images: jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Find where each channel of each stage answers strongest in each image.

    Returns:
        By stage, the greatest value, float32 [N, channels], and its place, int32
        [N, channels], counted row by row.
    """
    _, features = function(images)
    found = {}
    for name, x in features.items():
        flat = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
        found[name] = jnp.max(flat, axis=1), jnp.argmax(flat, axis=1).astype(jnp.int32)
    return found


def choose_top(values: np.ndarray, count: int) -> np.ndarray:
    """Return the images in which each channel answers strongest.

    Args:
        values: [N, channels].
        count: how many images a channel.

    Returns:
        Positions [count, channels], strongest first.
    """
    return np.argsort(-values, axis=0, kind="stable")[:count]


@jax.jit
def project(
    function: Any, images: jax.Array, stage: jax.Array, index: jax.Array
) -> jax.Array:
    """Project one value of each image's features back to pixels by guided gradients.

    Args:
        stage: int32 [N], the number of the stage among the names in sorted order.
        index: int32 [N], which value of the stage: (row · w + column) · channels +
            channel.

    Returns:
        The guided gradient of the value with respect to its image, [N, H, W, C].
    """

    def compute_sum(images: jax.Array) -> jax.Array:
        _, features = tracing.guide(function)(images)
        total = jnp.zeros(())
        for number, name in enumerate(sorted(features)):
            flat = features[name].reshape(len(images), -1)
            place = jnp.clip(index, 0, flat.shape[1] - 1)[:, None]
            value = jnp.take_along_axis(flat, place, axis=1)[:, 0]
            total += jnp.sum(jnp.where(stage == number, value, 0))
        return total

    return jax.grad(compute_sum)(images)


def cut_patch(
    image: np.ndarray, field: Field, place: Sequence[int], fill: float = 0
) -> np.ndarray:
    """Cut out what a value of a feature map sees.

    Args:
        image: [H, W, C].
        field: of the feature map.
        place: (row, column) of the value.
        fill: stands for what lies outside the image.

    Returns:
        The receptive field, [h, w, C]; along an axis where it is larger than the
        image, the image.
    """
    starts, sides = [], []
    for axis, reach in enumerate(field.axes):
        length = image.shape[axis]
        if reach is None or reach.size >= length:
            start, end = 0, length
        else:
            start, end = reach.locate(place[axis])
        before, after = max(0, -start), max(0, end - length)
        sides.append((before, after))
        starts.append((start + before, end + before))
    padded = np.pad(image, (*sides, (0, 0)), constant_values=fill)
    (top, bottom), (left, right) = starts
    return padded[top:bottom, left:right]
