"""Saliency: which pixels an answer rests on."""

import math
from pathlib import Path

import numpy as np

from cnn.errors import UserError, suggest
from cnn.visualize.compute import saliency
from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

_CAPTION = (
    "Each row explains the logit of the class named at its left: in gradient, "
    "integrated gradients and occlusion red pixels speak for the class and blue ones "
    "against it; Grad-CAM shows where the last stage of more than one place sees it; "
    "each map is on its own scale."
)


def draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    """Draw four maps beside each chosen image, for each class that is explained."""
    names, images = subject.get_class_names(run), subject.chosen.images
    asked = subject.config.visualize.picture_classes
    for name in asked:
        if name not in names:
            raise UserError(
                f"--picture_classes={name} is unknown{suggest(name, names)}"
            )
    wanted = {name: np.full(len(images), names.index(name)) for name in asked}
    wanted = wanted or {"": np.argmax(run.predict(images), axis=1)}
    pictures = []
    for name, classes in wanted.items():
        parts = ["saliency", *([name] if name else [])]
        path = subject.name_file(folder, run, *parts)
        pictures.append(_draw_classes(subject, run, classes.astype(np.int32), path))
    return pictures


def _draw_classes(
    subject: Subject, run: NamedRun, classes: np.ndarray, path: Path
) -> Picture:
    chosen = subject.chosen
    maps, note = _compute_maps(subject, run, classes)
    grid = [
        [image, *maps_of_it]
        for image, *maps_of_it in zip(chosen.images, *maps.values(), strict=True)
    ]
    names = subject.label_classes(run)
    rows = [
        f"{name}\n→ {names[label]}"
        for name, label in zip(chosen.names, classes, strict=True)
    ]
    figure = picture.make_figure(1.3 * (1 + len(maps)) + 2.2, 1.3 * len(rows) + 1.2)
    ax = figure.subplots()
    options = picture.scale_signed(1)
    shown = picture.show_grid(ax, grid, ["image", *maps], rows, **options)
    figure.colorbar(shown, ax=ax, label="share of the map's largest value", shrink=0.5)
    title = subject.entitle(run, "what each answer rests on")
    figure.suptitle(f"{title}\n{note}")
    return picture.save(figure, path, title, _CAPTION)


def _compute_maps(
    subject: Subject, run: NamedRun, classes: np.ndarray
) -> tuple[dict[str, np.ndarray], str]:
    """Compute the maps by name, [N, h, w] each, and how exact the shares are."""
    images = run.scale(subject.chosen.images)
    slopes = np.asarray(saliency.gradient(run.function, images, classes))
    black = run.scale(np.zeros((1, 1, 1, images.shape[-1]), np.uint8))
    shares, error = saliency.integrated_gradients(run.function, images, classes, black)
    maps = {"gradient": slopes.sum(-1), "integrated\ngradients": shares.sum(-1)}
    stages = [
        stage.name
        for stage in subject.get_stages(run)
        if stage.is_map and math.prod(stage.shape[:2]) > 1
    ]
    if stages:
        shown = saliency.grad_cam(run.function, images, classes, stages[-1])
        maps[f"Grad-CAM\n{stages[-1]}"] = np.asarray(shown)
    else:
        model = run.trained.options["model"]
        subject.note(
            f"{run.name}: Grad-CAM needs a stage of several places, {model} has none"
        )
    size = max(1, min(images.shape[1:3]) // 4)
    stride = max(1, size // 4)
    falls = saliency.occlusion(run.function, np.asarray(images), classes, size, stride)
    name = f"occlusion\n{size}×{size} pixels"
    maps[name] = _spread(falls, size, stride, images.shape[1:3])
    maps = {name: _normalise(values) for name, values in maps.items()}
    note = (
        "integrated gradients add up to the logit's rise within "
        f"{error.max():.2%} of all that they share out"
    )
    return maps, note


def _normalise(maps: np.ndarray) -> np.ndarray:
    """Scale each map [N, h, w] so that its largest value is 1 or -1."""
    most = np.abs(maps).max(axis=(1, 2), keepdims=True)
    return maps / np.maximum(most, np.finfo(np.float32).tiny)


def _spread(falls: np.ndarray, size: int, stride: int, shape: tuple) -> np.ndarray:
    """Lay falls [N, rows, columns] over their images: a pixel shows the nearest square.

    Args:
        falls: of the squares whose corners are `stride` pixels apart.
        size: the squares' side.
        stride: pixels from one square to the next.
        shape: (H, W) of the images.
    """
    nearest = [
        np.clip((np.arange(n) - (size - stride - 1) / 2) // stride, 0, count - 1)
        for n, count in zip(shape, falls.shape[1:], strict=True)
    ]
    rows, columns = (places.astype(int) for places in nearest)
    return falls[:, rows[:, None], columns]
