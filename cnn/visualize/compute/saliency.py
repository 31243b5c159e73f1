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
from cnn.visualize.compute.features import map_batches


@jax.jit
def gradient(function: Any, images: jax.Array, classes: jax.Array) -> jax.Array:
    """Compute the gradient of a class's logit with respect to the image.

    Returns:
        [N, H, W, C].

    Source: Simonyan, Vedaldi and Zisserman 2014, https://arxiv.org/abs/1312.6034
    """
    return jax.grad(lambda x: jnp.sum(_pick(function(x)[0], classes)))(images)


def integrated_gradients(
    function: Any,
    images: jax.Array,
    classes: jax.Array,
    baseline: jax.Array,
    tolerance: float = 0.01,
    most_steps: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Share the rise of a class's logit, from a baseline to the image, among pixels.

    The gradient is averaged over the straight path, by the midpoint rule; the number
    of steps grows until the shares add up to the rise.

    Args:
        baseline: where the path begins, [N, H, W, C] or [1, 1, 1, C].
        tolerance: how far the sum of the shares may be from the rise, as a share of
            it.
        most_steps: where the number of steps ends even so.

    Returns:
        The shares, [N, H, W, C], and how far their sum is from the rise, as a share
        of it, [N].

    Source: Sundararajan, Taly and Yan 2017, https://arxiv.org/abs/1703.01365
    """
    baseline = jnp.broadcast_to(baseline, images.shape)
    rise = _pick(function(images)[0], classes) - _pick(function(baseline)[0], classes)
    rise, steps = np.asarray(rise), 32
    while True:
        shares = _average_gradient(function, images, classes, baseline, steps)
        total = np.asarray(jnp.sum(shares, axis=(1, 2, 3)))
        error = np.abs(total - rise) / np.maximum(np.abs(rise), 1e-6)
        if steps >= most_steps or np.all(error <= tolerance):
            return np.asarray(shares), error
        steps = min(2 * steps, most_steps)


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

    def cover(places: jax.Array) -> jax.Array:
        return _score_covered(function, images, classes, places, size, fill)

    images, classes = jnp.asarray(images), jnp.asarray(classes)
    covered = map_batches(cover, places, pixels=height * width)
    whole = np.asarray(_pick(_compute_logits(function, images), classes))
    falls = whole[:, None, None] - covered.reshape(count, len(tops), len(lefts))
    return falls


@functools.partial(jax.jit, static_argnames="size")
def _score_covered(
    function: Any,
    images: jax.Array,
    classes: jax.Array,
    places: jax.Array,
    size: int,
    fill: float,
) -> jax.Array:
    number, top, left = places.T
    rows, columns = (jnp.arange(n) for n in images.shape[1:3])
    inside = (
        _between(rows, top, size)[:, :, None] & _between(columns, left, size)[:, None]
    )
    covered = jnp.where(inside[..., None], fill, images[number])
    return _pick(function(covered)[0], classes[number])


@jax.jit
def _compute_logits(function: Any, images: jax.Array) -> jax.Array:
    return function(images)[0]


@jax.jit
def _average_gradient(
    function: Any,
    images: jax.Array,
    classes: jax.Array,
    baseline: jax.Array,
    steps: int,
) -> jax.Array:
    """Average the gradient at the midpoints of a path, times the path."""
    path = images - baseline

    def add(step: jax.Array, total: jax.Array) -> jax.Array:
        here = baseline + (step + 0.5) / steps * path
        return total + gradient(function, here, classes)

    total = jax.lax.fori_loop(0, steps, add, jnp.zeros_like(images))
    return total / steps * path


def _pick(logits: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]


def _between(places: jax.Array, start: jax.Array, size: int) -> jax.Array:
    """Return, [N, L], which places lie in each span."""
    after = places[None] - start[:, None]
    return (after >= 0) & (after < size)
