"""The augmentation sheet: training images, varied in each epoch as the flags say.

Above, the originals; below, eight varied versions of each, as the model sees them
(scaled back).
"""

import dataclasses
import functools
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
from cnn.option import format_value
from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.subject import Subject

Scale = tuple[tuple[float, ...], tuple[float, ...]]

_EXAMPLES, _VERSIONS = 8, 8


@dataclasses.dataclass(frozen=True)
class Examples:
    """Training images that are varied.

    Attributes:
        images: uint8 [n, H, W, C], as they are stored.
        ids: int32 [n], their positions, which randomness depends on.
        scale: mean and standard deviation that training scales them by.
        original: uint8 [n, h, w, C], as the model sees them unchanged.
    """

    images: np.ndarray
    ids: np.ndarray
    scale: Scale
    original: jax.Array


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw training images as a run's options, or the flags, vary them.

    The subject's options and dataset matter, no run is needed.

    Raises:
        UserError: the options do not fit the images, or vary nothing.
    """
    config, train = subject.config, subject.dataset.train
    size = config.data.training_size
    pipeline.check(config.augment, train.shape, size)
    if not pipeline.varies(config.augment, train.shape, size):
        raise UserError(
            "no augmentation flag is set, so that the network sees the same images in "
            "each epoch; one, such as --rotation_degrees=15, shows what it does"
        )
    examples = read_examples(subject, _EXAMPLES)
    rows = [("original", examples.original)]
    for epoch in range(_VERSIONS):
        rows.append((f"epoch {epoch}", vary(config, config.augment, examples, epoch)))
    figure = picture.make_figure(0.7 * len(examples.ids) + 0.8, 0.7 * len(rows) + 0.2)
    show_rows(figure.subplots(), rows)
    drawn = picture.save(
        figure,
        folder / "augmentation.png",
        "Training images, varied in each epoch",
        "More images from those that are there: each row is another epoch's version of "
        "the images in the first row, and the labels stay. Varied by "
        f"{_describe(config.augment)}.",
    )
    return [drawn]


def _describe(options: AugmentOptions) -> str:
    """Name the options of augmentation that are not the default."""
    given = dataclasses.asdict(options)
    usual = dataclasses.asdict(AugmentOptions())
    changed = [x for x in given if given[x] != usual[x]]
    return ", ".join(f"--{x}={format_value(given[x])}" for x in changed) or "cropping"


def read_examples(subject: Subject, count: int) -> Examples:
    """Read so many training images, or all, of as many classes as there are."""
    config, train = subject.config, subject.dataset.train
    ids = _choose_examples(train.labels, min(count, len(train)))
    images, data = train.read(ids), config.data
    scale = compute_scaling(data.scaling, data.mean, data.std, train)
    shown = jnp.asarray(images)
    original = pipeline.make_views(shown, "none", data.training_size)[0]
    return Examples(images, ids, scale, original)


def _choose_examples(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose examples of as many classes as there are, in the order of the set."""
    first = find_first(labels)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    return np.concatenate([np.sort(first), rest])[:count].astype(np.int32)


def vary(
    config: Config, options: AugmentOptions, examples: Examples, epoch: int
) -> np.ndarray:
    """Vary images as the step does, by some options in place of the config's.

    Returns:
        float32 in 0..1, [n, h, w, C].
    """
    config = dataclasses.replace(config, augment=options)
    numbers, static = config.make_numbers(), config.make_static().augment
    batch = {"images": jnp.asarray(examples.images), "ids": jnp.asarray(examples.ids)}
    size, scale = config.data.training_size, examples.scale
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


def show_rows(ax: Any, rows: list) -> None:
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
