"""Policies: published ways to choose transformations and their strengths.

`images` are uint8 [N, H, W, C]; uint8 comes back. `key` is [N] typed keys. Every
operation is applied on its own, as published; geometric ones copy the nearest pixel
and fill with black. Ranges and signs are torchvision's.
"""

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn.augment import colour, geometry
from cnn.augment.crops import map_images

_ENHANCED = ("brightness", "contrast", "saturation", "posterize", "solarize")
_ENHANCED += ("solarize_add",)
_PLAIN = ("invert", "autocontrast")
_MOVED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_KINDS = ("identity", "point", "move", "sharpness", "equalize")
OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
    "invert",
    "solarize_add",
)


def randaugment(
    key: jax.Array, images: jax.Array, magnitude: jax.Array | float, layers: int = 2
) -> jax.Array:
    """Apply `layers` operations, each uniform among 14, at one strength in 0..30.

    Source: Cubuk et al. 2019, https://arxiv.org/abs/1909.13719
    """
    names = tuple(SPACES["randaugment"])
    for layer in range(layers):
        index, sign, _ = _draw(key, layer, len(names))
        share = jnp.broadcast_to(magnitude, index.shape) / 30
        images = _apply_named("randaugment", images, index, share, sign)
    return images


def randaugment_increasing(
    key: jax.Array,
    images: jax.Array,
    magnitude: jax.Array | float,
    layers: int = 2,
    probability: jax.Array | float = 0.5,
    magnitude_std: jax.Array | None = None,
) -> jax.Array:
    """Apply `layers` operations, each uniform among 15, as timm's `rand-…-inc1`.

    Args:
        magnitude: strength in 0..10; every operation harms more the larger it is.
        probability: of each chosen operation being applied at all.
        magnitude_std: deviation of normal noise on the magnitude, drawn for each
            operation; None: 0.

    Source: Wightman et al. 2021, https://arxiv.org/abs/2110.00476, appendix A. What
        lies outside of an image is middle grey, where timm's trainer puts the mean
        colour; timm interpolates, by bilinear or bicubic weights as chance has it,
        where this copies a pixel.
    """
    space = SPACES["randaugment_increasing"]
    unchanged = list(space).index("identity")
    for layer in range(layers):
        index, sign, _ = _draw(key, layer, len(space) - 1)
        share, chance = _draw_magnitudes(key, layer, magnitude, magnitude_std)
        index = jnp.where(chance < probability, index, unchanged)
        images = _apply_named(
            "randaugment_increasing", images, index, share, sign, fill=128
        )
    return images


def trivialaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Apply one operation, uniform among 14, at one of 31 strengths, uniform too.

    Source: Müller and Hutter 2021, https://arxiv.org/abs/2103.10158
    """
    index, sign, u = _draw(key, 0, len(SPACES["trivialaugment"]))
    share = jnp.minimum(jnp.floor(u * 31), 30) / 30
    return _apply_named("trivialaugment", images, index, share, sign)


def autoaugment(key: jax.Array, images: jax.Array, dataset: str) -> jax.Array:
    """Apply one of 25 learnt pairs of operations; each has its own probability.

    Args:
        dataset: `cifar` or `imagenet`, what it was learnt on.

    Source: Cubuk et al. 2018, https://arxiv.org/abs/1805.09501
    """
    names = list(SPACES["autoaugment"])
    table = AUTOAUGMENT[dataset]
    pair, _, _ = _draw(key, 2, len(table))
    for half in (0, 1):
        chosen = [row[half] for row in table]
        index = jnp.asarray([names.index(name) for name, _, _ in chosen])[pair]
        chance = jnp.asarray([chance for _, chance, _ in chosen])[pair]
        share = jnp.asarray([level / 9 for _, _, level in chosen])[pair]
        _, sign, u = _draw(key, half, 1)
        index = jnp.where(u < chance, index, names.index("identity"))
        images = _apply_named("autoaugment", images, index, share, sign)
    return images


def augmix(
    key: jax.Array, images: jax.Array, severity: jax.Array | float = 3.0
) -> jax.Array:
    """Mix each image with three chains of one to three operations on it.

    Weights are Dirichlet(1, 1, 1) for the chains, Beta(1, 1) between their mix and
    the image. (The paper's consistency loss is another matter and is not here.)

    Args:
        severity: 1 to 10; an operation's strength is uniform among the first
            `severity` of ten.

    Source: Hendrycks et al. 2019, https://arxiv.org/abs/1912.02781
    """
    count = len(SPACES["augmix"]) - 1
    draw = jax.vmap(lambda one: jax.random.uniform(jax.random.fold_in(one, 99), (7,)))
    u = draw(key)
    weights = -jnp.log(jnp.maximum(u[:, :3], 1e-7))
    weights = weights / jnp.sum(weights, axis=1, keepdims=True) * u[:, 3:4]
    depths = jnp.floor(u[:, 4:7] * 3) + 1
    mixed = (1 - u[:, 3]).reshape(-1, 1, 1, 1) * images.astype(jnp.float32)
    for chain in range(3):
        varied = images
        for link in range(3):
            index, sign, level = _draw(key, 3 * chain + link, count)
            share = jnp.floor(level * jnp.maximum(severity, 1.0)) / 9
            index = jnp.where(link < depths[:, chain], index, count)
            varied = _apply_named("augmix", varied, index, share, sign)
        mixed = mixed + weights[:, chain].reshape(-1, 1, 1, 1) * varied
    return geometry.round_like(mixed, images)


def apply(
    images: jax.Array,
    operation: jax.Array,
    value: jax.Array | float,
    fill: int = 0,
    names: Collection[str] = OPERATIONS,
) -> jax.Array:
    """Apply to each image the operation of its own.

    Args:
        operation: int32 [N], positions in `OPERATIONS`.
        value: float32 [N]: slope for shears, pixels for translations, degrees, factor
            for brightness, contrast, saturation and sharpness, bits, threshold, or
            what solarize_add adds.
        fill: grey in 0..255 outside of a moved image.
        names: of the operations that occur; others cost nothing.
    """
    value = jnp.broadcast_to(jnp.asarray(value, jnp.float32), operation.shape)
    kinds = jnp.asarray([_KINDS.index(_find_kind(name)) for name in OPERATIONS])
    branches = (
        lambda image, operation, value: image,
        functools.partial(_apply_point, names=names),
        functools.partial(_apply_move, fill=fill),
        lambda image, operation, value: _alone(colour.adjust_sharpness, image, value),
        lambda image, operation, value: _alone(colour.equalize, image),
    )

    def change(image: jax.Array, operation: jax.Array, value: jax.Array) -> jax.Array:
        return jax.lax.switch(kinds[operation], branches, image, operation, value)

    return map_images(change, images, operation, value)


def _find_kind(name: str) -> str:
    if name in _ENHANCED or name in _PLAIN:
        return "point"
    return "move" if name in _MOVED else name


def _apply_point(
    image: jax.Array, operation: jax.Array, value: jax.Array, names: Collection[str]
) -> jax.Array:
    """Compute the named operations on single pixels, in one pass, and choose."""
    functions = {
        "brightness": colour.adjust_brightness,
        "contrast": colour.adjust_contrast,
        "saturation": colour.adjust_saturation,
        "posterize": colour.posterize,
        "solarize": colour.solarize,
        "invert": colour.invert,
        "autocontrast": colour.autocontrast,
        "solarize_add": colour.solarize_add,
    }
    result = image
    for name, function in functions.items():
        if name not in names:
            continue
        values = (value,) if name in _ENHANCED else ()
        is_it = operation == OPERATIONS.index(name)
        result = jnp.where(is_it, _alone(function, image, *values), result)
    return result


def _apply_move(
    image: jax.Array, operation: jax.Array, value: jax.Array, fill: int = 0
) -> jax.Array:
    """Shear about the upper left corner, translate, or turn, by the nearest pixel."""
    height, width = image.shape[:2]

    def given(name: str) -> jax.Array:
        return jnp.where(operation == OPERATIONS.index(name), value, 0.0)

    slope_x, slope_y = given("shear_x"), given("shear_y")
    x, y = jnp.trunc(given("translate_x")), jnp.trunc(given("translate_y"))
    angle = jnp.deg2rad(given("rotate"))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # A corner shear is one about the centre, and a shift of the rest.
    x, y = x - slope_x * height / 2, y - slope_y * width / 2
    rows = [[cos, slope_x - sin, -x], [sin + slope_y, cos, -y]]
    matrix = jnp.stack([jnp.stack(row) for row in rows])
    places = geometry.find_places(matrix, (height, width), (height, width))
    return geometry.sample_nearest(image, *places, jnp.asarray(fill, image.dtype))


def _alone(function: Any, image: jax.Array, *values: jax.Array) -> jax.Array:
    return function(image[None], *values)[0]


def _draw(
    key: jax.Array, layer: int, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw for each image a position below `count`, a sign, and a number in [0, 1)."""

    def draw(one: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(one, layer), (3,))

    u = jax.vmap(draw)(key)
    index = jnp.minimum(jnp.floor(u[:, 0] * count), count - 1).astype(jnp.int32)
    return index, jnp.where(u[:, 1] < 0.5, -1.0, 1.0), u[:, 2]


def _draw_magnitudes(
    key: jax.Array,
    layer: int,
    magnitude: jax.Array | float,
    deviation: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Draw for each image a share in 0..1 of the ranges, and a number in [0, 1)."""

    def draw(one: jax.Array) -> tuple[jax.Array, jax.Array]:
        one = jax.random.fold_in(one, 100 + layer)
        return jax.random.normal(one), jax.random.uniform(jax.random.fold_in(one, 1))

    noise, chance = jax.vmap(draw)(key)
    if deviation is not None:
        magnitude = magnitude + deviation * noise
    share = jnp.broadcast_to(jnp.clip(magnitude, 0.0, 10.0), chance.shape) / 10
    return share, chance


def _apply_named(
    space: str,
    images: jax.Array,
    index: jax.Array,
    share: jax.Array,
    sign: jax.Array,
    fill: int = 0,
) -> jax.Array:
    """Apply each image's operation of a space at a share in 0..1 of its range."""
    rows = SPACES[space]
    operations = np.int32([OPERATIONS.index(name) for name in rows])
    ends = np.float32([row.scale_ends(*images.shape[1:3]) for row in rows.values()])
    low, high = jnp.asarray(ends[:, 0])[index], jnp.asarray(ends[:, 1])[index]
    extent = (high - low) * share
    signed = jnp.asarray([row.signed for row in rows.values()])[index]
    rounded, cut = (
        jnp.asarray([row.whole == how for row in rows.values()])[index]
        for how in ("rounded", "cut")
    )
    extent = jnp.where(cut, jnp.trunc(extent), extent)
    value = low + jnp.where(signed, sign, 1.0) * extent
    value = jnp.where(rounded, jnp.round(value), value)
    return apply(images, jnp.asarray(operations)[index], value, fill, tuple(rows))


class Range(NamedTuple):
    """From the weakest to the strongest value of an operation.

    Attributes:
        low: the value at strength 0.
        high: the value at full strength.
        signed: whether the way from low is taken up or down, by chance.
        whole: `rounded`, where the value is brought to the nearest whole number, `cut`,
            where its distance from low is, towards 0; empty where neither is.
        unit: what high is a multiple of: `one`, `width` or `height` in pixels.
    """

    low: float = 0.0
    high: float = 0.0
    signed: bool = False
    whole: str = ""
    unit: str = "one"

    def scale_ends(self, height: int, width: int) -> tuple[float, float]:
        """Return low and high in absolute terms for images of a size in pixels."""
        size = {"one": 1, "height": height, "width": width}[self.unit]
        return self.low, self.high * size


def _make_space(
    shear: float,
    pixels: tuple[Range, Range],
    degrees: float,
    posterize: tuple[float, float],
    enhance: float,
) -> dict[str, Range]:
    """Return operations and their ranges, in the published order."""
    enhanced = Range(1.0, 1 + enhance, True)
    space = {
        "identity": Range(),
        "shear_x": Range(0.0, shear, True),
        "shear_y": Range(0.0, shear, True),
        "translate_x": pixels[0],
        "translate_y": pixels[1],
        "rotate": Range(0.0, degrees, True),
    }
    if enhance:
        names = ("brightness", "saturation", "contrast", "sharpness")
        space |= dict.fromkeys(names, enhanced)
    return space | {
        "posterize": Range(*posterize, whole="rounded"),
        "solarize": Range(255.0, 0.0),
        "autocontrast": Range(),
        "equalize": Range(),
    }


def _share(share: float) -> tuple[Range, Range]:
    wide = Range(0.0, share, True, unit="width")
    return wide, wide._replace(unit="height")


_FIRST = _make_space(0.3, _share(150 / 331), 30.0, (8, 4), 0.9)
_WIDE = _make_space(0.99, (Range(0.0, 32.0, True),) * 2, 135.0, (8, 2), 0.99)
_MIX = _make_space(0.3, _share(1 / 3), 30.0, (4, 0), 0.0)
del _MIX["identity"]
_INCREASING = _make_space(0.3, _share(0.45), 30.0, (4, 0), 0.9)
del _INCREASING["identity"]
_INCREASING |= {
    "posterize": Range(4.0, 0.0, whole="cut"),
    "solarize": Range(256.0, 0.0, whole="cut"),
    "solarize_add": Range(0.0, 110.0, whole="cut"),
    "invert": Range(),
    "identity": Range(),
}

SPACES = {
    "randaugment": _FIRST,
    "trivialaugment": _WIDE,
    "autoaugment": _FIRST | {"invert": Range()},
    "augmix": _MIX | {"identity": Range()},
    "randaugment_increasing": _INCREASING,
}

# Operation, probability, strength in ninths; then the second one's.
_LEARNT = {
    "cifar": (
        "invert 0.1 0 | contrast 0.2 6",
        "rotate 0.7 2 | translate_x 0.3 9",
        "sharpness 0.8 1 | sharpness 0.9 3",
        "shear_y 0.5 8 | translate_y 0.7 9",
        "autocontrast 0.5 0 | equalize 0.9 0",
        "shear_y 0.2 7 | posterize 0.3 7",
        "saturation 0.4 3 | brightness 0.6 7",
        "sharpness 0.3 9 | brightness 0.7 9",
        "equalize 0.6 0 | equalize 0.5 0",
        "contrast 0.6 7 | sharpness 0.6 5",
        "saturation 0.7 7 | translate_x 0.5 8",
        "equalize 0.3 0 | autocontrast 0.4 0",
        "translate_y 0.4 3 | sharpness 0.2 6",
        "brightness 0.9 6 | saturation 0.2 8",
        "solarize 0.5 2 | invert 0.0 0",
        "equalize 0.2 0 | autocontrast 0.6 0",
        "equalize 0.2 0 | equalize 0.6 0",
        "saturation 0.9 9 | equalize 0.6 0",
        "autocontrast 0.8 0 | solarize 0.2 8",
        "brightness 0.1 3 | saturation 0.7 0",
        "solarize 0.4 5 | autocontrast 0.9 0",
        "translate_y 0.9 9 | translate_y 0.7 9",
        "autocontrast 0.9 0 | solarize 0.8 3",
        "equalize 0.8 0 | invert 0.1 0",
        "translate_y 0.7 9 | autocontrast 0.9 0",
    ),
    "imagenet": (
        "posterize 0.4 8 | rotate 0.6 9",
        "solarize 0.6 5 | autocontrast 0.6 0",
        "equalize 0.8 0 | equalize 0.6 0",
        "posterize 0.6 7 | posterize 0.6 6",
        "equalize 0.4 0 | solarize 0.2 4",
        "equalize 0.4 0 | rotate 0.8 8",
        "solarize 0.6 3 | equalize 0.6 0",
        "posterize 0.8 5 | equalize 1.0 0",
        "rotate 0.2 3 | solarize 0.6 8",
        "equalize 0.6 0 | posterize 0.4 6",
        "rotate 0.8 8 | saturation 0.4 0",
        "rotate 0.4 9 | equalize 0.6 0",
        "equalize 0.0 0 | equalize 0.8 0",
        "invert 0.6 0 | equalize 1.0 0",
        "saturation 0.6 4 | contrast 1.0 8",
        "rotate 0.8 8 | saturation 1.0 2",
        "saturation 0.8 8 | solarize 0.8 7",
        "sharpness 0.4 7 | invert 0.6 0",
        "shear_x 0.6 5 | equalize 1.0 0",
        "saturation 0.4 0 | equalize 0.6 0",
        "equalize 0.4 0 | solarize 0.2 4",
        "solarize 0.6 5 | autocontrast 0.6 0",
        "invert 0.6 0 | equalize 1.0 0",
        "saturation 0.6 4 | contrast 1.0 8",
        "equalize 0.8 0 | equalize 0.6 0",
    ),
}


def _read(text: str) -> tuple[str, float, int]:
    name, probability, level = text.split()
    return name, float(probability), int(level)


AUTOAUGMENT = {
    name: tuple(tuple(map(_read, row.split(" | "))) for row in rows)
    for name, rows in _LEARNT.items()
}
