"""Trained runs from Python and on the command line: images in, probabilities out.

from cnn import predict
classify = predict.load_classifier("runs/digits")
probabilities = classify(images)  # uint8 [N, H, W, C] -> float32 [N, K]
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnn.augment import pipeline
from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.data.files import decode_files, find_files
from cnn.errors import UserError
from cnn.text import format_row
from cnn.training.trained import check_image_shape, load_trained, make_classifier

_COLUMNS = ("class", "probability")


def load_classifier(
    directory: str | Path, which: str = "latest"
) -> Callable[[np.ndarray], np.ndarray]:
    """Load a run as a function from images to probabilities.

    Args:
        which: `latest`, `best` or a step.

    Returns:
        A function of uint8 images [N, H, W, C] that returns float32 [N, K].

    Raises:
        UserError: as `load_trained`.
    """
    return make_classifier(load_trained(directory, which))


def predict(config: Config, directory: Path) -> Path:
    """Classify image files and write `predictions.csv` into the run's directory.

    Args:
        config: the run's options, those of the command line over them;
            `predict_images` says which files, `**` descends.

    Returns:
        The file: `path`, `class`, `probability`, then the runners-up (up to four)
        as `class2`, `probability2`, ….

    Raises:
        UserError: no file matches, or one is no image.
    """
    pattern = config.predict.predict_images
    if not pattern:
        raise UserError("--mode=predict needs --predict_images='PATTERN'")
    files = find_files(pattern)
    if not files:
        raise UserError(f"--predict_images={pattern} matches no file")
    trained = load_trained(directory, config.checkpoint.checkpoint)
    size = config.data.stored_size or trained.image_shape[0]
    shape, batch_size = (size, size, trained.image_shape[2]), config.step.batch_size
    seen, views = config.data.image_size or size, config.make_static().augment
    check_image_shape(trained, (seen, seen, shape[2]))
    pipeline.check_views(views.tta, shape, seen)
    structure = dataclasses.replace(trained.structure, image_size=seen, augment=views)
    classify = make_classifier(dataclasses.replace(trained, structure=structure))
    shown = min(5, trained.structure.num_classes)
    later = [f"{name}{rank}" for rank in range(2, shown + 1) for name in _COLUMNS]
    lines = [format_row(["path", *_COLUMNS, *later])]
    for start in range(0, len(files), batch_size):
        paths = files[start : start + batch_size]
        paths, images = decode_files(paths, shape, config.data, {})
        padding = [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)]
        rows = classify(np.pad(images, padding))[: len(images)]
        for path, row in zip(paths, rows, strict=True):
            best = np.argsort(-row, kind="stable")[:shown]
            cells = [(trained.class_names[k], f"{row[k]:.6f}") for k in best]
            lines.append(format_row([path, *(x for pair in cells for x in pair)]))
    target = directory / "predictions.csv"
    workdir.write_text(target, "".join(lines))
    return target
