"""Saliency: which pixels an answer rests on."""

from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError, suggest
from cnn.visualize import picture, saliency
from cnn.visualize.named_run import NamedRun
from cnn.visualize.picture import Picture
from cnn.visualize.subject import Subject

_CAPTION = (
    "Each row explains the logit of the class named at its left: in gradient, "
    "integrated gradients and occlusion red pixels speak for the class and blue ones "
    "against it; Grad-CAM shows where the last stage sees it; each map is on its own "
    "scale."
)


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw four maps beside each chosen image.

    Args:
        subject: the runs, the images, and the classes that are explained.
        folder: where the files go.

    Raises:
        UserError: no run takes the images.
    """
    return subject.draw_runs(
        lambda run: _draw_run(subject, run, folder), subject.fitting_runs
    )


def _draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    names, images = subject.get_class_names(run), subject.chosen.images
    for name in subject.config.visualize.picture_classes:
        if name not in names:
            raise UserError(
                f"--picture_classes={name} is unknown{suggest(name, names)}"
            )
    logits = run.predict(images)
    asked = subject.config.visualize.picture_classes
    wanted = {name: np.full(len(images), names.index(name)) for name in asked}
    wanted = wanted or {"": np.argmax(logits, axis=1)}
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
    rows = len(chosen.images)
    figure = picture.make_figure(1.25 * (1 + len(maps)) + 1.6, 1.2 * rows + 1.3)
    axes = figure.subplots(rows, 1 + len(maps), squeeze=False)
    names = subject.get_class_names(run)
    for ax, image, name, label in zip(
        axes[:, 0], chosen.images, chosen.names, classes, strict=True
    ):
        picture.show_image(ax, image)
        picture.label_left(ax, f"{name}\n→ {names[label]}")
    for column, (name, values) in enumerate(maps.items(), start=1):
        axes[0, column].set_title(name)
        for ax, one in zip(axes[:, column], values, strict=True):
            shown = _show_map(ax, one, chosen.images.shape[1:3])
        label = "share of the largest"
        figure.colorbar(
            shown, ax=axes[:, column], label=label, location="bottom", ticks=[-1, 0, 1]
        )
    title = f"{run.name}: what each answer rests on"
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
    stages = [stage.name for stage in subject.get_stages(run) if stage.is_map]
    if stages:
        shown = saliency.grad_cam(run.function, images, classes, stages[-1])
        maps[f"Grad-CAM\n{stages[-1]}"] = np.asarray(shown)
    else:
        model = run.trained.options["model"]
        subject.note(
            f"{run.name}: Grad-CAM needs a stage with places, {model} has none"
        )
    size = max(1, min(images.shape[1:3]) // 4)
    stride = max(1, size // 4)
    maps[f"occlusion\n{size}×{size} pixels"] = saliency.occlusion(
        run.function, np.asarray(images), classes, size, stride
    )
    note = f"integrated gradients add up to the logit's rise within {error.max():.1%}"
    return maps, note


def _show_map(ax: Any, values: np.ndarray, size: tuple[int, int]) -> Any:
    """Show a map over the extent of its image, its largest value being 1."""
    most = np.abs(values).max()
    values = values / most if most > 0 else values
    extent = (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
    options = {"cmap": picture.SIGNED, "vmin": -1, "vmax": 1, "extent": extent}
    return picture.show_image(ax, values, **options)
