"""Which colour changes flags ask for, drawn for each image, in their order.

`images` are uint8 [N, H, W, C], and so is what is returned.
"""

from typing import Any

import jax
import jax.numpy as jnp

from cnn.augment import colour
from cnn.augment.crops import draw_flips, expand
from cnn.augment.options import AugmentOptions
from cnn.augment.placing import Draw
from cnn.config import Numbers


def change_colours(
    options: AugmentOptions, numbers: Numbers, draw: Draw, images: jax.Array
) -> jax.Array:
    """Change the colours of images."""
    images = _change_points(numbers, draw, images)
    if (strength := numbers.sharpness) is not None:
        factor = draw_factors(draw("sharpness"), strength)
        images = colour.adjust_sharpness(images, factor)
    if (most := numbers.blur_sigma) is not None:
        sigma = most * draw_shares(draw("blur"))
        images = colour.blur(images, sigma, options.blur_size)
    if (std := numbers.noise_std) is not None:
        images = colour.add_noise(draw("noise"), images, std)
    if (most := numbers.channel_shift) is not None:
        images = colour.shift_channels(draw("channel_shift"), images, most)
    if (std := numbers.lighting_std) is not None:
        images = colour.light(draw("lighting"), images, std)
    return images


def draw_shares(key: jax.Array) -> jax.Array:
    """Draw a number uniform in [0, 1) for each key, [N]."""
    return jax.vmap(jax.random.uniform)(key)


def draw_factors(key: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Draw factors uniform in [max(0, 1 - strength), 1 + strength], [N]."""
    low = jnp.maximum(0.0, 1 - strength)
    return low + draw_shares(key) * (1 + strength - low)


def _change_points(numbers: Numbers, draw: Draw, images: jax.Array) -> jax.Array:
    """Apply what changes a value by that value or its image's statistics."""
    factors = (
        (numbers.brightness, "brightness", colour.adjust_brightness),
        (numbers.contrast, "contrast", colour.adjust_contrast),
        (numbers.saturation, "saturation", colour.adjust_saturation),
    )
    for strength, name, adjust in factors:
        if strength is not None:
            # Each reads its input several times: it would be computed as often.
            images = jax.lax.optimization_barrier(images)
            images = adjust(images, draw_factors(draw(name), strength))
    if (turn := numbers.hue) is not None:
        images = colour.adjust_hue(images, turn * (2 * draw_shares(draw("hue")) - 1))
    if (gamma := numbers.gamma) is not None:
        power = jnp.log1p(gamma) * (2 * draw_shares(draw("gamma")) - 1)
        images = colour.adjust_gamma(images, jnp.exp(power))
    images = _perhaps(draw, "greyscale", numbers.greyscale_probability, images)
    images = _perhaps(draw, "invert", numbers.invert_probability, images)
    if (most := numbers.posterize_bits) is not None:
        share = draw_shares(draw("posterize"))
        lost = jnp.minimum(jnp.floor(share * (most + 1)), most)
        images = colour.posterize(images, 8 - lost)
    if (share := numbers.solarize) is not None:
        share = share * draw_shares(draw("solarize"))
        images = colour.solarize(images, 256 * (1 - share))
    chance = numbers.autocontrast_probability
    images = _perhaps(draw, "autocontrast", chance, images)
    return _perhaps(draw, "equalize", numbers.equalize_probability, images)


def _perhaps(
    draw: Draw, name: str, chance: jax.Array | None, images: jax.Array
) -> jax.Array:
    """Apply a change without a strength to some images."""
    if chance is None:
        return images
    changes: dict[str, Any] = {
        "greyscale": lambda x: colour.adjust_saturation(x, 0.0),
        "invert": colour.invert,
        "autocontrast": colour.autocontrast,
        "equalize": colour.equalize,
    }
    chosen = expand(draw_flips(draw(name), chance), images.ndim)
    return jnp.where(chosen, changes[name](images), images)
