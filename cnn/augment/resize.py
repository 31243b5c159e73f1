"""Resizing, and the random resized crop: a window of random area and aspect.

Antialiased when it shrinks: each output pixel is a triangle-weighted mean of the
window's pixels, as in Pillow. `images` are uint8 [N, H, W, C], rounded to nearest, or
floats.
"""

import math

import jax
import jax.numpy as jnp

from cnn.augment.crops import map_images
from cnn.augment.geometry import round_like

Size = tuple[int, int]
Windows = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
_TRIES = 10


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    min_area: jax.Array | float = 0.08,
    max_area: jax.Array | float = 1.0,
    aspect: jax.Array | float = 4 / 3,
    size: Size | None = None,
) -> jax.Array:
    """Cut a random window out of each image and resize it.

    Args:
        min_area: least share of the image's area, in (0, 1]; `max_area` the greatest.
        aspect: the window's width over height is log-uniform in [1 / aspect, aspect].
        size: (height, width) of the output; that of the images unless given.

    Returns:
        [N, height, width, C] of the images' type.

    Source: Szegedy et al. 2014, section 6, https://arxiv.org/abs/1409.4842
    """
    shape = images.shape[1:3]
    windows = draw_windows(key, shape, min_area, max_area, aspect)
    return resize_windows(images, windows, size or shape)


def draw_windows(
    key: jax.Array,
    shape: Size,
    min_area: jax.Array | float,
    max_area: jax.Array | float,
    aspect: jax.Array | float,
) -> Windows:
    """Draw windows as torchvision does.

    The first of ten draws that fits in the image counts; if none does, the largest
    central window of an allowed aspect.

    Returns:
        Top, left, height, width: int32 [N], whole pixels inside the image.
    """
    height, width = shape

    def draw(one: jax.Array) -> Windows:
        u = jax.random.uniform(one, (4, _TRIES))
        area = height * width * (min_area + u[0] * (max_area - min_area))
        ratio = jnp.exp((2 * u[1] - 1) * jnp.log(aspect))
        wide = jnp.round(jnp.sqrt(area * ratio))
        high = jnp.round(jnp.sqrt(area / ratio))
        fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
        first = jnp.argmax(fits)
        fall_wide = jnp.round(jnp.minimum(width, height * jnp.float32(aspect)))
        fall_high = jnp.round(jnp.minimum(height, width * jnp.float32(aspect)))
        any_fits = jnp.any(fits)
        wide = jnp.where(any_fits, wide[first], fall_wide)
        high = jnp.where(any_fits, high[first], fall_high)
        top, left = height - high, width - wide
        top = jnp.where(any_fits, jnp.floor(u[2, first] * (top + 1)), top // 2)
        left = jnp.where(any_fits, jnp.floor(u[3, first] * (left + 1)), left // 2)
        return tuple(value.astype(jnp.int32) for value in (top, left, high, wide))

    return jax.vmap(draw)(key)


def resize_windows(
    images: jax.Array,
    windows: Windows,
    size: Size,
    mirrored: jax.Array | None = None,
    upside_down: jax.Array | None = None,
) -> jax.Array:
    """Resize a window of each image, antialiased when shrinking.

    Args:
        windows: top, left, height, width, int32 [N], inside the image.
        mirrored: bool [N], which outputs are flipped left to right; None: none.
        upside_down: bool [N], which top to bottom; None: none.

    Returns:
        [N, height, width, C] of the images' type.
    """
    no = jnp.zeros(images.shape[0], bool)
    mirrored = no if mirrored is None else mirrored
    upside_down = no if upside_down is None else upside_down
    taps = [_count_taps(n, m) for n, m in zip(images.shape[1:3], size, strict=True)]

    def resize(image, top, left, height, width, mirrored, upside_down):
        rows = _weigh(top, height, size[0], taps[0], upside_down, None)
        columns = _weigh(left, width, size[1], taps[1], mirrored, None)
        x = _average(image.astype(jnp.float32), *rows)
        x = _average(jnp.swapaxes(x, 0, 1), *columns)
        return round_like(jnp.swapaxes(x, 0, 1), image)

    return map_images(resize, images, *windows, mirrored, upside_down)


def resize_whole(images: jax.Array, size: int) -> jax.Array:
    """Resize images to squares, antialiased when shrinking.

    Returns:
        [N, size, size, C] of the images' type.
    """
    count, height, width, _ = images.shape
    windows = (jnp.full(count, x, jnp.int32) for x in (0, 0, height, width))
    return resize_windows(images, tuple(windows), (size, size))


def soften(images: jax.Array, windows: Windows, size: Size) -> jax.Array:
    """Blur each image as much as shrinking its window to `size` needs, and no more.

    A window that is not shrunk leaves its image as it is.
    """
    shape = images.shape[1:3]
    taps = [_count_taps(n, m) for n, m in zip(shape, size, strict=True)]

    def blur(image, height, width):
        first, upright = jnp.int32(0), jnp.zeros((), bool)
        x = image.astype(jnp.float32)
        for axis, length in enumerate((height, width)):
            whole = jnp.int32(shape[axis])
            shrunk = length / size[axis]
            weights = _weigh(first, whole, shape[axis], taps[axis], upright, shrunk)
            x = jnp.swapaxes(_average(x, *weights), 0, 1)
        return round_like(x, image)

    return map_images(blur, images, windows[2], windows[3])


def _count_taps(length: int, size: int) -> int:
    return 2 * math.ceil(max(1.0, length / size)) + 1


def _weigh(
    first: jax.Array,
    length: jax.Array,
    size: int,
    taps: int,
    flipped: jax.Array,
    width: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Return sources int32 [taps, size] and their weights, which sum to 1."""
    places = jnp.arange(size)
    places = jnp.where(flipped, size - 1 - places, places)
    step = length / size
    centres = first + (places + 0.5) * step - 0.5
    width = jnp.maximum(1.0, step if width is None else width)
    start = jnp.ceil(centres - width)
    sources = start[None] + jnp.arange(taps, dtype=jnp.float32)[:, None]
    weights = jnp.maximum(0.0, 1 - jnp.abs(sources - centres[None]) / width)
    inside = (sources >= first) & (sources < first + length)
    weights = jnp.where(inside, weights, 0.0)
    weights = weights / jnp.sum(weights, axis=0, keepdims=True)
    sources = jnp.clip(sources, first, first + length - 1)
    return sources.astype(jnp.int32), weights


def _average(x: jax.Array, sources: jax.Array, weights: jax.Array) -> jax.Array:
    """Average rows of x [H, W, C]: [size, W, C]."""
    x, sources, weights = jax.lax.optimization_barrier((x, sources, weights))
    total = jnp.zeros((sources.shape[1], *x.shape[1:]), jnp.float32)
    for rows, weight in zip(sources, weights, strict=True):
        taken = x.at[rows].get(mode="promise_in_bounds")
        total = total + weight[:, None, None] * taken
    return total
