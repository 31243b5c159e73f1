"""The augmentation sheet: training images, varied as flags say, and by each flag alone.

Above, the originals and eight varied versions of each, as the model sees them (scaled
back); below, one row for each transformation, at a small and at a large strength.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.augment import pipeline
from cnn.augment.options import AugmentOptions
from cnn.config import Config
from cnn.data.labels import find_first
from cnn.data.statistics import compute_scaling
from cnn.errors import UserError
from cnn.ops import scaling
from cnn.option import read_interval
from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.subject import Subject

Scale = tuple[tuple[float, ...], tuple[float, ...]]

_EXAMPLES, _VERSIONS, _EACH = 8, 8, 4
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
    """Draw training images as the flags vary them, and each transformation alone.

    The subject's options and dataset matter, no run is needed.

    Raises:
        UserError: the options do not fit the images.
    """
    config, train = subject.config, subject.dataset.train
    size = config.data.training_size
    pipeline.check(config.augment, train.shape, size)
    ids = _choose_examples(train.labels, min(_EXAMPLES, len(train)))
    images = train.read(ids)
    scale = compute_scaling(
        config.data.scaling, config.data.mean, config.data.std, train
    )
    original = pipeline.make_views(jnp.asarray(images), "none", size)[0]
    rows = [("original", original[:_EACH])]
    rows += _vary_each(config, images[:_EACH], ids[:_EACH], scale)
    half, side = (len(rows) + 1) // 2, 0.42
    figure = picture.make_figure(2 * (side * _EACH + 2.3), side * half + 0.2)
    for ax, part in zip(figure.subplots(1, 2), (rows[:half], rows[half:]), strict=True):
        _show_rows(ax, part)
    each = picture.save(
        figure,
        folder / "augmentation_each.png",
        "Each transformation alone, weak and strong",
        "Each row but the first is one transformation alone, at the strength beside "
        "its name.",
    )
    if not pipeline.varies(config.augment, images.shape[1:], size):
        subject.note(
            "no augmentation flag is set; one, such as --rotation_degrees=15, adds a "
            "picture of what it does in each epoch"
        )
        return [each]
    rows = [("original", original)]
    for epoch in range(_VERSIONS):
        varied = _vary(config, config.augment, images, ids, scale, epoch)
        rows.append((f"epoch {epoch}", varied))
    figure = picture.make_figure(0.7 * len(images) + 0.8, 0.7 * len(rows) + 0.2)
    _show_rows(figure.subplots(), rows)
    epochs = picture.save(
        figure,
        folder / "augmentation.png",
        "Training images, varied in each epoch",
        "Each row is another epoch's version of the images in the first row, as the "
        "flags vary them.",
    )
    return [epochs, each]


def _choose_examples(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose examples of as many classes as there are, in the order of the set."""
    first = find_first(labels)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    return np.concatenate([np.sort(first), rest])[:count].astype(np.int32)


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


def _vary_each(
    config: Config, images: np.ndarray, ids: np.ndarray, scale: Scale
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (label, images) for each transformation at two strengths."""
    for name, strengths in list_strengths().items():
        for strength in strengths:
            alone = AugmentOptions(**{name: strength})
            try:
                pipeline.check(alone, images.shape[1:])
            except UserError:
                channels = images.shape[-1]
                yield f"{name} needs 3 channels, has {channels}", np.zeros_like(images)
                break
            yield f"{name} {strength:g}", _vary(config, alone, images, ids, scale, 0)
    for changes in POLICIES:
        label = " ".join(f"{x:g}" if type(x) is float else x for x in changes.values())
        alone = AugmentOptions(**changes)
        yield label, _vary(config, alone, images, ids, scale, 0)


def _vary(
    config: Config,
    options: AugmentOptions,
    images: np.ndarray,
    ids: np.ndarray,
    scale: Scale,
    epoch: int,
) -> np.ndarray:
    """Vary images as the step does, by some options in place of the config's."""
    config = dataclasses.replace(config, augment=options)
    numbers, static = config.make_numbers(), config.make_static().augment
    batch = {"images": jnp.asarray(images), "ids": jnp.asarray(ids)}
    size = config.data.training_size
    return np.asarray(_vary_batch(static, size, scale, numbers, epoch, batch))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _vary_batch(
    options: AugmentOptions,
    size: int,
    scale: Scale,
    numbers: Any,
    epoch: jax.Array,
    batch: dict,
) -> jax.Array:
    mean, std = scale
    shown = pipeline.augment_images(options, numbers, epoch, batch, size)
    floats = scaling.scale_images(shown, mean, std)
    targets = jnp.zeros((len(shown), 1))
    floats, _ = pipeline.mix_batch(options, numbers, epoch, batch, floats, targets)
    mean, std = (jnp.asarray(x).reshape(1, 1, 1, -1) for x in (mean, std))
    return jnp.clip(floats * std + mean, 0, 1)


def _show_rows(ax: Any, rows: list) -> None:
    """Show rows of images as one mosaic, each row with its label."""
    lines = []
    for _, images in rows:
        images = np.asarray(images)
        images = images / 255 if images.dtype == np.uint8 else images
        images = np.broadcast_to(images, (*images.shape[:3], 3))
        gap = max(1, images.shape[1] // 16)
        sides = ((0, 0), (0, gap), (0, gap), (0, 0))
        lines.append(np.concatenate(np.pad(images, sides, constant_values=1), axis=1))
    height = lines[0].shape[0]
    ax.imshow(np.concatenate(lines), interpolation="nearest")
    places = [height * (i + 0.5) for i in range(len(rows))]
    ax.set_yticks(places, [label for label, _ in rows], fontsize=7)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
