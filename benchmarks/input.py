"""Images a second that reach a training step: decoded by 1 … N cores, and resident.

    python benchmarks/input.py [--size=224] [--images=512] [--folder=PATH]
        [--dataset=tfds:cifar10_jpeg --data_dir=DIR] [--step_images_per_second=RATE]
        [--rounds=3] [--json=FILE]
    python benchmarks/input.py --torch_python=PYTHON [--photos=500x375,1600x1200]
        [--peers=pillow,torchvision,opencv,simplejpeg,tf.data] [--photo_size=224]

Without a folder of yours (class folders, as --dataset=folder:PATH takes them) JPEG
files of that size are made and decoded to it. Images are decoded as in training, by the
dataset's own `read` and its threads, which are restricted to that many cores; a
resident set is gathered on the device. The best of the rounds is printed; the last
column is the share of the memory's bandwidth that writing and reading these pixels once
takes. With --step_images_per_second, the images/s that a training step takes (as
metrics.jsonl has it), it also counts the cores that decode as fast as that.

With --torch_python, a Python that has PyTorch and torchvision (and what --peers name),
files of photographs become batches of --photo_size, cut and squashed, on 1 and on all
cores, by the code here and by others in turns; the others' speed is their median,
and a ratio is ours by theirs of neighbouring rounds, with its range.
"""

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flags
import jax
import limits
import numpy as np
import photos
from contenders import compare_with, start_worker, take_turns

from cnn.data import load_dataset
from cnn.data.chunks import Loader
from cnn.data.images import Images
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.runtime import devices, xla
from cnn.runtime.options import DeviceOptions

BATCH, DECODE = 32, "decode"


def make_folder(directory: Path, size: int, count: int) -> None:
    """Write JPEG files in two class folders, of 16 different contents."""
    contents = [photos.make_waves(size, size, seed) for seed in range(16)]
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
            rows.append(make_row(f"{DECODE} {name}", number, rate))
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
    add, positive = parser.add_argument, flags.positive
    add("--size", type=positive, default=224, help="of the JPEG files, pixels a side")
    add("--images", type=positive, default=512)
    add("--folder", default="", help="class folders of your own")
    add("--dataset", default="", help="another one, as tfds:NAME")
    add("--data_dir", default="")
    add("--step_images_per_second", type=float, default=0.0, help="of a training step")
    add("--rounds", type=positive, default=3)
    add("--json", type=flags.new_file)
    add("--torch_python", type=flags.python_with_torch)
    add("--photos", default="500x375,1600x1200", help="widths and heights in pixels")
    add(
        "--peers", default="pillow,torchvision", help="also tf.data, opencv, simplejpeg"
    )
    add("--photo_size", type=positive, default=224, help="that they are brought to")
    options = parser.parse_args()
    if options.images < BATCH:
        parser.error(f"--images={options.images} is less than a batch of {BATCH}")
    return options


def measure_all(name: str, dataset: str, size: int, options: Any) -> list[dict]:
    """Measure one dataset; an image size of 0 keeps its own."""
    data = DataOptions(
        dataset=dataset, data_dir=options.data_dir, image_size=size, resident="never"
    )
    images = load_dataset(data).train
    if len(images) < BATCH:
        raise UserError(f"{dataset} has {len(images)} images; a batch takes {BATCH}")
    flags.report(f"{name}: decoding, then loading")
    rows = measure_decoding(name, images, options)
    rows += measure_loaders(name, images, options)
    pixels = math.prod(images.shape)
    return [row | {"bytes_per_image": pixels} for row in rows]


def report_cores(rows: list[dict[str, Any]], step_rate: float) -> None:
    """Count the cores that decode as fast as a step takes images.

    Args:
        rows: those of one core get `cores_for_step`.
        step_rate: images/s that the step takes.
    """
    here = len(os.sched_getaffinity(0))
    for row in rows:
        if row["what"].startswith(DECODE) and row["cores"] == 1:
            row["cores_for_step"] = math.ceil(step_rate / row["images_per_second"])
            print(
                f"\n{row['what']}: {row['cores_for_step']} cores keep up with a step "
                f"of {step_rate:,.0f} images/s; this machine has {here}"
            )


