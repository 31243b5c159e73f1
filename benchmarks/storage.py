"""Images a second of CPU time from files, from kept decoded images, and from records.

    python benchmarks/storage.py [--size=256] [--images=4000] [--rounds=3]
        [--peer_python=PYTHON] [--json=FILE]

Photographs are read in batches of 160 in random order, an epoch a round, on all cores,
each contender in a process of its own, in turns: `streamed` decodes them, `kept` reads
what --storage_cache keeps, `mapped` copies out of a map of that file. With a Python
that has grain, array_record and simplejpeg there are grain's pipelines of ArrayRecord
files as well: of JPEG files decoded by Pillow or simplejpeg, and of decoded images.
Medians of the rounds, with their range, and the largest memory of each process.
"""

import argparse
import dataclasses
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flags
import numpy as np
import photos

from cnn.data import DataOptions, Images, load_dataset, storage_cache

BATCH = 160
OURS = ("streamed", "kept", "mapped")
GRAIN = ("pillow", "simplejpeg", "decoded")
HERE = Path(__file__).parent


def make_reader(kind: str, directory: Path, size: int) -> Images:
    """Return the images as a contender reads them."""
    options = DataOptions(
        dataset=f"folder:{directory / 'photos'}", image_size=size, resident="never"
    )
    if kind == "streamed":
        return load_dataset(options).train
    cache = str(directory / "kept")
    images = load_dataset(dataclasses.replace(options, storage_cache=cache)).train
    if kind == "kept":
        return images
    images.read(np.arange(len(images)))
    path = max((directory / "kept").iterdir(), key=lambda x: x.stat().st_size)
    shape = len(images), 8 + images.num_bytes // len(images)
    rows = np.memmap(path, np.uint8, "r", storage_cache.HEADER_BYTES, shape)
    read = lambda positions: np.stack([rows[i, 8:] for i in positions])  # noqa: E731
    return dataclasses.replace(images, read=read)


def serve(kind: str, directory: str, size: str) -> None:
    """Read all images for each line; answers with seconds, CPU seconds and bytes."""
    images = make_reader(kind, Path(directory), int(size))
    for number, _ in enumerate(sys.stdin):
        order = np.random.default_rng(number).permutation(len(images))
        started, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(order), BATCH):
            images.read(order[start : start + BATCH])
        found = time.perf_counter() - started, time.process_time() - cpu
        most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(*found, most, flush=True)


def start(python: str, script: str, *arguments: object) -> subprocess.Popen:
    """Start a contender."""
    command = [python, str(HERE / script), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def measure(options: argparse.Namespace, directory: Path) -> dict[str, np.ndarray]:
    """Return seconds, CPU seconds and bytes of each contender's rounds, [rounds, 3]."""
    photos.make_photos(
        directory / "photos/train", options.size, options.size, options.images
    )
    photos.make_photos(directory / "photos/test", options.size, options.size, 2)
    found = {}
    workers = {
        kind: start(
            sys.executable, "storage.py", "--serve", kind, directory, options.size
        )
        for kind in OURS
    }
    if options.peer_python:
        for kind in GRAIN:
            arguments = "storage_grain.py", kind, directory, options.size
            workers[f"grain, {kind}"] = start(options.peer_python, *arguments)
    try:
        for number in range(options.rounds + 1):
            for name, worker in workers.items():
                worker.stdin.write("\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
                if number:  # the first fills and compiles
                    found.setdefault(name, []).append([*map(float, line.split())])
    finally:
        for worker in workers.values():
            worker.kill()
    return {name: np.array(rounds) for name, rounds in found.items()}


def main() -> None:
    """Measure every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add, positive = parser.add_argument, flags.positive
    add("--size", type=positive, default=256, help="of the photographs, pixels a side")
    add("--images", type=positive, default=4000)
    add("--rounds", type=positive, default=3)
    add("--peer_python", default="", help="one with grain, array_record, simplejpeg")
    add("--json", type=flags.new_file)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(options, Path(directory))
    print("| | images/s | images/s of CPU time | memory, MB |\n|---|---|---|---|")
    for name, rounds in found.items():
        wall, cpu = (options.images / rounds[:, i] for i in (0, 1))
        spread = f"{min(cpu):,.0f}–{max(cpu):,.0f}"
        print(
            f"| {name} | {statistics.median(wall):,.0f} | "
            f"{statistics.median(cpu):,.0f} ({spread}) | {rounds[-1, 2] / 1e6:,.0f} |"
        )
    rows = {name: rounds.tolist() for name, rounds in found.items()}
    flags.write_json(options.json, {"images": options.images, "rows": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        flags.run(main)
