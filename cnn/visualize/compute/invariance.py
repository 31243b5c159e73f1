"""How far an image may change before the prediction does.

Images are uint8 [N, H, W, C]. Neighbouring images are changed in opposite directions
(left, right, up and down in turn), so that no direction is favoured; an image is
changed alike for every model.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import keys
from cnn.augment import colour, geometry
from cnn.visualize.compute.features import map_batches


@dataclasses.dataclass(frozen=True)
class Change:
    """A way to change images, by a strength.

    Attributes:
        unit: what the strength is measured in.
        strengths: those that are measured, the one that changes nothing among them.
        nothing: the strength that changes nothing.
    """

    unit: str
    strengths: tuple[float, ...]
    nothing: float = 0.0


CHANGES: dict[str, Change] = {
    "shift": Change("pixels", (0, 1, 2, 3, 4, 6, 8)),
    "rotation": Change("degrees", (0, 5, 10, 15, 30, 45, 60, 90)),
    "scale": Change("times the size", (0.5, 0.7, 0.85, 1, 1.2, 1.5, 2), 1.0),
    "shear": Change("degrees", (0, 5, 10, 20, 30, 40)),
    "brightness": Change("times the values", (0.25, 0.5, 0.75, 1, 1.5, 2, 3), 1.0),
    "hue": Change("turns of the circle", (0, 0.05, 0.1, 0.2, 0.3, 0.5)),
    "occlusion": Change(
        "side of the grey square / image side", (0, 0.1, 0.2, 0.3, 0.4, 0.6)
    ),
    "noise": Change("standard deviation (values 0…1)", (0, 0.02, 0.05, 0.1, 0.2, 0.4)),
}
_AFFINE = ("shift", "rotation", "scale", "shear")


def choose_strengths(name: str, image_shape: tuple[int, int, int]) -> tuple[float, ...]:
    """Return the strengths of a change that make sense for images of a shape.

    Returns:
        None of hue when images are grey; shifts of at most half the image.
    """
    strengths = CHANGES[name].strengths
    if name == "hue" and image_shape[2] != 3:
        return ()
    if name == "shift":
        most = min(image_shape[:2]) // 2
        return tuple(pixels for pixels in strengths if pixels <= most)
    return strengths


def change_images(
    name: str,
    images: jax.Array,
    ids: jax.Array,
    strength: jax.Array,
    mode: str = "zero",
    fill: float = 0.0,
) -> jax.Array:
    """Change images by a fixed strength.

    Args:
        name: of `CHANGES`.
        images: uint8 [N, H, W, C].
        ids: int32 [N]; they say in which direction, and where the grey square is.
        strength: in the change's unit.
        mode: what a geometric change shows outside the image: `zero` (`fill`) or
            `reflect`.
        fill: that grey, in 0..1.

    Returns:
        uint8 [N, H, W, C].
    """
    if name in _AFFINE:
        kind = _AFFINE.index(name)  # a number, so that they share one program
        return _transform(kind, images, ids, strength, mode, fill)
    return _recolour(name, images, ids, strength)


@functools.partial(jax.jit, static_argnames="name")
def _recolour(
    name: str, images: jax.Array, ids: jax.Array, strength: jax.Array
) -> jax.Array:
    """Change images by what moves no pixel; see `change_images`."""
    sign, count = jnp.where(ids % 2 == 0, 1.0, -1.0), images.shape[0]
    if name == "brightness":
        return colour.adjust_brightness(images, jnp.full(count, strength))
    if name == "hue":
        return colour.adjust_hue(images, sign * strength)
    if name == "occlusion":
        return _cover(images, ids, strength)
    key = keys.example_keys(0, 0, ids, "invariance_noise")
    return colour.add_noise(key, images, strength)


@functools.partial(jax.jit, static_argnames="mode")
def _transform(
    kind: int,
    images: jax.Array,
    ids: jax.Array,
    strength: jax.Array,
    mode: str,
    fill: float,
) -> jax.Array:
    """Move pixels by the change of a number in `_AFFINE`; see `change_images`."""
    sign, count = jnp.where(ids % 2 == 0, 1.0, -1.0), images.shape[0]
    none, one, signed = jnp.zeros(count), jnp.ones(count), sign * strength
    right = jnp.where(ids % 4 < 2, signed, 0)
    affine = {
        "shift": (none, one, none, right, signed - right),
        "rotation": (signed, one, none, none, none),
        "scale": (none, one * strength, none, none, none),
        "shear": (none, one, signed, none, none),
    }
    moves = jnp.array([affine[name] for name in _AFFINE])[kind]
    matrix = geometry.invert_affine(*moves)
    return geometry.transform(images, matrix, mode=mode, fill=jnp.round(255 * fill))


def measure(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    changes: Mapping[str, tuple[float, ...]],
    **outside: Any,
) -> dict[str, dict[str, list[float]]]:
    """Measure accuracy and agreement under each change, at each strength.

    Args:
        predict: from uint8 images [N, H, W, C] to logits [N, K].
        images: uint8 [N, H, W, C].
        labels: int32 [N].
        changes: the strengths by name; see `choose_strengths`.
        **outside: `mode` and `fill` of `change_images`.

    Returns:
        For each change `strength`, `accuracy` (the share of right predictions) and
        `agreement` (the share of predictions that are those of the unchanged image),
        a number a strength.
    """
    ids, pixels, results = np.arange(len(images)), images[0, :, :, 0].size, {}
    before = np.argmax(predict(images), axis=1)
    for name, strengths in changes.items():
        after = []
        for strength in strengths:
            if strength == CHANGES[name].nothing:
                after.append(before)
                continue
            change = functools.partial(
                change_images, name, strength=np.float32(strength), **outside
            )
            changed = map_batches(change, images, ids.astype(np.int32), pixels=pixels)
            after.append(np.argmax(predict(changed), axis=1))
        results[name] = {
            "strength": [float(strength) for strength in strengths],
            "accuracy": [float(np.mean(classes == labels)) for classes in after],
            "agreement": [float(np.mean(classes == before)) for classes in after],
        }
    return results


def _cover(images: jax.Array, ids: jax.Array, share: jax.Array) -> jax.Array:
    """Cover a square of each image by grey, at a place of its own."""
    height, width = images.shape[1:3]
    side = jnp.round(share * min(height, width))
    key = keys.example_keys(0, 0, ids, "invariance_occlusion")
    drawn = jax.vmap(lambda one: jax.random.uniform(one, (2,)))(key)
    top = jnp.floor(drawn[:, 0] * (height - side + 1))[:, None, None]
    left = jnp.floor(drawn[:, 1] * (width - side + 1))[:, None, None]
    rows = jnp.arange(height)[None, :, None] - top
    columns = jnp.arange(width)[None, None, :] - left
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return jnp.where(inside[..., None], jnp.uint8(128), images)
