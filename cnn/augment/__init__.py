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
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cnn import keys
from cnn.augment import colouring, crops, mixing, placing, policies
from cnn.augment.checks import check, check_views, varies
from cnn.augment.options import AugmentOptions
from cnn.augment.views import average_views

__all__ = [
    "AugmentOptions",
    "augment_images",
    "average_views",
    "check",
    "check_views",
    "mix_batch",
    "repeat_examples",
    "varies",
]

Batch = Mapping[str, jax.Array]
Hyperparameters = Mapping[str, jax.Array | None]


def repeat_examples(options: AugmentOptions, batch: Batch) -> Batch:
    """Repeat a batch `augment_repeats` times, each copy to be varied on its own.

    Args:
        options: the static part.
        batch: arrays [N, …].

    Returns:
        Arrays [repeats · N, …], the whole batch again and again, and `copies` int32,
        which repeat an example is. The epoch's order, its steps and `ids` stay.

    Source: Hoffer et al. 2019, https://arxiv.org/abs/1901.09335
    """
    repeats = options.augment_repeats
    if repeats == 1:
        return batch
    count = batch["ids"].shape[0]
    repeated = {name: jnp.concatenate([x] * repeats) for name, x in batch.items()}
    return repeated | {"copies": jnp.repeat(jnp.arange(repeats), count)}


def augment_images(
    options: AugmentOptions,
    hyperparameters: Hyperparameters,
    epoch: jax.Array | int,
    batch: Batch,
    image_size: int = 0,
) -> jax.Array:
    """Vary the images of a training batch: 1 to 3 of the order above.

    Args:
        options: the static part.
        hyperparameters: every number, traced; None where absent.
        epoch: int32 [], from 0.
        batch: `images` uint8 [N, H, W, C]; `ids` int32 [N], their positions in the
            training set; `copies` of `repeat_examples`.
        image_size: height and width of what is returned, cut out at a random place;
            0: as the images are.

    Returns:
        uint8 [N, image_size, image_size, C].
    """
    images = batch["images"]
    size = (image_size, image_size) if image_size else images.shape[1:3]
    draw = functools.partial(_draw, hyperparameters, epoch, batch)
    images = placing.place(options, hyperparameters, draw, epoch, images, size)
    images = colouring.change_colours(options, hyperparameters, draw, images)
    magnitude = hyperparameters["policy_magnitude"]
    if options.policy == "none":
        return images
    key = draw("policy")
    if options.policy == "randaugment":
        return policies.randaugment(key, images, magnitude, options.policy_layers)
    if options.policy == "trivialaugment":
        return policies.trivialaugment(key, images)
    if options.policy == "augmix":
        return policies.augmix(key, images, magnitude)
    learnt_on = options.policy.removeprefix("autoaugment_")
    return policies.autoaugment(key, images, learnt_on)


def mix_batch(
    options: AugmentOptions,
    hyperparameters: Hyperparameters,
    epoch: jax.Array | int,
    batch: Batch,
    images: jax.Array,
    targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Erase parts of images and mix examples: 4 and 5 of the order above.

    Args:
        options: the static part.
        hyperparameters: every number, traced; None where absent.
        epoch: int32 [], from 0.
        batch: `ids`, and `copies` of `repeat_examples`.
        images: float32 [N, H, W, C], scaled.
        targets: float32 [N, K].

    Returns:
        Images and targets; the other image of a mix is the batch's previous one.
    """
    draw = functools.partial(_draw, hyperparameters, epoch, batch)
    size = hyperparameters["cutout_size"]
    if size is not None:
        images = mixing.cut_out(draw("cutout"), images, size)
    chance = hyperparameters["erasing_probability"]
    if chance is not None:
        images = mixing.erase(draw("erasing"), images, chance, options.erasing_mode)
    alphas = hyperparameters["mixup_alpha"], hyperparameters["cutmix_alpha"]
    if alphas == (None, None):
        return images, targets
    # What an image is mixed with would else be computed a second time.
    images = jax.lax.optimization_barrier(images)
    return _mix(options, hyperparameters, draw, epoch, images, targets)


def _mix(
    options: AugmentOptions,
    hyperparameters: Hyperparameters,
    draw: placing.Draw,
    epoch: jax.Array | int,
    images: jax.Array,
    targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Blend examples, or paste parts of one into another, as numbers are present."""
    alphas = hyperparameters["mixup_alpha"], hyperparameters["cutmix_alpha"]
    probability = hyperparameters["mixing_probability"]
    last = hyperparameters["mixing_until_epoch"]
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
    hyperparameters: Hyperparameters,
    epoch: jax.Array | int,
    batch: Batch,
    operation: str,
    every_epoch: bool = True,
) -> jax.Array:
    """Return the batch's keys for one operation, [N], anew in every epoch or not."""
    epoch = epoch if every_epoch else 0
    copies = batch.get("copies")
    seed = hyperparameters["seed"]
    return keys.example_keys(seed, epoch, batch["ids"], operation, copies)
