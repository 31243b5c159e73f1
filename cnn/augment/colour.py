"""Colour: what changes a pixel by its own value, its image or its neighbours.

`images` are uint8 [N, H, W, C] in 0..255, or float32 in 0..1; the same type comes back
in the same range: values are clipped, uint8 is rounded to nearest. Between, values
are float32 in 0..1. Functions named `adjust_` take a value for each image; the
others take `key`, [N] typed keys, and draw it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.ops import pixel_rows

Values = jax.Array | float
GREY = (0.299, 0.587, 0.114)
# Principal directions of ImageNet's colours in 0..1, by row, and their weights:
# https://github.com/facebookarchive/fb.resnet.torch/blob/master/datasets/imagenet.lua
PCA_DIRECTIONS = (
    (-0.5675, -0.5808, -0.5836),
    (0.7192, -0.0045, -0.6948),
    (0.4009, -0.8140, 0.4203),
)
PCA_WEIGHTS = (0.2175, 0.0188, 0.0045)
_NO_FRACTION = np.float32(1.5 * 2**23)


def adjust_brightness(images: jax.Array, factor: Values) -> jax.Array:
    """Multiply by a factor; 1 changes nothing."""
    return _wrap_rows(lambda x: x * _spread(factor), images)


def adjust_contrast(images: jax.Array, factor: Values) -> jax.Array:
    """Blend with the image's mean grey: 0 is that grey, 1 the image."""

    def blend(x: jax.Array) -> jax.Array:
        mean = _mix_grey(jnp.mean(x, axis=(1, 2), keepdims=True))
        return mean + _spread(factor) * (x - mean)

    return _wrap(blend, images)


def adjust_saturation(images: jax.Array, factor: Values) -> jax.Array:
    """Blend with the grey image: 0 is grey, 1 the image."""

    def blend(x: jax.Array) -> jax.Array:
        grey = _mix_grey(x)
        return grey + _spread(factor) * (x - grey)

    return _wrap(blend, images)


def adjust_hue(images: jax.Array, turn: Values) -> jax.Array:
    """Turn the hue of RGB images by a share of the circle; 0 changes nothing."""

    def rotate(x: jax.Array) -> jax.Array:
        red, green, blue = (x[..., c] for c in range(3))
        high = jnp.maximum(red, jnp.maximum(green, blue))
        chroma = high - jnp.minimum(red, jnp.minimum(green, blue))
        safe = jnp.where(chroma > 0, chroma, 1.0)
        hue = jnp.where(
            high == red,
            (green - blue) / safe,
            jnp.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
        )
        hue = hue + 6 * _spread(turn)[..., 0]

        def find_channel(offset: int) -> jax.Array:
            # A channel is a trapezoid of the hue: full, empty, and two ramps.
            k = offset + hue
            k = k - 6 * jnp.floor(k * (1 / 6))  # a remainder is computed one by one
            ramp = jnp.clip(jnp.minimum(k, 4 - k), 0.0, 1.0)
            return high - chroma * ramp

        return jnp.stack([find_channel(offset) for offset in (5, 3, 1)], -1)

    return _wrap(rotate, images)


def adjust_gamma(images: jax.Array, gamma: Values) -> jax.Array:
    """Raise values in 0..1 to a power; 1 changes nothing."""

    def power(x: jax.Array) -> jax.Array:
        positive = jnp.maximum(x, 1e-6)
        return jnp.where(x > 1e-6, jnp.exp(_spread(gamma) * jnp.log(positive)), x)

    return _wrap_rows(power, images)


