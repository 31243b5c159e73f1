"""Images that excite a channel or a class: regularised gradient ascent from noise.

Source: Olah, Mordvintsev and Schubert 2017, Feature visualization,
    https://distill.pub/2017/feature-visualization/ (jitter, blur, normalised steps)
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnn.augment import colour
from cnn.visualize.compute import tracing

_NOISE, _STEP, _DECAY, _BLUR_EVERY, _BLUR_SIGMA = 0.1, 0.12, 0.01, 4, 0.6


@functools.partial(jax.jit, static_argnames=("image_shape", "steps"))
def maximise(
    key: jax.Array,
    function: Any,
    targets: Mapping[str, jax.Array],
    scaling: tuple[Sequence[float], Sequence[float]],
    image_shape: tuple[int, int, int],
    steps: int = 64,
) -> tuple[jax.Array, jax.Array]:
    """Draw images that maximise what is wanted of them, all at once.

    From grey noise, each step climbs along the gradient, scaled to one size, of an
    image moved by a few pixels, then draws values towards grey; every fourth step
    blurs. What counts of a channel is the mean square of what would pass its ReLU,
    which favours patterns over even colours, and a little of what would not, so that
    a channel that is silent at first can be woken.

    Args:
        key: what the noise and the moves are drawn from.
        function: the model, a `jax.tree_util.Partial`; it maps scaled images to
            (logits, features by stage).
        targets: for stages, and for `logits`, float32 [N, channels or K]: the weight
            of each channel or class in what image n is to maximise.
        scaling: mean and standard deviation of each channel, that scale images in
            0..1; of one number for all.
        image_shape: (H, W, C).
        steps: how many steps.

    Returns:
        The images, float32 in 0..1, [N, H, W, C]; what each of them scores, [N].
    """
    score, count = _make_score(function, targets, scaling), _count(targets)

    def climb(step: jax.Array, carried: tuple) -> tuple[jax.Array, jax.Array]:
        # After the last step the image is scored as it is: the model is compiled once.
        images, is_over = carried[0], step == steps
        moves = _draw_moves(jax.random.fold_in(key, step), image_shape)
        moves = jnp.where(is_over, 0, moves)
        moved = jnp.roll(images, moves, (1, 2))
        scores, pull = jax.vjp(score, moved)
        (gradient,) = pull(jnp.ones(count))
        size = jnp.sqrt(jnp.mean(gradient**2, (1, 2, 3), keepdims=True))
        moved = moved + _STEP * (1 - step / steps) * gradient / (size + 1e-12)
        back = jnp.roll(moved, -moves, (1, 2))
        climbed = jnp.clip(0.5 + (1 - _DECAY) * (back - 0.5), 0, 1)
        climbed = jax.lax.cond(
            (step % _BLUR_EVERY == 0) & (step < 0.8 * steps),
            lambda x: colour.blur(x, jnp.full(count, _BLUR_SIGMA), 5),
            lambda x: x,
            climbed,
        )
        return jnp.where(is_over, images, climbed), scores

    noise = jax.random.normal(jax.random.fold_in(key, steps), (count, *image_shape))
    grey = jnp.clip(0.5 + _NOISE * noise, 0, 1)
    return jax.lax.fori_loop(0, steps + 1, climb, (grey, jnp.zeros(count)))


def _make_score(
    function: Any,
    targets: Mapping[str, jax.Array],
    scaling: tuple[Sequence[float], Sequence[float]],
) -> Callable[[jax.Array], jax.Array]:
    """Make what images in 0..1 score, [N]; the arguments are those of `maximise`."""
    mean, std = (jnp.stack(x).reshape(1, 1, 1, -1) for x in scaling)
    exposed, count = tracing.expose(function), _count(targets)

    def score(images: jax.Array) -> jax.Array:
        logits, features = exposed((images - mean) / std)
        total = jnp.zeros(count)
        for name, weights in targets.items():
            x = logits if name == "logits" else _favour_strong(features[name])
            x = x.reshape(count, -1, x.shape[-1])
            total += jnp.einsum("npc,nc->n", x, weights) / x.shape[1]
        return total

    return score


def _draw_moves(key: jax.Array, image_shape: tuple[int, int, int]) -> jax.Array:
    """Draw by how many rows and columns images move, int32 [2]."""
    most = max(1, min(image_shape[:2]) // 16)
    return jax.random.randint(key, (2,), -most, most + 1)


def _count(targets: Mapping[str, jax.Array]) -> int:
    """Return how many images are wanted."""
    return next(iter(targets.values())).shape[0]


def _favour_strong(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, jnp.square(x), 0.1 * x)
