"""AugmentOptions: one flag for each transformation, its number being its strength.

At 0 a transformation is absent and costs nothing. A strength that is on is a traced
number: another strength does not recompile.
"""

import dataclasses
from typing import ClassVar

from cnn.option import free_option, option, strength

POLICIES = (
    "none",
    "randaugment",
    "randaugment_increasing",
    "trivialaugment",
    "autoaugment_cifar",
    "autoaugment_imagenet",
    "augmix",
)
_SAMPLED = "rotation_degrees or shift or scale_min or scale_max or shear_degrees"
_MIXED = "mixup_alpha or cutmix_alpha"


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """How training images are varied, in this order."""

    modes: ClassVar[str] = "train sweep describe visualize"
    only_for: ClassVar[str] = "mode!=visualize or pictures=all|augmentation"
    # What lies outside of an image is asked by the pictures of invariance too.
    apart: ClassVar[tuple[str, ...]] = ("crop_mode", "geometry_fill")

    augment_repeats: int = option(
        1,
        "times that each example of a batch enters the step, each time varied "
        "differently; the step computes that many times the batch size",
        within="[1, 64]",
        modes="train sweep describe",
    )
    random_resized_crop_min_area: float = strength(
        "least share of the area that a random window has before it is resized",
        "[0, 1]",
    )
    random_resized_crop_max_area: float = option(
        1.0,
        "greatest share of the area of that window",
        kind="traced",
        within="(0, 1]",
        only_for="random_resized_crop_min_area",
    )
    random_resized_crop_aspect: float = option(
        4 / 3,
        "width over height of that window lies between 1 / this and this",
        kind="traced",
        within="[1, 16]",
        only_for="random_resized_crop_min_area",
    )
    crop_padding: int = strength(
        "pixels added on each side before a window of the image's size is cut out "
        "at a random place",
        "[0, pixels)",
        default=0,
    )
    crop_mode: str = option(
        "zero",
        "what lies outside an image: zero (--geometry_fill) or reflect",
        choices=("zero", "reflect"),
        only_for=f"crop_padding or {_SAMPLED} or pictures=all|invariance",
    )
    flip_probability: float = strength(
        "probability of mirroring left to right a training image", "[0, 1]"
    )
    vertical_flip_probability: float = strength(
        "probability of mirroring top to bottom a training image", "[0, 1]"
    )
    alternating_flip: bool = option(
        False,
        "mirror each image left to right in every other epoch, the first by chance; "
        "instead of --flip_probability",
    )
    rotation_degrees: float = strength("greatest angle of a rotation", "[0, 180]")
    shift: float = strength("greatest shift as a share of height and width", "[0, 1]")
    scale_min: float = strength("least enlargement; 0: 1", "[0, 10]")
    scale_max: float = strength("greatest enlargement; 0: 1", "[0, 10]")
    shear_degrees: float = strength("greatest angle of a slant", "[0, 80]")
    interpolation: str = option(
        "bilinear",
        "how rotation, shift, scale and shear sample",
        choices=("bilinear", "nearest"),
        only_for=_SAMPLED,
    )
    geometry_fill: float = option(
        0.0,
        "grey that lies outside an image, from 0 black to 1 white",
        kind="traced",
        within="[0, 1]",
        only_for="crop_mode=zero",
    )
    brightness: float = strength("factors from 1 - this to 1 + this", "[0, 10]")
    contrast: float = strength("factors from 1 - this to 1 + this", "[0, 10]")
    saturation: float = strength("factors from 1 - this to 1 + this", "[0, 10]")
    hue: float = strength("greatest turn as a share of the circle", "[0, 0.5]")
    gamma: float = strength("exponents from 1 / (1 + this) to 1 + this", "[0, 10]")
    greyscale_probability: float = strength(
        "probability of taking the colour from a training image", "[0, 1]"
    )
    invert_probability: float = strength(
        "probability of inverting a training image", "[0, 1]"
    )
    posterize_bits: int = strength(
        "most bits, of eight, that values lose", "[0, 7]", default=0
    )
    solarize: float = strength(
        "greatest share of the range, from the top, that is inverted", "[0, 1]"
    )
    autocontrast_probability: float = strength(
        "probability of stretching the contrast of a training image", "[0, 1]"
    )
    equalize_probability: float = strength(
        "probability of equalizing the histogram of a training image", "[0, 1]"
    )
    sharpness: float = strength("factors from 1 - this to 1 + this", "[0, 10]")
    blur_sigma: float = strength("greatest deviation of a blur in pixels", "[0, 64]")
    blur_size: int = option(
        9,
        "width of that blur in pixels, odd; at least 4 deviations",
        within="[3, 255]",
        only_for="blur_sigma",
    )
    noise_std: float = strength("deviation of noise in images of 0..1", "[0, 1]")
    channel_shift: float = strength(
        "most that is added to a channel of images in 0..1", "[0, 1]"
    )
    lighting_std: float = strength(
        "deviation of AlexNet's lighting; published: 0.1", "[0, 10]"
    )
    policy: str = option(
        "none", "published sequence of transformations", choices=POLICIES
    )
    policy_layers: int = option(
        2,
        "randaugment, randaugment_increasing: transformations for each image",
        within="[1, 16]",
        only_for="policy=randaugment|randaugment_increasing",
    )
    policy_magnitude: float = option(
        9.0,
        "randaugment: strength from 0 to 30; randaugment_increasing (timm's rand-inc1) "
        "from 0 to 10; augmix: severity from 1 to 10",
        kind="traced",
        within="[0, 30]",
        only_for="policy=randaugment|randaugment_increasing|augmix",
    )
    policy_magnitude_std: float = strength(
        "randaugment_increasing: deviation of the strength, drawn for each "
        "transformation",
        "[0, 10]",
        only_for="policy=randaugment_increasing",
    )
    policy_probability: float = option(
        0.5,
        "randaugment_increasing: probability of each chosen transformation",
        kind="traced",
        within="[0, 1]",
        only_for="policy=randaugment_increasing",
    )
    cutout_size: int = strength(
        "side in pixels of a square that is set to the mean", "[0, pixels]", default=0
    )
    erasing_probability: float = strength(
        "probability of erasing a rectangle of a training image", "[0, 1]"
    )
    erasing_mode: str = option(
        "constant",
        "what --erasing_probability puts there: constant (the mean) or noise",
        choices=("constant", "noise"),
        only_for="erasing_probability",
    )
    mixup_alpha: float = strength(
        "Beta distribution of the share of the other image in a mix", "[0, 100]"
    )
    cutmix_alpha: float = strength(
        "Beta distribution of the area pasted from another image; with "
        "--mixup_alpha either has half the chance",
        "[0, 100]",
    )
    mixing_probability: float = option(
        1.0,
        "probability of mixing",
        kind="traced",
        within="[0, 1]",
        only_for=_MIXED,
    )
    mixing_until_epoch: int = strength(
        "epochs after which mixing stops; 0: never",
        "[0, epochs)",
        default=0,
        only_for=_MIXED,
    )
    mixing_scope: str = option(
        "batch",
        "what has a mix of its own: batch (one share for all) or example",
        choices=("batch", "example"),
        only_for=_MIXED,
    )
    tta: str = free_option(
        "none",
        "views that evaluation averages: none, flip (two), crops (four corners, the "
        "centre and their mirror images), or shifts (as it is, weighing twice, by a "
        "pixel up and left, down and right, and their mirror images)",
        choices=("none", "flip", "crops", "shifts"),
        modes="train sweep describe evaluate predict",
    )
