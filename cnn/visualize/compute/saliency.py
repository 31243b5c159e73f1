"""Which pixels an answer rests on: gradients, Grad-CAM and occlusion.

`function` maps scaled images float32 [N, H, W, C] to (logits [N, K], features by
stage) and is a `jax.tree_util.Partial`, as `named_run.NamedRun.function` is;
`images` are such images; `classes` int32 [N] says whose logit is explained in each.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.visualize.compute import tracing
from cnn.visualize.compute.features import (
    choose_batch_size,
    compute_logits,
    map_batches,
)

_FIRST_STEPS = 32


def gradient(function: Any, images: jax.Array, classes: jax.Array) -> np.ndarray:
    """Compute the gradient of a class's logit with respect to the image.

    Returns:
        [N, H, W, C].

    Source: Simonyan, Vedaldi and Zisserman 2014, https://arxiv.org/abs/1312.6034
    """
    numbers, ends = np.arange(len(images)), np.ones(len(images))
    return _sum_gradients(function, images, classes, images, numbers, ends)


def integrated_gradients(
    function: Any,
    images: jax.Array,
    classes: jax.Array,
    baseline: jax.Array,
    tolerance: float = 0.001,
    most_steps: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Share the rise of a class's logit, from a baseline to the image, among pixels.

    The gradient is averaged over the straight path, by the midpoint rule; each image
    has three times as many steps until its shares add up to the rise. Of these a third
    are those of before. How far they are from it is measured by all that is shared
    out, for and against the class: a rise near 0 is a small difference of much, and
    within 1 % of the rise itself three of ten images took 74 % of a ResNet-20's
    gradients, for maps that no longer changed visibly.

    Args:
        baseline: where the path begins, [N, H, W, C] or [1, 1, 1, C].
        tolerance: how far the sum of the shares may be from the rise, as a share of
            the sum of their absolute values.
        most_steps: of which there are never more even so.

    Returns:
        The shares, [N, H, W, C], and how far their sum is from the rise, in the
        tolerance's measure, [N].

    Source: Sundararajan, Taly and Yan 2017, https://arxiv.org/abs/1703.01365
    """
    baseline = np.broadcast_to(np.asarray(baseline), images.shape)
    rise = _score(function, images, classes) - _score(function, baseline, classes)
    path, steps = np.asarray(images) - np.asarray(baseline), _FIRST_STEPS
    ways = (function, images, classes, baseline)
    places = (np.arange(steps) + 0.5) / steps
    totals, shares = np.zeros_like(path), np.zeros_like(path)
    pending = np.arange(len(path))
    while True:
        numbers = np.repeat(pending, len(places))
        totals += _sum_gradients(*ways, numbers, np.tile(places, len(pending)))
        shares[pending] = totals[pending] / steps * path[pending]
        error = np.abs(shares.sum(axis=(1, 2, 3)) - rise)
        error /= np.maximum(np.abs(shares).sum(axis=(1, 2, 3)), 1e-6)
        pending, steps = np.flatnonzero(error > tolerance), 3 * steps
        if steps > most_steps or not len(pending):
            return shares, error
        # Every third, from the second on, is in the middle of a step of before.
        places = (np.delete(np.arange(steps), np.s_[1::3]) + 0.5) / steps


@functools.partial(jax.jit, static_argnames="stage")
def grad_cam(
    function: Any, images: jax.Array, classes: jax.Array, stage: str
) -> jax.Array:
    """Weigh the channels of a stage by how much the class's logit rises with each.

    Args:
        stage: whose features [N, h, w, channels] are weighed.

    Returns:
        [N, h, w], not negative.

    Source: Selvaraju et al. 2017, section 3, https://arxiv.org/abs/1610.02391
    """
    perturbed = tracing.perturb(function)
    _, shapes = jax.eval_shape(function, images)
    nothing = jnp.zeros(shapes[stage].shape, shapes[stage].dtype)

    def compute(addition: jax.Array) -> Any:
        logits, features = perturbed(images, {stage: addition})
        return jnp.sum(_pick(logits, classes)), features[stage]

    slopes, features = jax.grad(compute, has_aux=True)(nothing)
    weights = jnp.mean(slopes, axis=(1, 2), keepdims=True)
    return jax.nn.relu(jnp.sum(weights * features, axis=-1))


