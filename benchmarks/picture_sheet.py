"""All pictures of a model of every family, with random weights, and a sheet of them.

    python benchmarks/picture_sheet.py --output=DIR [--models=alexnet,mlp:mlp_widths=6]
        [--pictures=kernels,features]

Each model is written as a run with random weights, on pieces of a photograph in 4
classes, as small as the model takes them, and all its pictures are drawn in a new
process. A line a model says the CPU seconds and what was noted; the sheet of each
model's thumbnails is `DIR/MODEL.png`. It ends with an error where a process did.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flags
import numpy as np

from cnn.errors import UserError

_CLASSES, _SIDES = ("0", "1", "2", "3"), (16, 32, 64, 80, 128, 256)
_WIDTH, _ROW = 300, 10
_LECTURE = ("logistic_regression", "mlp", "simple_cnn", "simple_cnn:batch_norm=false")
_MORE = ("alexnet_2012", "vgg16_bn", "wrn_16_4", "resnext29_2x4d")
_SMALL = ("--picture_sample=16", "--invariance_images=8", "--picture_channels=2")
_SMALL = (*_SMALL, "--picture_examples=0,1")


def list_models() -> list[str]:
    """List the lecture's models, the smallest of every family and a few others."""
    from cnn import models

    smallest = [family.examples[0] for family in models.FAMILIES]
    return list(dict.fromkeys([*_LECTURE, *smallest, *_MORE]))


def make_images(path: Path, size: int) -> None:
    """Write pieces of a photograph as an archive: 8 to train and 16 to test."""
    from PIL import Image

    from cnn.visualize.lecture.photograph import load_photograph

    whole = (255 * load_photograph()).astype(np.uint8)
    draws = np.random.default_rng(0)
    images, labels = [], np.arange(24) % len(_CLASSES)
    for label in labels:
        top = 60 * label + draws.integers(0, 60)
        piece = whole[top : top + 80, (left := draws.integers(0, 240)) : left + 80]
        images.append(np.asarray(Image.fromarray(piece).resize((size, size))))
    images = np.stack(images)
    parts = {"x_train": images[:8], "y_train": labels[:8]}
    parts |= {"x_test": images[8:], "y_test": labels[8:]}
    np.savez(path, **parts)


def write_run(name: str, directory: Path) -> None:
    """Write a run of random weights.

    Args:
        name: `MODEL`, or `MODEL:option=value:option=value`.
        directory: of the run; the images are written beside it.
    """
    import jax

    from cnn.config import list_fields, load_preset, make_config
    from cnn.option import parse
    from cnn.training.progress import Counters
    from cnn.training.trained import make_structure
    from cnn.weights import convert

    model, *given = name.split(":")
    fields = list_fields()
    choices = dict(choice.split("=") for choice in given)
    choices = {name: parse(fields[name], value) for name, value in choices.items()}
    data = {"dataset": f"npz:{directory.with_suffix('.npz')}", "validation_fraction": 0}
    config = make_config(load_preset("digits"), data, {"model": model}, choices)
    description: dict[str, Any] = {
        "options": config.to_flat(),
        "class_names": list(_CLASSES),
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "records": dataclasses.asdict(Counters()),
        "num_batches_tracked": 0,
    }
    structure = make_structure(description)
    size, shapes = find_size(structure.model)
    make_images(directory.with_suffix(".npz"), size)
    description["image_shape"] = [size, size, 3]
    draws = np.random.default_rng(0)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: draw_leaf(draws, jax.tree_util.keystr(path), leaf.shape),
        shapes,
    )
    directory.mkdir()
    convert.write_run(config, directory, variables, description)


def find_size(model: Any) -> tuple[int, Any]:
    """Find how small images a model takes, and the shapes of its variables for them."""
    import jax

    from cnn.models.layers import ImageTooSmall

    for size in _SIDES:
        images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        try:
            shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        except ImageTooSmall:
            continue
        return size, {"params": {}, "batch_stats": {}} | shapes
    raise ValueError("no size is large enough")


def draw_leaf(
    draws: np.random.Generator, path: str, shape: tuple[int, ...]
) -> np.ndarray:
    """Draw a variable: He's normal for kernels, 1 for scales and variances, else 0."""
    if "kernel" in path:
        std = np.sqrt(2 / max(1, np.prod(shape[-4:-1])))
        return draws.normal(0, std, shape).astype(np.float32)
    is_one = "scale" in path or "var" in path
    return np.full(shape, 1 if is_one else 0, np.float32)


def draw(name: str, output: Path, pictures: str) -> tuple[float, str, int]:
    """Draw pictures of a run; returns CPU seconds, what was printed, exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(flags.ROOT / "main.py"), "--mode=visualize"]
    command += [f"--workdir={output / name}", f"--pictures={pictures}"]
    command += _SMALL if pictures == "all" else []
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, done.stdout, done.returncode


def make_sheet(pictures: Sequence[Path], path: Path) -> None:
    """Write thumbnails of pictures as one."""
    from PIL import Image

    thumbnails = []
    for name in pictures:
        image = Image.open(name).convert("RGB")
        image.thumbnail((_WIDTH, _WIDTH))
        thumbnails.append(image)
    rows = -(-len(thumbnails) // _ROW)
    sheet = Image.new("RGB", (_WIDTH * _ROW, _WIDTH * rows), "white")
    for place, image in enumerate(thumbnails):
        row, column = divmod(place, _ROW)
        sheet.paste(image, (_WIDTH * column, _WIDTH * row))
    sheet.save(path)


def main() -> None:
    """Draw all and write the sheets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pictures", default="all")
    parser.add_argument("--models", type=lambda text: text.split(","))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    failed = 0
    for model in options.models or list_models():
        name = model.replace(":", ",")
        write_run(model, options.output / name)
        spent, printed, code = draw(name, options.output, options.pictures)
        (options.output / f"{name}.txt").write_text(printed)
        pictures = sorted((options.output / name / "pictures").glob("*.png"))
        notes = [x for x in printed.splitlines() if ": " in x and "written" not in x]
        print(f"{name}: exit {code}, {len(pictures)} pictures, {spent:.0f} s of CPU")
        print(*(f"    {note}" for note in notes), sep="\n", flush=True)
        if pictures:
            make_sheet(pictures, options.output / f"{name}.png")
        failed += code != 0
    if failed:
        raise UserError(f"{failed} of the processes failed")


if __name__ == "__main__":
    flags.run(main)