def adjust_sharpness(images: jax.Array, factor: Values) -> jax.Array:
    """Blend with a smoothed image: 0 is smooth, 1 the image, 2 sharp.

    Pixels on the edge are kept, as in Pillow; so are images under 3 x 3.
    """
    if min(images.shape[1:3]) < 3:
        return images

    def blend(x: jax.Array) -> jax.Array:
        middle = x[:, 1:-1, 1:-1]
        rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
        around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
        smooth = (around + 4 * middle) / 13
        smooth = jnp.round(smooth * 255) / 255 if images.dtype == jnp.uint8 else smooth
        inner = smooth + _spread(factor) * (middle - smooth)
        return jax.lax.dynamic_update_slice(x, inner, (0, 1, 1, 0))

    return _wrap(blend, images)


def posterize(images: jax.Array, bits: Values) -> jax.Array:
    """Keep the highest `bits` of each value's eight, 0 to 8."""

    def keep(x: jax.Array) -> jax.Array:
        step = jnp.exp2(8 - _spread(bits).astype(jnp.float32))
        return jnp.floor(jnp.floor(x * 255 + 1e-3) / step) * step / 255

    return _wrap_rows(keep, images)


def solarize(images: jax.Array, threshold: Values) -> jax.Array:
    """Invert values at or above a threshold in 0..256 (of 0..255)."""

    rows = pixel_rows.join(images)
    levels = rows if images.dtype == jnp.uint8 else rows * 255
    is_high = levels.astype(jnp.float32) + 1e-3 >= _spread(threshold)
    return pixel_rows.split(jnp.where(is_high, invert(rows), rows), images.shape[-1])


def solarize_add(images: jax.Array, amount: Values) -> jax.Array:
    """Add an amount in 0..128 (of 0..255) to values below 128."""

    def add(x: jax.Array) -> jax.Array:
        return jnp.where(x * 255 + 1e-3 >= 128, x, x + _spread(amount) / 255)

    return _wrap_rows(add, images)


def invert(images: jax.Array) -> jax.Array:
    """Turn each value v into 255 - v, or 1 - v."""
    return (255 if images.dtype == jnp.uint8 else 1) - images


def autocontrast(images: jax.Array) -> jax.Array:
    """Stretch each channel so that its least value is 0 and its greatest 255.

    A channel of one value stays. uint8 results are rounded down, as in Pillow.
    """
    low = jnp.min(images, axis=(1, 2), keepdims=True)
    high = jnp.max(images, axis=(1, 2), keepdims=True)
    if images.dtype == jnp.uint8:
        x, low, high = (v.astype(jnp.int32) for v in (images, low, high))
        stretched = (x - low) * 255 // jnp.maximum(high - low, 1)
        return jnp.where(high > low, stretched, x).astype(jnp.uint8)
    spread = jnp.where(high > low, high - low, 1.0)
    return jnp.where(high > low, (images - low) / spread, images)