def occlusion(
    function: Any,
    images: np.ndarray,
    classes: np.ndarray,
    size: int,
    stride: int,
    fill: float = 0.0,
) -> np.ndarray:
    """Measure how much a class's logit falls when a square of the image is covered.

    Args:
        size: side of the square, in pixels.
        stride: pixels from one square to the next.
        fill: what covers; 0 is the mean where images are standardised.

    Returns:
        The falls, float32 [N, rows, columns], square (i, j) covering the pixels from
        (i · stride, j · stride).

    Source: Zeiler and Fergus 2014, section 4.2, https://arxiv.org/abs/1311.2901
    """
    count, height, width, _ = images.shape
    tops = np.arange(0, height - size + 1, stride)
    lefts = np.arange(0, width - size + 1, stride)
    places = [(number, i, j) for number in range(count) for i in tops for j in lefts]
    places = np.array(places, np.int32)

    def compute(places: jax.Array) -> jax.Array:
        return compute_logits(function, _cover(images, places, size, fill))

    whole, images = _score(function, images, classes), jnp.asarray(images)
    logits = map_batches(compute, places, pixels=height * width)
    covered = logits[np.arange(len(places)), np.asarray(classes)[places[:, 0]]]
    return whole[:, None, None] - covered.reshape(count, len(tops), len(lefts))


@functools.partial(jax.jit, static_argnames="size")
def _cover(images: jax.Array, places: jax.Array, size: int, fill: float) -> jax.Array:
    """Cover a square of images [N, H, W, C], at (image, top, left) [n, 3] each."""
    number, top, left = places.T
    rows, columns = (jnp.arange(n) for n in images.shape[1:3])
    inside = (
        _between(rows, top, size)[:, :, None] & _between(columns, left, size)[:, None]
    )
    return jnp.where(inside[..., None], fill, images[number])


def _score(function: Any, images: Any, classes: Any) -> np.ndarray:
    """Compute the logit of each image's class, float32 [N]."""
    logits = map_batches(
        functools.partial(compute_logits, function),
        np.asarray(images),
        pixels=images[0, :, :, 0].size,
    )
    return logits[np.arange(len(logits)), np.asarray(classes)]


def _sum_gradients(
    function: Any,
    images: Any,
    classes: Any,
    baseline: Any,
    numbers: np.ndarray,
    places: np.ndarray,
) -> np.ndarray:
    """Sum, for each image, gradients of its class's logit on the way to it.

    Args:
        numbers: int [n], of the image whose way it is.
        places: [n], how far on the way, 0 at the baseline and 1 at the image.

    Returns:
        [N, H, W, C]; 0 for an image that has no place.
    """
    size = choose_batch_size(images[0, :, :, 0].size, is_gradient=True)
    images, classes, baseline = map(jnp.asarray, (images, classes, baseline))
    total = np.zeros(images.shape, np.float32)
    for start in range(0, len(numbers), size):
        batch = [x[start : start + size] for x in (numbers, places)]
        missing = size - len(batch[0])
        # Those that fill the batch are of no image, and left out of the sum.
        numbered = np.pad(batch[0].astype(np.int32), (0, missing), constant_values=-1)
        placed = np.pad(batch[1].astype(np.float32), (0, missing))
        ways = images, classes, baseline, numbered, placed
        total += np.asarray(_sum_batch(function, *ways))
    return total


@jax.jit
def _sum_batch(
    function: Any,
    images: jax.Array,
    classes: jax.Array,
    baseline: jax.Array,
    numbers: jax.Array,
    places: jax.Array,
) -> jax.Array:
    kept = jnp.maximum(numbers, 0)
    share = places[:, None, None, None]
    here = share * images[kept] + (1 - share) * baseline[kept]
    found = jax.grad(lambda x: jnp.sum(_pick(function(x)[0], classes[kept])))(here)
    found = jnp.where((numbers >= 0)[:, None, None, None], found, 0)
    return jnp.zeros_like(images).at[kept].add(found)


def _pick(logits: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]


def _between(places: jax.Array, start: jax.Array, size: int) -> jax.Array:
    """Return, [N, L], which places lie in each span."""
    after = places[None] - start[:, None]
    return (after >= 0) & (after < size)
