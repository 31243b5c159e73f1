"""Where an image's pixels come from: all geometry that flags ask for, in one lookup.

Images are uint8 [N, H, W, C].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnn.augment import crops, geometry, resize
from cnn.augment.options import AugmentOptions
from cnn.config import Numbers

# Returns an operation's keys, [N].
Draw = Callable[..., jax.Array]


def place(
    options: AugmentOptions,
    numbers: Numbers,
    draw: Draw,
    epoch: jax.Array | int,
    images: jax.Array,
    size: tuple[int, int],
) -> jax.Array:
    """Crop, flip and transform, so that a pixel is interpolated at most once.

    Args:
        size: (height, width) of the output.

    Returns:
        uint8 [N, height, width, C]. Rotation and the like see what the crop leaves
        out of the image; what lies outside of that is filled, or reflected.
    """
    count, shape = images.shape[0], images.shape[1:3]
    area, padding = numbers.random_resized_crop_min_area, numbers.crop_padding
    flips = _draw_flips(options, numbers, draw, epoch)
    matrix = _draw_matrix(numbers, draw, size)
    if matrix is None and area is None and padding is None and size == shape:
        return images if flips is None else crops.flip_each(images, *flips)
    flips = flips or (None, None)
    mode = options.crop_mode
    fill = jnp.round(255 * numbers.geometry_fill) if mode == "zero" else 0.0
    if area is not None:
        most = numbers.random_resized_crop_max_area
        aspect = numbers.random_resized_crop_aspect
        window = resize.draw_windows(draw("crop"), shape, area, most, aspect)
        if matrix is None:
            return resize.resize_windows(images, window, size, *flips)
        images = resize.soften(images, window, size)
    else:
        corner = _draw_corner(padding, draw, count, shape, size)
        if matrix is None:
            return crops.copy_windows(images, *corner, *flips, size, mode, fill)
        window = (*corner, jnp.float32(size[0]), jnp.float32(size[1]))
    no = jnp.zeros(count, bool)
    flips = [no if chosen is None else chosen for chosen in flips]
    shown = geometry.window_matrix(*window, *flips, shape, size)
    matrix = geometry.compose(shown, matrix)
    return geometry.transform(images, matrix, size, options.interpolation, mode, fill)


def _draw_flips(
    options: AugmentOptions,
    numbers: Numbers,
    draw: Draw,
    epoch: jax.Array | int,
) -> tuple[jax.Array | None, jax.Array | None] | None:
    """Draw which images are mirrored and which turned upside down, or None."""
    across = numbers.flip_probability
    down = numbers.vertical_flip_probability
    if across is None and down is None and not options.alternating_flip:
        return None
    mirrored = upside_down = None
    if options.alternating_flip:
        mirrored = crops.alternate_flips(
            draw("alternating_flip", every_epoch=False), epoch
        )
    elif across is not None:
        mirrored = crops.draw_flips(draw("flip"), across)
    if down is not None:
        upside_down = crops.draw_flips(draw("vertical_flip"), down)
    return mirrored, upside_down


def _draw_corner(
    padding: jax.Array | None,
    draw: Draw,
    count: int,
    shape: tuple[int, int],
    size: tuple[int, int],
) -> tuple[jax.Array, jax.Array]:
    """Draw the top left corners of crops, [N] each; 0 where nothing is cropped."""
    if padding is None and size == shape:
        return (jnp.zeros(count, jnp.int32),) * 2
    pixels = 0 if padding is None else padding
    return crops.draw_corners(draw("crop"), shape, size, pixels)


def _draw_matrix(
    numbers: Numbers, draw: Draw, size: tuple[int, int]
) -> jax.Array | None:
    """Draw the matrices of rotation, shift, scale and shear; None without any."""
    chosen = {
        "rotation_degrees": numbers.rotation_degrees,
        "shift": numbers.shift,
        "scale_min": numbers.scale_min,
        "scale_max": numbers.scale_max,
        "shear_degrees": numbers.shear_degrees,
    }
    given = {name: number for name, number in chosen.items() if number is not None}
    return geometry.make_matrix(draw("affine"), size, **given) if given else None
