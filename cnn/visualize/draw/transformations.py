"""Transformations: each way to vary an image alone, weak and strong.

One row for each flag of augmentation, at a small and at a large strength, and one for
each policy.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnn.augment import pipeline
from cnn.augment.options import AugmentOptions
from cnn.config import Config
from cnn.errors import UserError
from cnn.option import read_interval
from cnn.visualize.draw import picture
from cnn.visualize.draw.augmentation import Examples, read_examples, show_rows, vary
from cnn.visualize.draw.picture import Picture
from cnn.visualize.subject import Subject

_EXAMPLES = 4
STRENGTHS: dict[str, tuple[float, float]] = {
    "random_resized_crop_min_area": (0.9, 0.08),
    "crop_padding": (1, 4),
    "flip_probability": (0.5, 1.0),
    "vertical_flip_probability": (0.5, 1.0),
    "rotation_degrees": (5.0, 45.0),
    "shift": (0.05, 0.3),
    "scale_min": (0.95, 0.5),
    "scale_max": (1.05, 2.0),
    "shear_degrees": (5.0, 40.0),
    "brightness": (0.1, 0.8),
    "contrast": (0.1, 0.8),
    "saturation": (0.1, 1.0),
    "hue": (0.02, 0.5),
    "gamma": (0.1, 2.0),
    "greyscale_probability": (0.5, 1.0),
    "invert_probability": (0.5, 1.0),
    "posterize_bits": (2, 7),
    "solarize": (0.1, 1.0),
    "autocontrast_probability": (0.5, 1.0),
    "equalize_probability": (0.5, 1.0),
    "sharpness": (0.5, 5.0),
    "blur_sigma": (0.5, 2.0),
    "noise_std": (0.02, 0.2),
    "channel_shift": (0.05, 0.4),
    "lighting_std": (0.1, 1.0),
    "cutout_size": (4, 16),
    "erasing_probability": (0.5, 1.0),
    "mixup_alpha": (0.2, 4.0),
    "cutmix_alpha": (0.2, 4.0),
}
POLICIES = (
    {"policy": "randaugment", "policy_magnitude": 5.0},
    {"policy": "randaugment", "policy_magnitude": 25.0},
    {"policy": "randaugment_increasing", "policy_magnitude": 3.0},
    {"policy": "randaugment_increasing", "policy_magnitude": 9.0},
    {"policy": "trivialaugment"},
    {"policy": "autoaugment_cifar"},
    {"policy": "autoaugment_imagenet"},
    {"policy": "augmix", "policy_magnitude": 3.0},
    {"policy": "augmix", "policy_magnitude": 10.0},
)


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw training images as each transformation alone varies them.

    The subject's dataset matters, no run is needed and no flag of augmentation read.
    """
    examples = read_examples(subject, _EXAMPLES)
    rows = [("original", examples.original), *_vary_each(subject.config, examples)]
    half, side = (len(rows) + 1) // 2, 0.42
    figure = picture.make_figure(2 * (side * _EXAMPLES + 2.3), side * half + 0.2)
    for ax, part in zip(figure.subplots(1, 2), (rows[:half], rows[half:]), strict=True):
        show_rows(ax, part)
    drawn = picture.save(
        figure,
        folder / "transformations.png",
        "Each transformation alone, weak and strong",
        "Each row but the first is one transformation alone, at the strength beside "
        "its name.",
    )
    return [drawn]


def list_strengths() -> dict[str, tuple[float, float]]:
    """Return a weak and a strong value of each transformation, in their order.

    One that is not in `STRENGTHS` is shown at a quarter and the whole of its range.
    """
    found = {}
    for field in dataclasses.fields(AugmentOptions):
        is_strength = field.metadata["kind"] == "traced_unless_zero"
        if is_strength and field.name != "mixing_until_epoch":
            most = read_interval(field.metadata["within"])[1]
            found[field.name] = STRENGTHS.get(field.name, (most / 4, most))
    return found


def _vary_each(config: Config, examples: Examples) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (label, images) for each transformation at two strengths."""
    shape = examples.images.shape[1:]
    for name, strengths in list_strengths().items():
        for strength in strengths:
            alone = AugmentOptions(**{name: strength})
            try:
                pipeline.check(alone, shape)
            except UserError:
                label = f"{name} needs 3 channels, has {shape[-1]}"
                yield label, np.zeros_like(examples.original)
                break
            yield f"{name} {strength:g}", vary(config, alone, examples, 0)
    for changes in POLICIES:
        label = " ".join(f"{x:g}" if type(x) is float else x for x in changes.values())
        alone = AugmentOptions(**changes)
        yield label, vary(config, alone, examples, 0)
