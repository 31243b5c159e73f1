"""Rotation, shift, scale, shear, or any affine map: one matrix an image, sampled once.

A matrix [2, 3] takes an output pixel's place (x, y, 1), in pixels from the image's
centre, to the place in the input that it shows. Positive degrees turn clockwise as
seen on the screen. `images` are uint8 [N, H, W, C], rounded to nearest, or floats.
"""

from typing import Any

import jax
import jax.numpy as jnp

from cnn.augment.crops import map_images

Size = tuple[int, int]


def rotate(key: jax.Array, images: jax.Array, degrees: Any, **sampling: Any):
    """Turn each image about its centre by an angle uniform in ±`degrees`."""
    return transform(images, make_matrix(key, rotation_degrees=degrees), **sampling)


def shift(key: jax.Array, images: jax.Array, fraction: Any, **sampling: Any):
    """Shift each image by up to ±`fraction` of its height and its width, uniformly."""
    size = images.shape[1:3]
    return transform(images, make_matrix(key, size, shift=fraction), **sampling)


def shear(key: jax.Array, images: jax.Array, degrees: Any, **sampling: Any):
    """Slant each image's columns by an angle uniform in ±`degrees`."""
    return transform(images, make_matrix(key, shear_degrees=degrees), **sampling)


def scale(key: jax.Array, images: jax.Array, low: Any, high: Any, **sampling: Any):
    """Enlarge each image by a factor uniform in [low, high], about its centre."""
    matrix = make_matrix(key, scale_min=low, scale_max=high)
    return transform(images, matrix, **sampling)


def make_matrix(
    key: jax.Array,
    size: Size = (1, 1),
    rotation_degrees: Any = 0.0,
    shift: Any = 0.0,
    scale_min: Any = 1.0,
    scale_max: Any = 1.0,
    shear_degrees: Any = 0.0,
) -> jax.Array:
    """Draw matrices of maps that shear, then scale, then turn, then shift.

    Args:
        size: (H, W), of which shifts are fractions.
        rotation_degrees: angles are uniform in ± this.
        shift: shifts are uniform in ± this fraction of H and of W.
        scale_min: least factor; uniform between it and `scale_max`.
        shear_degrees: angles between columns and the vertical are uniform in ± this.

    Returns:
        float32 [N, 2, 3].

    Source: torchvision's RandomAffine has the same order and signs,
        https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.RandomAffine.html
    """
    draw = jax.vmap(lambda one: jax.random.uniform(one, (5,), minval=-1.0))(key)
    angle, slant = draw[:, 0] * rotation_degrees, draw[:, 1] * shear_degrees
    factor = scale_min + (draw[:, 2] + 1) / 2 * (scale_max - scale_min)
    height, width = size
    x, y = draw[:, 3] * shift * width, draw[:, 4] * shift * height
    return invert_affine(angle, factor, slant, x, y)


def invert_affine(
    angle: jax.Array,
    factor: jax.Array | float,
    slant: jax.Array | float,
    x: jax.Array | float,
    y: jax.Array | float,
) -> jax.Array:
    """Return the matrices, [N, 2, 3], that undo given maps.

    Args:
        angle: [N], degrees.
        factor: enlargement.
        slant: of the columns, degrees.
        x: pixels to the right.
        y: pixels down.
    """
    angle, slant = jnp.deg2rad(angle), jnp.tan(jnp.deg2rad(slant))
    cos, sin = jnp.cos(angle) / factor, jnp.sin(angle) / factor
    zero = jnp.zeros_like(angle)
    # The forward map is R(angle) · [[1, -slant], [0, 1]] · factor, then (x, y).
    first = jnp.stack([cos - slant * sin, sin + slant * cos], -1)
    second = jnp.stack([-sin, cos], -1)
    linear = jnp.stack([first, second], -2)
    moved = jnp.stack([x + zero, y + zero], -1)
    offset = -jnp.sum(linear * moved[:, None, :], axis=-1, keepdims=True)
    return jnp.concatenate([linear, offset], axis=-1)


def window_matrix(
    top: jax.Array,
    left: jax.Array,
    height: jax.Array,
    width: jax.Array,
    mirrored: jax.Array,
    upside_down: jax.Array,
    shape: Size,
    size: Size,
) -> jax.Array:
    """Return the matrices, [N, 2, 3], that show a window of the image, or its mirror.

    Args:
        top: [N], the window's upper edge in pixels from the image's, any real number.
        left: [N], its left edge; height and width likewise.
        mirrored: bool [N], left to right.
        upside_down: bool [N].
        shape: (H, W) of the images.
        size: (height, width) of the output.
    """
    stretch_x = width / size[1] * jnp.where(mirrored, -1.0, 1.0)
    stretch_y = height / size[0] * jnp.where(upside_down, -1.0, 1.0)
    zero = jnp.zeros_like(stretch_x)
    x, y = left + (width - shape[1]) / 2, top + (height - shape[0]) / 2
    rows = jnp.stack([stretch_x, zero, x], -1), jnp.stack([zero, stretch_y, y], -1)
    return jnp.stack(rows, axis=-2)


