"""What of the augmentation's options contradicts itself or the images."""

import dataclasses

from cnn.augment.options import AugmentOptions
from cnn.errors import UserError

Shape = tuple[int, int, int]


def check(options: AugmentOptions, image_shape: Shape, image_size: int = 0) -> None:
    """Refuse options that do not fit each other or the images.

    Args:
        options: with their numbers, each in its own range.
        image_shape: (H, W, C) of stored images.
        image_size: height and width of what the model sees; 0: as stored.

    Raises:
        UserError: naming the flag to change.
    """
    height, width, channels = image_shape
    _check_geometry(options, (height, width), image_size)
    _check_colour(options, channels)
    _check_mixing(options)
    check_views(options.tta, image_shape, image_size)
    if options.policy == "augmix" and not 1 <= options.policy_magnitude <= 10:
        raise UserError(
            f"--policy_magnitude={options.policy_magnitude:g}: augmix has severities "
            "from 1 to 10"
        )


def varies(options: AugmentOptions, image_shape: Shape, image_size: int = 0) -> bool:
    """Return whether a training image differs from one epoch to the next.

    Args:
        options: with their numbers.
        image_shape: (H, W, C) of stored images.
        image_size: height and width of what the model sees; 0: as stored.
    """
    strengths = [
        getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.metadata["kind"] == "traced_unless_zero"
    ]
    is_cut = image_size not in (0, min(image_shape[:2]))
    chosen = options.policy != "none" or options.alternating_flip
    return any(strengths) or chosen or is_cut


def check_views(tta: str, image_shape: Shape, image_size: int = 0) -> None:
    """Refuse crops at test time when there is nothing around them to crop.

    Raises:
        UserError: naming the flag to change.
    """
    size = image_size or min(image_shape[:2])
    if tta == "crops" and min(image_shape[:2]) <= size:
        raise UserError(
            f"--tta=crops cuts views of {size} pixels from larger images, but they are "
            f"{image_shape[0]}x{image_shape[1]}; give a larger --storage_size, or "
            "--tta=flip"
        )


def _check_geometry(
    options: AugmentOptions, shape: tuple[int, int], image_size: int
) -> None:
    area, padding = options.random_resized_crop_min_area, options.crop_padding
    low, high = options.scale_min or 1.0, options.scale_max or 1.0
    size, shorter = image_size or min(shape), min(shape)
    if options.alternating_flip and options.flip_probability:
        raise UserError(
            f"--alternating_flip takes the place of --flip_probability="
            f"{options.flip_probability:g}; give one of them"
        )
    if area and padding:
        raise UserError(
            f"--random_resized_crop_min_area={area:g}, --crop_padding={padding}: both "
            "crop; give one of them"
        )
    if area > options.random_resized_crop_max_area:
        raise UserError(
            f"--random_resized_crop_min_area={area:g} is above "
            f"--random_resized_crop_max_area={options.random_resized_crop_max_area:g}"
        )
    if not area and size > shorter + 2 * padding:
        raise UserError(
            f"--image_size={size} is larger than the images of {shape[0]}x{shape[1]} "
            f"with --crop_padding={padding}; give a padding of at least "
            f"{-(-(size - shorter) // 2)}"
        )
    if padding and options.crop_mode == "reflect" and padding >= shorter:
        raise UserError(
            f"--crop_padding={padding} cannot reflect images of {shape[0]}x{shape[1]} "
            f"pixels; give at most {shorter - 1}, or --crop_mode=zero"
        )
    if low > high:
        raise UserError(
            f"--scale_min={low:g} is above --scale_max={high:g}; 0 stands for 1"
        )


def _check_colour(options: AugmentOptions, channels: int) -> None:
    if channels != 3:
        for name in ("saturation", "hue", "greyscale_probability", "lighting_std"):
            if getattr(options, name):
                raise UserError(
                    f"--{name}={getattr(options, name):g} needs images of 3 channels, "
                    f"but they have {channels}; leave it out"
                )
    if options.blur_size % 2 == 0:
        raise UserError(f"--blur_size={options.blur_size} must be odd")
    if 4 * options.blur_sigma > options.blur_size:
        raise UserError(
            f"--blur_sigma={options.blur_sigma:g} needs a --blur_size of at least "
            f"{4 * options.blur_sigma:g} pixels, not {options.blur_size}"
        )


def _check_mixing(options: AugmentOptions) -> None:
    mixes = options.mixup_alpha or options.cutmix_alpha
    if options.mixing_until_epoch and not mixes:
        raise UserError(
            f"--mixing_until_epoch={options.mixing_until_epoch} ends a mixing that is "
            "not on; give --mixup_alpha or --cutmix_alpha"
        )
    if options.mixing_scope != "batch" and not mixes:
        raise UserError(
            f"--mixing_scope={options.mixing_scope} is for a mixing that is not on; "
            "give --mixup_alpha or --cutmix_alpha"
        )