def equalize(images: jax.Array) -> jax.Array:
    """Flatten each channel's histogram, as Pillow does; floats by their 256 levels."""
    if images.dtype != jnp.uint8:
        levels = jnp.round(images * 255).astype(jnp.uint8)
        return equalize(levels).astype(images.dtype) / 255
    count, _, _, channels = images.shape
    values = images.reshape(count, -1, channels).astype(jnp.int32)
    planes = jnp.arange(count * channels).reshape(count, 1, channels)
    index = planes * 256 + values
    histogram = jnp.zeros(count * channels * 256, jnp.int32).at[index].add(1)
    histogram = histogram.reshape(count * channels, 256)
    total = jnp.cumsum(histogram, axis=1)
    last = jnp.max(jnp.where(histogram > 0, jnp.arange(256), 0), axis=1)
    top = jnp.take_along_axis(histogram, last[:, None], axis=1)
    step = (total[:, -1:] - top) // 255
    table = (step // 2 + total - histogram) // jnp.maximum(step, 1)
    table = jnp.where(step > 0, jnp.clip(table, 0, 255), jnp.arange(256)[None])
    table = table.reshape(-1).astype(jnp.uint8)
    return table.at[index].get(mode="promise_in_bounds").reshape(images.shape)


def blur(images: jax.Array, sigma: Values, size: int = 9) -> jax.Array:
    """Blur by a Gaussian of deviation `sigma` pixels, cut off at `size`, odd.

    Outside the image its edge is repeated; at 0 nothing changes.
    """
    half = size // 2
    places = jnp.arange(-half, half + 1)
    safe = jnp.maximum(_spread(sigma), 1e-3)
    weights = jnp.exp(-jnp.square(places.reshape(size, 1, 1, 1, 1) / safe[None]) / 2)
    weights = weights / jnp.sum(weights, axis=0, keepdims=True)

    def filter_axis(x: jax.Array, axis: int) -> jax.Array:
        sides = [(half, half) if a == axis else (0, 0) for a in range(4)]
        padded, length = jnp.pad(x, sides, mode="edge"), x.shape[axis]
        taps = (
            jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(size)
        )
        return sum(w * tap for w, tap in zip(weights, taps, strict=True))

    return _wrap(lambda x: filter_axis(filter_axis(x, 1), 2), images)


def add_noise(key: jax.Array, images: jax.Array, std: Values) -> jax.Array:
    """Add Gaussian noise of a deviation in 0..1 to every value."""
    shape = images.shape[1:]
    noise = jax.vmap(lambda one: jax.random.normal(one, shape))(key)
    return _wrap(lambda x: x + std * noise, images)


def shift_channels(key: jax.Array, images: jax.Array, strength: Values) -> jax.Array:
    """Add to each channel a number uniform in ±`strength`, of 0..1."""
    shape = (1, 1, images.shape[-1])
    moved = jax.vmap(lambda one: jax.random.uniform(one, shape, minval=-1.0))(key)
    return _wrap(lambda x: x + strength * moved, images)


def light(key: jax.Array, images: jax.Array, std: Values) -> jax.Array:
    """Add to RGB the principal colours of ImageNet, each weighed by N(0, std²).

    Source: Krizhevsky et al. 2012, section 4.1,
        https://proceedings.neurips.cc/paper/2012/file/c399862d3b9d6b76c8436e924a68c45b-Paper.pdf
    """
    drawn = jax.vmap(lambda one: jax.random.normal(one, (3,)))(key)
    weights = std * drawn * jnp.asarray(PCA_WEIGHTS).reshape(1, 3)
    moved = weights @ jnp.asarray(PCA_DIRECTIONS)
    return _wrap(lambda x: x + moved[:, None, None, :], images)


def _wrap_rows(function: Any, images: jax.Array) -> jax.Array:
    """Do the same for a function of each value alone."""
    rows = _wrap(function, pixel_rows.join(images))
    return pixel_rows.split(rows, images.shape[-1])


def _wrap(function: Any, images: jax.Array) -> jax.Array:
    """Apply a function of float32 images in 0..1 and return the images' own type.

    uint8 is rounded to nearest, ties to even, by adding what leaves a float32 no bits
    behind the point: to convert and to limit floats takes twice as long on CPU.

    Args:
        function: its results lie within ±16,000, which ±2²² in 255ths are.
    """
    if images.dtype != jnp.uint8:
        return jnp.clip(function(images), 0.0, 1.0)
    values = function(images.astype(jnp.float32) * (1 / 255)) * 255
    bits = jax.lax.bitcast_convert_type(values + _NO_FRACTION, jnp.int32)
    whole = bits - _NO_FRACTION.view(np.int32)
    return jnp.clip(whole, 0, 255).astype(jnp.uint8)


def _mix_grey(x: jax.Array) -> jax.Array:
    """Return the luma of RGB, [N, H, W, 1]; the mean of any other channels."""
    if x.shape[-1] != 3:
        return jnp.mean(x, axis=-1, keepdims=True)
    return sum(x[..., c : c + 1] * weight for c, weight in enumerate(GREY))


def _spread(values: Values) -> jax.Array:
    """Bring one value, or one for each image [N], to [N or 1, 1, 1, 1]."""
    return jnp.asarray(values).reshape(-1, 1, 1, 1)