def compose(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return the matrices that look up `second`, then `first`: first ∘ second."""
    linear = jnp.einsum("nij,njk->nik", first[:, :, :2], second[:, :, :2])
    moved = jnp.einsum("nij,nj->ni", first[:, :, :2], second[:, :, 2])
    offset = (moved + first[:, :, 2])[..., None]
    return jnp.concatenate([linear, offset], axis=-1)


def transform(
    images: jax.Array,
    matrix: jax.Array,
    size: Size | None = None,
    interpolation: str = "bilinear",
    mode: str = "zero",
    fill: jax.Array | float = 0,
) -> jax.Array:
    """Show each image through its matrix.

    Args:
        matrix: float32 [N, 2, 3].
        size: (height, width) of the output; that of the images unless given.
        interpolation: `bilinear` or `nearest`.
        mode: `zero` (`fill`) or `reflect`, what lies outside.
        fill: the value outside, in the images' own range; with `bilinear` the edge
            fades into it over one pixel.

    Returns:
        [N, height, width, C] of the images' type.
    """
    size = size or images.shape[1:3]
    sample = sample_nearest if interpolation == "nearest" else sample_bilinear
    fill = jnp.asarray(fill, images.dtype)

    def show(image: jax.Array, matrix: jax.Array, fill: jax.Array) -> jax.Array:
        x, y = find_places(matrix, image.shape[:2], size)
        if mode == "reflect":
            x, y = _reflect(x, image.shape[1]), _reflect(y, image.shape[0])
        return sample(image, x, y, fill)

    fills = jnp.broadcast_to(fill, images.shape[:1])
    return map_images(show, images, matrix, fills)


def find_places(
    matrix: jax.Array, shape: Size, size: Size
) -> tuple[jax.Array, jax.Array]:
    """Return the place (x, y), in the input's pixels, that each output pixel shows."""
    y = jnp.arange(size[0])[:, None] - (size[0] - 1) / 2
    x = jnp.arange(size[1])[None] - (size[1] - 1) / 2
    (xx, xy, x0), (yx, yy, y0) = matrix
    across, down = xx * x + xy * y + x0, yx * x + yy * y + y0
    return across + (shape[1] - 1) / 2, down + (shape[0] - 1) / 2


def sample_nearest(
    image: jax.Array, x: jax.Array, y: jax.Array, fill: jax.Array
) -> jax.Array:
    """Copy the pixel nearest to each place; halves go to the even one."""
    height, width, _ = image.shape
    column, row = jnp.round(x), jnp.round(y)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    index = jax.lax.optimization_barrier((row * width + column).astype(jnp.int32))
    pixels = image.reshape(height * width, -1)
    found = pixels.at[index].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], found, fill)


def sample_bilinear(
    image: jax.Array, x: jax.Array, y: jax.Array, fill: jax.Array
) -> jax.Array:
    """Weigh the four pixels about each place; those outside the image are `fill`."""
    height, width, channels = image.shape
    x, y = jnp.clip(x, -1, width), jnp.clip(y, -1, height)
    left = jnp.clip(jnp.floor(x), -1, width - 1)
    top = jnp.clip(jnp.floor(y), -1, height - 1)
    right, below = (x - left)[..., None], (y - top)[..., None]
    index = ((top + 1) * (width + 2) + left + 1).astype(jnp.int32)
    sides = ((1, 1), (1, 1), (0, 0))
    pixels = jnp.pad(image, sides, constant_values=fill).reshape(-1, channels)
    # Without the barrier both are computed again for each of the four gathers.
    pixels, index = jax.lax.optimization_barrier((pixels, index))

    def take(offset: int) -> jax.Array:
        taken = pixels.at[index + offset].get(mode="promise_in_bounds")
        return taken.astype(jnp.float32)

    upper = take(0) + right * (take(1) - take(0))
    down = width + 2
    lower = take(down) + right * (take(down + 1) - take(down))
    return round_like(upper + below * (lower - upper), image)


def round_like(values: jax.Array, images: jax.Array) -> jax.Array:
    """Bring float32 values to the images' type; uint8 is rounded and clipped."""
    if images.dtype != jnp.uint8:
        return values.astype(images.dtype)
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)


def _reflect(places: jax.Array, length: int) -> jax.Array:
    """Fold places back into [0, length - 1], as often as it takes."""
    period = max(2 * (length - 1), 1)
    places = jnp.mod(places, period)
    return jnp.where(places > length - 1, period - places, places)
