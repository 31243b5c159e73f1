"""Images a second that reach a training step: decoded by 1 … N cores, and resident.

    python benchmarks/input.py [--size=224] [--images=512] [--folder=PATH]
        [--dataset=tfds:cifar10_jpeg --data_dir=DIR] [--rounds=3] [--json=FILE]

Without a folder of yours (class folders, as --dataset=folder:PATH takes them) JPEG
files of that size are made and decoded to it. Decoding goes the way of training, by the
dataset's own `read` and its threads, which are held to so many cores; a resident set is
gathered on the device. The best of the rounds is printed. One core's rate is what
`--mode=describe --decode_images_per_second=` takes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from cnn import devices  # noqa: E402
from cnn.data import DataOptions, feed, load_dataset  # noqa: E402
from cnn.data.chunks import Loader  # noqa: E402
from cnn.data.images import Images  # noqa: E402

BATCH = 32


def make_folder(directory: Path, size: int, count: int) -> None:
    """Write JPEG files in two class folders, of 16 different contents."""
    contents = [feed.make_jpeg(size, 3, seed) for seed in range(16)]
    for number in range(count):
        path = directory / "train" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % 16])
    for name in ("0", "1"):
        path = directory / "test" / name / "0.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[0])


def measure(function: Callable[[], Any], count: int, rounds: int) -> float:
    """Return the best rate of the rounds, after one that is not counted."""
    best = 0.0
    for number in range(rounds + 1):
        started = time.perf_counter()
        jax.block_until_ready(function())
        if number:
            best = max(best, count / (time.perf_counter() - started))
    return best


def measure_decoding(name: str, images: Images, options: Any) -> list[dict[str, Any]]:
    """Measure how many images are read by 1 … N cores."""
    count = min(len(images), options.images)
    positions, rows = np.arange(count), []
    cores = sorted(os.sched_getaffinity(0))
    try:
        for number in range(1, len(cores) + 1):
            # The threads that reading starts inherit it.
            os.sched_setaffinity(0, cores[:number])
            rate = measure(lambda: images.read(positions), count, options.rounds)
            rows.append(make_row(f"decode {name}", number, rate))
    finally:
        os.sched_setaffinity(0, cores)
    return rows


def measure_loaders(name: str, images: Images, options: Any) -> list[dict[str, Any]]:
    """Measure chunks brought to the device: streamed, and gathered on it."""
    mesh, cores = devices.make_mesh(), len(os.sched_getaffinity(0))
    steps = min(len(images), options.images) // BATCH
    positions = np.arange(steps * BATCH, dtype=np.int32).reshape(steps, BATCH)
    rows = []
    for what, resident in (("streamed", "never"), ("resident", "always")):
        loader = Loader(images, DataOptions(resident=resident), mesh)
        rate = measure(
            lambda loader=loader: loader.fill(positions), positions.size, options.rounds
        )
        rows.append(make_row(f"{what} chunks of {name}", cores, rate))
    return rows


def make_row(what: str, cores: int, rate: float) -> dict[str, Any]:
    """Make a row of the table."""
    return {"what": what, "cores": cores, "images_per_second": rate}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--folder", default="")
    parser.add_argument("--dataset", default="")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    if options.images < BATCH:
        parser.error(f"--images={options.images} is less than a batch of {BATCH}")
    return options


def main() -> None:
    """Measure every source and print the table."""
    options = parse()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or made
        if not options.folder:
            make_folder(Path(made), options.size, options.images)
        size = options.size
        asked = {f"{size}x{size} JPEG files": (f"folder:{folder}", size)}
        if options.dataset:
            asked[options.dataset] = (options.dataset, 0)
        for name, (dataset, size) in asked.items():
            data = DataOptions(
                dataset=dataset,
                data_dir=options.data_dir,
                image_size=size,
                resident="never",
            )
            images = load_dataset(data).train
            rows += measure_decoding(name, images, options)
            rows += measure_loaders(name, images, options)
    print("| what | cores | images/s | images/s and core |\n|---|---|---|---|")
    for row in rows:
        rate, cores = row["images_per_second"], row["cores"]
        print(f"| {row['what']} | {cores} | {rate:,.0f} | {rate / cores:,.0f} |")
    if options.json:
        about = {"device": devices.describe_device(), "jax": jax.__version__}
        text = json.dumps(about | {"images": options.images, "rows": rows}, indent=1)
        Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
