"""Which colour changes flags ask for, drawn for each image, in their order."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cnn.augment import colour
from cnn.augment.crops import draw_flips, expand
from cnn.options import option

Hyperparameters = Mapping[str, jax.Array | None]
Draw = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class ColourOptions:
    """How the colours of training images are varied, in this order."""

    brightness: float = option(
        0.0,
        "factors from 1 - this to 1 + this",
        kind="traced_unless_zero",
        within="[0, 10]",
    )
    contrast: float = option(
        0.0,
        "factors from 1 - this to 1 + this",
        kind="traced_unless_zero",
        within="[0, 10]",
    )
    saturation: float = option(
        0.0,
        "factors from 1 - this to 1 + this",
        kind="traced_unless_zero",
        within="[0, 10]",
    )
    hue: float = option(
        0.0,
        "greatest turn as a share of the circle",
        kind="traced_unless_zero",
        within="[0, 0.5]",
    )
    gamma: float = option(
        0.0,
        "exponents from 1 / (1 + this) to 1 + this",
        kind="traced_unless_zero",
        within="[0, 10]",
    )
    greyscale_probability: float = option(
        0.0,
        "probability of taking the colour from a training image",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    invert_probability: float = option(
        0.0,
        "probability of inverting a training image",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    posterize_bits: int = option(
        0,
        "most bits, of eight, that values lose",
        kind="traced_unless_zero",
        within="[0, 7]",
    )
    solarize: float = option(
        0.0,
        "greatest share of the range, from the top, that is inverted",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    autocontrast_probability: float = option(
        0.0,
        "probability of stretching the contrast of a training image",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    equalize_probability: float = option(
        0.0,
        "probability of equalizing the histogram of a training image",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    sharpness: float = option(
        0.0,
        "factors from 1 - this to 1 + this",
        kind="traced_unless_zero",
        within="[0, 10]",
    )
    blur_sigma: float = option(
        0.0,
        "greatest deviation of a blur in pixels",
        kind="traced_unless_zero",
        within="[0, 64]",
    )
    blur_size: int = option(
        9, "width of that blur in pixels, odd; at least 4 deviations", within="[3, 255]"
    )
    noise_std: float = option(
        0.0,
        "deviation of noise in images of 0..1",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    channel_shift: float = option(
        0.0,
        "most that is added to a channel of images in 0..1",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    lighting_std: float = option(
        0.0,
        "deviation of AlexNet's lighting; published: 0.1",
        kind="traced_unless_zero",
        within="[0, 10]",
    )


def change_colours(
    options: ColourOptions,
    hyperparameters: Hyperparameters,
    draw: Draw,
    images: jax.Array,
) -> jax.Array:
    """Change the colours of images.

    Args:
        options: the static part.
        hyperparameters: every number; None where absent.
        draw: returns an operation's keys [N].
        images: uint8 [N, H, W, C].

    Returns:
        uint8 [N, H, W, C].
    """
    images = _change_points(hyperparameters, draw, images)
    if (strength := hyperparameters["sharpness"]) is not None:
        factor = draw_factors(draw("sharpness"), strength)
        images = colour.adjust_sharpness(images, factor)
    if (most := hyperparameters["blur_sigma"]) is not None:
        sigma = most * draw_shares(draw("blur"))
        images = colour.blur(images, sigma, options.blur_size)
    if (std := hyperparameters["noise_std"]) is not None:
        images = colour.add_noise(draw("noise"), images, std)
    if (most := hyperparameters["channel_shift"]) is not None:
        images = colour.shift_channels(draw("channel_shift"), images, most)
    if (std := hyperparameters["lighting_std"]) is not None:
        images = colour.light(draw("lighting"), images, std)
    return images


def draw_shares(key: jax.Array) -> jax.Array:
    """Draw a number uniform in [0, 1) for each key, [N]."""
    return jax.vmap(jax.random.uniform)(key)


def draw_factors(key: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Draw factors uniform in [max(0, 1 - strength), 1 + strength], [N]."""
    low = jnp.maximum(0.0, 1 - strength)
    return low + draw_shares(key) * (1 + strength - low)


def _change_points(
    hyperparameters: Hyperparameters, draw: Draw, images: jax.Array
) -> jax.Array:
    """Apply what changes a value by itself or its image's statistics."""
    factors = (
        (hyperparameters["brightness"], "brightness", colour.adjust_brightness),
        (hyperparameters["contrast"], "contrast", colour.adjust_contrast),
        (hyperparameters["saturation"], "saturation", colour.adjust_saturation),
    )
    for strength, name, adjust in factors:
        if strength is not None:
            # Each reads its input several times: it would be computed as often.
            images = jax.lax.optimization_barrier(images)
            images = adjust(images, draw_factors(draw(name), strength))
    if (turn := hyperparameters["hue"]) is not None:
        images = colour.adjust_hue(images, turn * (2 * draw_shares(draw("hue")) - 1))
    if (gamma := hyperparameters["gamma"]) is not None:
        power = jnp.log1p(gamma) * (2 * draw_shares(draw("gamma")) - 1)
        images = colour.adjust_gamma(images, jnp.exp(power))
    images = _perhaps(
        draw, "greyscale", hyperparameters["greyscale_probability"], images
    )
    images = _perhaps(draw, "invert", hyperparameters["invert_probability"], images)
    if (most := hyperparameters["posterize_bits"]) is not None:
        share = draw_shares(draw("posterize"))
        lost = jnp.minimum(jnp.floor(share * (most + 1)), most)
        images = colour.posterize(images, 8 - lost)
    if (share := hyperparameters["solarize"]) is not None:
        share = share * draw_shares(draw("solarize"))
        images = colour.solarize(images, 256 * (1 - share))
    chance = hyperparameters["autocontrast_probability"]
    images = _perhaps(draw, "autocontrast", chance, images)
    return _perhaps(draw, "equalize", hyperparameters["equalize_probability"], images)


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
