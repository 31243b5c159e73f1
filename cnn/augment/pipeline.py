"""Augmentation: what happens to a training image on the device, inside the step.

In this order, which is the published one:
1. geometry, one lookup for each output pixel: random window or crop, flips, then
   rotation, shift, scale and shear (sampled once; flips and crops alone copy pixels);
2. colour: brightness, contrast, saturation, hue, gamma, greyscale, invert, posterize,
   solarize, autocontrast, equalize, sharpness, blur, noise, channel shift, lighting;
3. the policy;
(the step scales to the model's range here)
4. cut-out, erasing;
5. mix-up or CutMix.

Images are uint8 [N, H, W, C] up to 3, rounded to nearest by each transformation that
computes, and float32 after the scaling. Every transformation takes `key` first, [N]
typed keys, one an image. What is drawn for an image depends on the seed, the epoch,
its position in the training set, the operation and the copy, on nothing else; what
it is mixed with, on its batch.

`epoch` is int32 [] and counts from 0; a `batch` has `ids` int32 [N], positions in the
training set, and maybe `copies` int32 [N], which of an epoch's several sights of an
image it is. `image_shape` is (H, W, C) of stored images, `image_size` the height and
width of what the model sees (0: as stored), cut out at a random place in training.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from cnn import keys
from cnn.augment import colouring, crops, mixing, placing, policies
from cnn.augment.options import AugmentOptions
from cnn.config import Numbers
from cnn.data.options import find_centre
from cnn.errors import UserError

Batch = Mapping[str, jax.Array]
Shape = tuple[int, int, int]


def repeat_examples(options: AugmentOptions, batch: Batch) -> Batch:
    """Repeat a batch `augment_repeats` times, each copy to be varied on its own.

    Returns:
        Arrays [repeats · N, …], the whole batch again and again, and `copies` int32,
        which repeat an example is, others for each time that an epoch draws it. The
        epoch's order, its steps and `ids` stay.

    Source: Hoffer et al. 2019, https://arxiv.org/abs/1901.09335
    """
    repeats = options.augment_repeats
    if repeats == 1:
        return batch
    count = batch["ids"].shape[0]
    repeated = {name: jnp.concatenate([x] * repeats) for name, x in batch.items()}
    copies = jnp.repeat(jnp.arange(repeats), count)
    if "copies" in batch:
        copies += repeats * repeated["copies"]
    return repeated | {"copies": copies}


def augment_images(
    options: AugmentOptions,
    numbers: Numbers,
    epoch: jax.Array | int,
    batch: Batch,
    image_size: int = 0,
) -> jax.Array:
    """Vary the images of a training batch: 1 to 3 of the order above.

    Args:
        batch: with `images` uint8 [N, H, W, C].

    Returns:
        uint8 [N, image_size, image_size, C].
    """
    images = batch["images"]
    size = (image_size, image_size) if image_size else images.shape[1:3]
    draw = functools.partial(_draw, numbers, epoch, batch)
    images = placing.place(options, numbers, draw, epoch, images, size)
    images = colouring.change_colours(options, numbers, draw, images)
    magnitude = numbers.policy_magnitude
    if options.policy == "none":
        return images
    key = draw("policy")
    if options.policy == "randaugment":
        return policies.randaugment(key, images, magnitude, options.policy_layers)
    if options.policy == "randaugment_increasing":
        return policies.randaugment_increasing(
            key,
            images,
            magnitude,
            options.policy_layers,
            numbers.policy_probability,
            numbers.policy_magnitude_std,
        )
    if options.policy == "trivialaugment":
        return policies.trivialaugment(key, images)
    if options.policy == "augmix":
        return policies.augmix(key, images, magnitude)
    learnt_on = options.policy.removeprefix("autoaugment_")
    return policies.autoaugment(key, images, learnt_on)


def mix_batch(
    options: AugmentOptions,
    numbers: Numbers,
    epoch: jax.Array | int,
    batch: Batch,
    images: jax.Array,
    targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Erase parts of scaled images and mix examples: 4 and 5 of the order above.

    Returns:
        Images and targets; the other image of a mix is the batch's previous one.
    """
    draw = functools.partial(_draw, numbers, epoch, batch)
    size = numbers.cutout_size
    if size is not None:
        images = mixing.cut_out(draw("cutout"), images, size)
    chance = numbers.erasing_probability
    if chance is not None:
        images = mixing.erase(draw("erasing"), images, chance, options.erasing_mode)
    alphas = numbers.mixup_alpha, numbers.cutmix_alpha
    if alphas == (None, None):
        return images, targets
    # What an image is mixed with would else be computed a second time.
    images = jax.lax.optimization_barrier(images)
    return _mix(options, numbers, draw, epoch, images, targets)


