"""Flips and whole-pixel crops: pixels are copied, exactly, never interpolated.

Everything here is a choice of source rows and columns for each image. `images` are
[N, H, W, C] of any type and come back in it; `key` is [N] typed keys, one an image.
Where `mode` is `reflect`, what lies outside an image is its mirror image, without the
edge twice; where it is `zero`, `fill`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.ops import pixel_rows

SMALL = 64 * 64 * 3


def flip_horizontally(
    key: jax.Array, images: jax.Array, probability: jax.Array | float
) -> jax.Array:
    """Mirror each image left to right with a probability in [0, 1]."""
    chosen = draw_flips(key, probability)
    return flip_each(images, chosen)


def flip_vertically(
    key: jax.Array, images: jax.Array, probability: jax.Array | float
) -> jax.Array:
    """Mirror each image top to bottom with a probability in [0, 1]."""
    chosen = draw_flips(key, probability)
    return flip_each(images, None, chosen)


def flip_each(
    images: jax.Array,
    mirrored: jax.Array | None = None,
    upside_down: jax.Array | None = None,
) -> jax.Array:
    """Flip those images that are chosen: bool [N] left to right, top to bottom."""
    width, channels = images.shape[2:]
    rows = pixel_rows.join(images)
    if mirrored is not None:
        # Read by a table: a reversed axis is copied pixel by pixel, three times slower.
        places = np.arange(width * channels).reshape(width, channels)[::-1].ravel()
        other = rows.at[..., places].get(mode="promise_in_bounds")
        rows = jnp.where(expand(mirrored, 4), other, rows)
    if upside_down is not None:
        rows = jnp.where(expand(upside_down, 4), rows[:, ::-1], rows)
    return pixel_rows.split(rows, channels)


def draw_flips(key: jax.Array, probability: jax.Array | float) -> jax.Array:
    """Draw which images are flipped: bool [N]."""
    return jax.vmap(lambda k: jax.random.bernoulli(k, probability))(key)


def alternate_flips(key: jax.Array, epoch: jax.Array | int) -> jax.Array:
    """Choose flips that alternate between epochs: bool [N].

    Args:
        key: [N]; it must not depend on the epoch, for it decides the first flip.

    Source: Jordan 2024, section 3.2, https://arxiv.org/abs/2404.00498
    """
    return draw_flips(key, 0.5) ^ (epoch % 2 == 1)


def crop_padded(
    key: jax.Array,
    images: jax.Array,
    padding: jax.Array | int,
    mode: str = "zero",
    fill: jax.Array | float = 0,
) -> jax.Array:
    """Cut a window of the images' own size out of each padded image.

    Args:
        padding: P, whole pixels on each side; at most min(H, W) - 1 for `reflect`.

    Returns:
        [N, H, W, C]; each of the (2P + 1)² windows is equally likely.

    Source: He et al. 2015, section 4.2, https://arxiv.org/abs/1512.03385
    """
    size = images.shape[1:3]
    top, left = draw_corners(key, size, size, padding)
    return copy_windows(images, top, left, None, None, size, mode, fill)


def draw_corners(
    key: jax.Array,
    shape: tuple[int, ...],
    size: tuple[int, int],
    padding: jax.Array | int,
) -> tuple[jax.Array, jax.Array]:
    """Draw the corners of windows, uniform over all that the padded image holds.

    Args:
        shape: (H, W) of the images.
        size: (height, width) of the windows.
        padding: P, pixels added on each side.

    Returns:
        Top and left int32 [N], in [-P, H + P - height] and [-P, W + P - width].
    """

    def draw(one: jax.Array) -> tuple[jax.Array, jax.Array]:
        room = jnp.stack([shape[0] - size[0], shape[1] - size[1]])
        corner = jax.random.randint(one, (2,), 0, room + 2 * padding + 1) - padding
        return corner[0], corner[1]

    return jax.vmap(draw)(key)


def copy_windows(
    images: jax.Array,
    top: jax.Array,
    left: jax.Array,
    mirrored: jax.Array | None,
    upside_down: jax.Array | None,
    size: tuple[int, int],
    mode: str = "zero",
    fill: jax.Array | float = 0,
) -> jax.Array:
    """Copy one window out of each image, flipped or not.

    Args:
        top: int32 [N], the window's first row; outside the image is padding.
        left: int32 [N], its first column.
        mirrored: bool [N], whether the window is then flipped left to right; None: no.
        upside_down: bool [N], whether it is flipped top to bottom; None: no.
        size: (height, width) of the window.

    Returns:
        [N, height, width, C].
    """
    if mode == "zero":
        # Without the barrier each pixel is looked up once for every flip.
        copied = jax.lax.optimization_barrier(
            _slice_framed(images, top, left, size, fill)
        )
        return flip_each(copied, mirrored, upside_down)
    rows = _find_sources(top, upside_down, size[0], images.shape[1])
    columns = _find_sources(left, mirrored, size[1], images.shape[2])

    def copy(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
        image = image.at[rows].get(mode="promise_in_bounds")
        return image.at[:, columns].get(mode="promise_in_bounds")

    # Small images take as long one after the other, but then on one thread only.
    is_small = images[0].size <= SMALL
    copy_all = jax.vmap(copy) if is_small else functools.partial(map_images, copy)
    return copy_all(images, rows, columns)


def _slice_framed(
    images: jax.Array,
    top: jax.Array,
    left: jax.Array,
    size: tuple[int, int],
    fill: jax.Array | float,
) -> jax.Array:
    """Slice a window out of each image in a frame of `fill`, as wide as the window.

    A window that lies further outside sees nothing but the frame either way.
    """
    frame = ((size[0],) * 2 + (0,), (size[1],) * 2 + (0,), (0, 0, 0))

    def cut(image: jax.Array, top: jax.Array, left: jax.Array) -> jax.Array:
        framed = jax.lax.pad(image, jnp.asarray(fill, image.dtype), frame)
        corner = (top + size[0], left + size[1], 0)
        return jax.lax.dynamic_slice(framed, corner, (*size, image.shape[-1]))

    return jax.vmap(cut)(images, top, left)


def map_images(function: Callable[..., Any], *arrays: jax.Array) -> Any:
    """Apply a function of one image to all.

    On a CPU one after the other, so that an image stays in the cache (224 x 224 crops:
    61 µs an image against 172 µs all at once); elsewhere all at once.
    """
    return jax.lax.platform_dependent(
        *arrays,
        cpu=lambda *each: jax.lax.map(lambda one: function(*one), each),
        default=jax.vmap(function),
    )


def expand(values: jax.Array, ndim: int) -> jax.Array:
    """Append axes to [N] so that it broadcasts against an array of `ndim` axes."""
    return values.reshape(values.shape + (1,) * (ndim - values.ndim))


def _find_sources(
    first: jax.Array, flipped: jax.Array | None, size: int, length: int
) -> jax.Array:
    """Find the source of each of `size` positions on an axis, reflected at its ends."""
    places = jnp.arange(size)[None]
    if flipped is not None:
        places = jnp.where(flipped[:, None], size - 1 - places, places)
    places = places + first[:, None]
    places = jnp.abs(places)
    places = jnp.where(places >= length, 2 * (length - 1) - places, places)
    return jnp.clip(places, 0, length - 1)
