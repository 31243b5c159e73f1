"""Erasing parts of images, and mixing images with others of their batch.

`images` are floats [N, H, W, C], scaled as the model sees them, so that 0 is the mean
colour when they are standardized. `key` is [N] typed keys; `targets` [N, K] are
distributions over classes.
"""

import jax
import jax.numpy as jnp

from cnn.augment.crops import expand

Strength = jax.Array | float
Box = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def cut_out(
    key: jax.Array, images: jax.Array, size: Strength, fill: Strength = 0.0
) -> jax.Array:
    """Set a square about a random pixel of each image to the value `fill`.

    Args:
        size: side in pixels; what reaches over the edge is cut off.

    Source: DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552
    """
    height, width = images.shape[1:3]

    def draw(one: jax.Array) -> jax.Array:
        return jax.random.randint(one, (2,), 0, jnp.array([height, width]))

    middle = jax.vmap(draw)(key)
    size = jnp.broadcast_to(jnp.asarray(size, jnp.int32), middle.shape[:1])
    top, left = middle[:, 0] - size // 2, middle[:, 1] - size // 2
    box = _cover((top, left, size, size), (height, width))
    return jnp.where(box, jnp.asarray(fill, images.dtype), images)


def erase(
    key: jax.Array,
    images: jax.Array,
    probability: Strength,
    mode: str = "constant",
    fill: Strength = 0.0,
) -> jax.Array:
    """Erase a rectangle of 2 to 33 % of the area of some images.

    Its height over width is log-uniform in [0.3, 1 / 0.3]; sides longer than the
    image's are cut to it.

    Args:
        probability: of erasing at all.
        mode: `constant` (`fill`), or `noise` (N(0, 1) for each value).

    Source: Zhong et al. 2017, https://arxiv.org/abs/1708.04896
    """
    height, width, channels = images.shape[1:]
    draws = jax.vmap(lambda one: jax.random.uniform(one, (5,)))(key)
    area = height * width * (0.02 + draws[:, 0] * 0.31)
    ratio = jnp.exp((2 * draws[:, 1] - 1) * jnp.log(1 / 0.3))
    high = jnp.clip(jnp.round(jnp.sqrt(area * ratio)), 0, height)
    wide = jnp.clip(jnp.round(jnp.sqrt(area / ratio)), 0, width)
    top = jnp.floor(draws[:, 2] * (height - high + 1))
    left = jnp.floor(draws[:, 3] * (width - wide + 1))
    box = _cover((top, left, high, wide), (height, width))
    box = box & expand(draws[:, 4] < probability, 4)
    value = jnp.asarray(fill, images.dtype)
    if mode == "noise":
        noise = jax.vmap(
            lambda one: jax.random.normal(
                jax.random.fold_in(one, 1), (height, width, channels)
            )
        )(key)
        value = noise.astype(images.dtype)
    return jnp.where(box, value, images)


def draw_share(
    key: jax.Array, alpha: Strength, probability: Strength = 1.0, scope: str = "batch"
) -> jax.Array:
    """Draw how much of itself each example keeps.

    Args:
        alpha: shares are Beta(alpha, alpha).
        probability: of mixing at all; the share is else 1.
        scope: `batch`, one share for all, from the first key, or `example`.

    Returns:
        float32 [N] in [0, 1].
    """

    def draw(one: jax.Array) -> jax.Array:
        chance = jax.random.uniform(jax.random.fold_in(one, 1))
        share = jax.random.beta(one, alpha, alpha)
        # Both gammas behind a Beta of a tiny alpha may underflow: an even 0 / 0.
        share = jnp.where(jnp.isnan(share), 1.0, share)
        return jnp.where(chance < probability, share, 1.0)

    chosen = key[:1] if scope == "batch" else key
    return jnp.broadcast_to(jax.vmap(draw)(chosen), key.shape)


def mix_up(
    images: jax.Array, targets: jax.Array, share: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Blend each image, and its targets, with the batch's previous one.

    Args:
        share: [N], how much of itself each keeps.

    Returns:
        Images and targets: share · own + (1 - share) · other's.

    Source: Zhang et al. 2017, https://arxiv.org/abs/1710.09412
    """
    return _blend(images, expand(share, 4)), _blend(targets, expand(share, 2))


def cut_mix(
    key: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    share: jax.Array,
    scope: str = "batch",
) -> tuple[jax.Array, jax.Array]:
    """Paste a rectangle of the batch's previous image into each.

    Args:
        share: [N]; the rectangle, before the edge cuts it off, has the area 1 - share.
        scope: `batch`, one place for all, from the first key, or `example`.

    Returns:
        Images, and targets mixed by the area that was really pasted.

    Source: Yun et al. 2019, https://arxiv.org/abs/1905.04899
    """
    height, width = images.shape[1:3]
    chosen = key[:1] if scope == "batch" else key
    draws = jax.vmap(lambda one: jax.random.uniform(one, (2,)))(chosen)
    draws = jnp.broadcast_to(draws, (*key.shape, 2))
    half = jnp.sqrt(jnp.maximum(1 - share, 0.0)) / 2
    sides = []
    for axis, length in enumerate((height, width)):
        middle, reach = jnp.floor(draws[:, axis] * length), jnp.floor(half * length)
        sides.append(
            (jnp.clip(middle - reach, 0, length), jnp.clip(middle + reach, 0, length))
        )
    (top, bottom), (left, right) = sides
    box = _cover((top, left, bottom - top, right - left), (height, width))
    area = (bottom - top) * (right - left) / (height * width)
    mixed = jnp.where(box, jnp.roll(images, 1, axis=0), images)
    return mixed, _blend(targets, expand(1 - area, 2))


def _blend(values: jax.Array, share: jax.Array) -> jax.Array:
    return share * values + (1 - share) * jnp.roll(values, 1, axis=0)


def _cover(box: Box, shape: tuple[int, int]) -> jax.Array:
    """Return bool [N, H, W, 1], true inside (top, left, height, width), each [N]."""
    top, left, height, width = (value.reshape(-1, 1, 1, 1) for value in box)
    row = jnp.arange(shape[0]).reshape(1, -1, 1, 1)
    column = jnp.arange(shape[1]).reshape(1, 1, -1, 1)
    inside = (row >= top) & (row < top + height)
    return inside & (column >= left) & (column < left + width)