def _mix(
    options: AugmentOptions,
    numbers: Numbers,
    draw: placing.Draw,
    epoch: jax.Array | int,
    images: jax.Array,
    targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Blend examples, or paste parts of one into another, as numbers are present."""
    alphas = numbers.mixup_alpha, numbers.cutmix_alpha
    probability = numbers.mixing_probability
    last = numbers.mixing_until_epoch
    if last is not None:
        probability = jnp.where(epoch < last, probability, 0.0)
    scope, key = options.mixing_scope, draw("mixing")
    share = [
        None if alpha is None else mixing.draw_share(key, alpha, probability, scope)
        for alpha in alphas
    ]
    if alphas[1] is None:
        return mixing.mix_up(images, targets, share[0])
    place = draw("mixing_place")
    pasted = mixing.cut_mix(place, images, targets, share[1], scope)
    if alphas[0] is None:
        return pasted
    blended = mixing.mix_up(images, targets, share[0])
    choice = draw("mixing_choice")
    choice = crops.draw_flips(choice[:1] if scope == "batch" else choice, 0.5)
    return tuple(
        jnp.where(crops.expand(choice, one.ndim), one, other)
        for one, other in zip(pasted, blended, strict=True)
    )


def _draw(
    numbers: Numbers,
    epoch: jax.Array | int,
    batch: Batch,
    operation: str,
    every_epoch: bool = True,
) -> jax.Array:
    """Return the keys of one operation, [N]; others in every epoch, or the same."""
    epoch, copies = epoch if every_epoch else 0, batch.get("copies")
    return keys.example_keys(numbers.seed, epoch, batch["ids"], operation, copies)


def average_views(
    predict: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    tta: str = "none",
    image_size: int = 0,
    average: Callable[[list[jax.Array]], jax.Array] | None = None,
) -> jax.Array:
    """Average what a model predicts for views of each image, as `tta` chooses them.

    Args:
        predict: maps images [N, h, w, C] to logits [N, K].
        average: from logits of views to those of their mean probabilities; None:
            `average_softmax`.

    Returns:
        float32 [N, K]: the logits of one view; the mean logits of `shifts`; else those
        of the mean probabilities.

    Source: Krizhevsky et al. 2012, section 4.1, averages the ten views' softmax;
        Jordan 2024, https://arxiv.org/abs/2404.00498, the logits of shifted ones.
    """
    views = make_views(images, tta, image_size)
    logits = [predict(view).astype(jnp.float32) for view in views]
    if len(views) == 1:
        return logits[0]
    if tta == "shifts":
        weights = jnp.array([0.25, 0.125, 0.125] * 2)
        return jnp.tensordot(weights, jnp.stack(logits), 1)
    return (average or average_softmax)(logits)


def average_softmax(logits: list[jax.Array]) -> jax.Array:
    """Return the logarithms of mean probabilities, whose softmax is that mean."""
    logs = jnp.stack([jax.nn.log_softmax(view) for view in logits])
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(len(logits))


def make_views(images: jax.Array, tta: str, image_size: int = 0) -> list[jax.Array]:
    """Return the views of images [N, H, W, C], each [N, image_size, image_size, C]."""
    height, width = images.shape[1:3]
    size = (image_size or height, image_size or width)
    bottom, right = height - size[0], width - size[1]
    top = find_centre(height, size[0])
    left = find_centre(width, size[1])
    corners = [(top, left)]
    if tta == "crops":
        corners += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    if tta == "shifts":
        images = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        corners = [(top + move, left + move) for move in (1, 0, 2)]
    views = [
        images[:, top : top + size[0], left : left + size[1]] for top, left in corners
    ]
    if tta != "none":
        views += [view[:, :, ::-1] for view in views]
    return views


def check(options: AugmentOptions, image_shape: Shape, image_size: int = 0) -> None:
    """Refuse options that do not fit each other or the images.

    Raises:
        UserError: naming the flag to change.
    """
    height, width, channels = image_shape
    _check_geometry(options, (height, width), image_size)
    _check_colour(options, channels)
    check_views(options.tta, image_shape, image_size)
    if options.policy == "randaugment_increasing" and options.policy_magnitude > 10:
        raise UserError(
            f"--policy_magnitude={options.policy_magnitude:g}: randaugment_increasing "
            "has strengths from 0 to 10"
        )
    if options.policy == "augmix" and not 1 <= options.policy_magnitude <= 10:
        raise UserError(
            f"--policy_magnitude={options.policy_magnitude:g}: augmix has severities "
            "from 1 to 10"
        )


def varies(options: AugmentOptions, image_shape: Shape, image_size: int = 0) -> bool:
    """Return whether a training image differs from one epoch to the next."""
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