def compare_decoding(
    folder: Path, mode: str, cores: list[int], options: Any
) -> dict[str, list[float]]:
    """Measure all contenders on the files of a folder in turns, images/s by round."""
    data = DataOptions(
        dataset=f"folder:{folder}",
        image_size=options.photo_size,
        resize_mode=mode,
        resident="never",
    )
    images = load_dataset(data)
    parts, whole = [images.train, images.test], sorted(os.sched_getaffinity(0))

    def read() -> float:
        os.sched_setaffinity(0, cores)
        started = time.perf_counter()
        for part in parts:
            part.read(np.arange(len(part)))
        os.sched_setaffinity(0, whole)
        return time.perf_counter() - started

    contenders, workers = {"ours": read}, []
    for peer in options.peers.split(","):
        arguments = (
            "input_torch.py",
            peer,
            folder,
            options.photo_size,
            mode,
            len(cores),
        )
        contenders[peer], worker = start_worker(options.torch_python, *arguments)
        workers.append(worker)
    try:
        return take_turns(contenders, options.images, options.rounds)
    finally:
        for worker in workers:
            worker.kill()


def compare_all(options: Any) -> None:
    """Print the table of decoding and resizing beside others."""
    here = sorted(os.sched_getaffinity(0))
    title = ["files", "mode", "cores", "images/s"]
    for peer in options.peers.split(","):
        title += [peer, f"ours / {peer}"]
    print(
        f"{devices.describe_device()}, {options.images} files each, "
        f"{options.rounds} rounds"
    )
    print(f"| {' | '.join(title)} |\n|{'---|' * len(title)}", flush=True)
    rows = []
    for size in options.photos.split(","):
        with tempfile.TemporaryDirectory() as made:
            photos.make_photos(Path(made), *map(int, size.split("x")), options.images)
            for mode in ("crop", "squash"):
                for cores in sorted({1, len(here)}):
                    found = compare_decoding(Path(made), mode, here[:cores], options)
                    ours = found.pop("ours")
                    cells = [size, mode, cores, f"{statistics.median(ours):,.0f}"]
                    for theirs in found.values():
                        cells.append(f"{statistics.median(theirs):,.0f}")
                        cells.append(compare_with(ours, theirs))
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)
                    rows.append({"files": size, "mode": mode, "cores": cores} | found)
                    rows[-1]["ours"] = ours
    flags.write_json(options.json, {"images": options.images, "rows": rows})


def main() -> None:
    """Measure every source and print the table."""
    options = parse()
    if options.torch_python:
        compare_all(options)
        return
    xla.configure(DeviceOptions(compilation_cache="off"))
    bandwidth, rows = limits.measure_bandwidth(), []
    with tempfile.TemporaryDirectory() as made:
        folder, size = options.folder or made, options.size
        if not options.folder:
            make_folder(Path(made), size, options.images)
        files = f"{size}x{size} JPEG files"
        rows += measure_all(files, f"folder:{folder}", size, options)
        if options.dataset:
            rows += measure_all(options.dataset, options.dataset, 0, options)
    device = devices.describe_device()
    print(f"{device}, jax {jax.__version__}, best of {options.rounds}")
    print("| what | cores | images/s | images/s and core | of the bandwidth |")
    print("|---|---|---|---|---|")
    for row in rows:
        rate, cores = row["images_per_second"], row["cores"]
        row["of_the_bandwidth"] = 2 * row["bytes_per_image"] * rate / bandwidth
        print(
            f"| {row['what']} | {cores} | {rate:,.0f} | {rate / cores:,.0f} | "
            f"{row['of_the_bandwidth']:.2%} |"
        )
    if options.step_images_per_second:
        report_cores(rows, options.step_images_per_second)
    about = {"device": device, "jax": jax.__version__}
    found = {"images": options.images, "bandwidth_bytes_per_second": bandwidth}
    flags.write_json(options.json, about | found | {"rows": rows})


if __name__ == "__main__":
    flags.run(main)
