"""The augmentation sheet: training images, varied as flags say, and by each flag alone.

Above, the originals and eight varied versions of each, as the model sees them (scaled
back); below, one row for each transformation, at a small and at a large strength.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import augment
from cnn.augment import views
from cnn.data.statistics import compute_scaling
from cnn.errors import UserError
from cnn.ops import scaling
from cnn.visualize import picture
from cnn.visualize.picture import Picture
from cnn.visualize.subject import Subject

if TYPE_CHECKING:
    from cnn.config import Config

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
    {"policy": "trivialaugment"},
    {"policy": "autoaugment_cifar"},
    {"policy": "autoaugment_imagenet"},
    {"policy": "augmix", "policy_magnitude": 3.0},
    {"policy": "augmix", "policy_magnitude": 10.0},
)


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw training images as the flags vary them, and each transformation alone.

    Args:
        subject: its options and its dataset matter, no run is needed.
        folder: where the files go.

    Raises:
        UserError: the options do not fit the images.
    """
    config, dataset = subject.config, subject.dataset
    size = config.data.image_size
    augment.check(config.augment, dataset.train.shape, size)
    count = min(_EXAMPLES, len(dataset.train))
    ids = _choose_examples(dataset.train.labels, count)
    images = dataset.train.read(ids)
    data = config.data
    scale = compute_scaling(data.scaling, data.mean, data.std, dataset.train)
    above = [("original", views.make_views(jnp.asarray(images), "none", size)[0])]
    below = [("original", above[0][1][:_EACH])]
    below += _vary_each(config, images[:_EACH], ids[:_EACH], scale)
    each = _draw_each(below, folder)
    if not augment.varies(config.augment, images.shape[1:], size):
        subject.note(
            "no augmentation flag is set; one, such as --rotation_degrees=15, adds a "
            "picture of what it does in each epoch"
        )
        return [each]
    for epoch in range(_VERSIONS):
        shown = _vary(config, {}, images, ids, scale, epoch)
        above.append((f"epoch {epoch}", shown))
    return [_draw_epochs(above, folder), each]


def _draw_epochs(rows: list, folder: Path) -> Picture:
    figure = picture.make_figure(0.7 * len(rows[0][1]) + 0.8, 0.7 * len(rows) + 0.2)
    _show_rows(figure.subplots(), rows)
    caption = (
        "Each row is another epoch's version of the images in the first row, as the "
        "flags vary them."
    )
    path = folder / "augmentation.png"
    title = "Training images, varied anew in each epoch"
    return picture.save(figure, path, title, caption)


def _draw_each(rows: list, folder: Path) -> Picture:
    half, side = (len(rows) + 1) // 2, 0.42
    figure = picture.make_figure(2 * (side * _EACH + 2.3), side * half + 0.2)
    left, right = figure.subplots(1, 2)
    _show_rows(left, rows[:half])
    _show_rows(right, rows[half:])
    caption = (
        "Each row but the first is one transformation alone, at the strength beside "
        "its name."
    )
    path = folder / "augmentation_each.png"
    title = "Each transformation alone, weak and strong"
    return picture.save(figure, path, title, caption)


def _choose_examples(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose examples of as many classes as there are, in the order of the set."""
    _, first = np.unique(labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    return np.concatenate([np.sort(first), rest])[:count].astype(np.int32)


def _vary_each(config: "Config", images: np.ndarray, ids: np.ndarray, scale: Any):
    """Yield (label, images) for each transformation at two strengths."""
    channels = images.shape[-1]
    for name, strengths in STRENGTHS.items():
        for strength in strengths:
            changes = {name: strength}
            try:
                _check_alone(config, changes, images.shape[1:])
            except UserError:
                shown = np.zeros_like(images)
                yield f"{name} needs 3 channels, has {channels}", shown
                break
            shown = _vary(config, changes, images, ids, scale, 0)
            yield f"{name} {strength:g}", shown
    for changes in POLICIES:
        shown = _vary(config, changes, images, ids, scale, 0)
        values = [str(changes["policy"]), f"{changes.get('policy_magnitude', 0):g}"]
        yield " ".join(values if "policy_magnitude" in changes else values[:1]), shown


def _check_alone(config: "Config", changes: dict, shape: tuple) -> None:
    augment.check(augment.AugmentOptions(**changes), shape)


def _vary(
    config: "Config",
    changes: dict[str, Any],
    images: np.ndarray,
    ids: np.ndarray,
    scale: tuple,
    epoch: int,
) -> np.ndarray:
    """Vary images as the step does, by the flags or by one change alone."""
    options = augment.AugmentOptions(**changes) if changes else config.augment
    chosen = dataclasses.replace(config, augment=options)
    numbers = chosen.make_hyperparameters()
    static = chosen.make_static().augment
    batch = {"images": jnp.asarray(images), "ids": jnp.asarray(ids)}
    size = config.data.image_size
    return np.asarray(_vary_batch(static, size, scale, numbers, epoch, batch))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _vary_batch(
    options: augment.AugmentOptions,
    size: int,
    scale: tuple,
    numbers: dict,
    epoch: jax.Array,
    batch: dict,
) -> jax.Array:
    mean, std = scale
    shown = augment.augment_images(options, numbers, epoch, batch, size)
    floats = scaling.scale_images(shown, mean, std)
    targets = jnp.zeros((len(shown), 1))
    floats, _ = augment.mix_batch(options, numbers, epoch, batch, floats, targets)
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
    ax.set_yticks([height * (i + 0.5) for i in range(len(rows))])
    ax.set_yticklabels([label for label, _ in rows], fontsize=7)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
