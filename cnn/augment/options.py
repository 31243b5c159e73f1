"""AugmentOptions: one flag for each transformation, its number being its strength.

At 0 a transformation is absent and costs nothing. A strength that is on is a traced
number: another strength does not recompile.
"""

import dataclasses

from cnn.augment.colouring import ColourOptions
from cnn.options import option

POLICIES = (
    "none",
    "randaugment",
    "trivialaugment",
    "autoaugment_cifar",
    "autoaugment_imagenet",
    "augmix",
)


@dataclasses.dataclass(frozen=True)
class AugmentOptions(ColourOptions):
    """How training images are varied, in this order."""

    augment_repeats: int = option(
        1,
        "times that each example of a batch enters the step, varied each time anew; "
        "the step computes that many times the batch size",
        within="[1, 64]",
    )
    random_resized_crop_min_area: float = option(
        0.0,
        "least share of the area that a random window has before it is resized",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    random_resized_crop_max_area: float = option(
        1.0, "greatest share of the area of that window", kind="traced", within="(0, 1]"
    )
    random_resized_crop_aspect: float = option(
        4 / 3,
        "width over height of that window lies between 1 / this and this",
        kind="traced",
        within="[1, 16]",
    )
    crop_padding: int = option(
        0,
        "pixels added on each side before a window of the image's size is cut out "
        "at a random place",
        kind="traced_unless_zero",
        within="[0, 16384]",
    )
    crop_mode: str = option(
        "zero",
        "what lies outside an image: zero (--geometry_fill) or reflect",
        choices=("zero", "reflect"),
    )
    flip_probability: float = option(
        0.0,
        "probability of mirroring left to right a training image",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    vertical_flip_probability: float = option(
        0.0,
        "probability of mirroring top to bottom a training image",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    alternating_flip: bool = option(
        False,
        "mirror each image left to right in every other epoch, the first by chance; "
        "instead of --flip_probability",
    )
    rotation_degrees: float = option(
        0.0,
        "greatest angle of a rotation",
        kind="traced_unless_zero",
        within="[0, 180]",
    )
    shift: float = option(
        0.0,
        "greatest shift as a share of height and width",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    scale_min: float = option(
        0.0,
        "least enlargement; 0: 1",
        kind="traced_unless_zero",
        within="[0, 10]",
    )
    scale_max: float = option(
        0.0,
        "greatest enlargement; 0: 1",
        kind="traced_unless_zero",
        within="[0, 10]",
    )
    shear_degrees: float = option(
        0.0,
        "greatest angle of a slant",
        kind="traced_unless_zero",
        within="[0, 80]",
    )
    interpolation: str = option(
        "bilinear",
        "how rotation, shift, scale and shear sample",
        choices=("bilinear", "nearest"),
    )
    geometry_fill: float = option(
        0.0,
        "grey that lies outside an image, from 0 black to 1 white",
        kind="traced",
        within="[0, 1]",
    )
    policy: str = option(
        "none", "published sequence of transformations", choices=POLICIES
    )
    policy_layers: int = option(
        2, "randaugment: transformations for each image", within="[1, 16]"
    )
    policy_magnitude: float = option(
        9.0,
        "randaugment: strength from 0 to 30; augmix: severity from 1 to 10",
        kind="traced",
        within="[0, 30]",
    )
    cutout_size: int = option(
        0,
        "side in pixels of a square that is set to the mean",
        kind="traced_unless_zero",
        within="[0, 16384]",
    )
    erasing_probability: float = option(
        0.0,
        "probability of erasing a rectangle of a training image",
        kind="traced_unless_zero",
        within="[0, 1]",
    )
    erasing_mode: str = option(
        "constant",
        "what --erasing_probability puts there: constant (the mean) or noise",
        choices=("constant", "noise"),
    )
    mixup_alpha: float = option(
        0.0,
        "Beta distribution of the share of the other image in a mix",
        kind="traced_unless_zero",
        within="[0, 100]",
    )
    cutmix_alpha: float = option(
        0.0,
        "Beta distribution of the area pasted from another image; with "
        "--mixup_alpha either has half the chance",
        kind="traced_unless_zero",
        within="[0, 100]",
    )
    mixing_probability: float = option(
        1.0, "probability of mixing", kind="traced", within="[0, 1]"
    )
    mixing_until_epoch: int = option(
        0,
        "epochs after which mixing stops; 0: never",
        kind="traced_unless_zero",
        within="[0, inf)",
    )
    mixing_scope: str = option(
        "batch",
        "what has a mix of its own: batch (one share for all) or example",
        choices=("batch", "example"),
    )
    tta: str = option(
        "none",
        "views that evaluation averages: none, flip (two), crops (four corners, the "
        "centre and their mirror images), or shifts (as it is, weighing twice, by a "
        "pixel up and left, down and right, and their mirror images)",
        choices=("none", "flip", "crops", "shifts"),
        changes_run=False,
    )
