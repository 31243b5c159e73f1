"""Image scaling: whole numbers 0–255 to the small floats that networks learn from."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cnn.ops import pixel_rows

UNIT = (0.0, 1.0)  # mean and std that give [0, 1]
SYMMETRIC = (0.5, 0.5)  # mean and std that give [−1, 1]

Values = float | Sequence[float] | jax.Array


def scale_images(images: jax.Array, mean: Values, std: Values) -> jax.Array:
    """Scale to (images / 255 − mean) / std.

    `scale_images(images, *UNIT)` gives [0, 1], `*SYMMETRIC` gives [−1, 1], and a
    data set's own mean and deviation give mean 0 and variance 1, the best of them.

    Args:
        images: [..., C], uint8, or floats in 0–255.
        mean: of the images in [0, 1]; one number, or one for each channel.
        std: likewise, positive.

    Returns:
        float32 of the images' shape.

    Raises:
        ValueError: mean or std is neither one number nor one for each channel.
    """
    mean, std = _per_channel("mean", mean, images), _per_channel("std", std, images)
    if images.ndim != 4:
        return (images.astype(jnp.float32) / 255 - mean) / std
    rows, width = pixel_rows.join(images), images.shape[2]
    mean, std = (x if x.size == 1 else jnp.tile(x, width) for x in (mean, std))
    scaled = (rows.astype(jnp.float32) / 255 - mean) / std
    return pixel_rows.split(scaled, images.shape[-1])


def _per_channel(name: str, value: Values, images: jax.Array) -> jax.Array:
    value = jnp.asarray(value, jnp.float32)
    if value.size not in (1, images.shape[-1]) or value.ndim > 1:
        raise ValueError(
            f"{name} of shape {list(value.shape)} for images {list(images.shape)}: "
            "give one number, or one for each channel"
        )
    return value.reshape((1,) * (images.ndim - 1) + (-1,))
