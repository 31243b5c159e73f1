"""A sweep beside as many runs of main.py, and beside PyTorch with Optuna.

    python benchmarks/sweep.py [--torch_python=PATH] [--epochs=3] [--part=all]

64 trials (8 learning rates x 2 decays x 4 seeds) of simple_cnn on digits, preset
digits. Contenders follow one another in one run, on the cores that this process may
use. Ours run with every program in the compilation cache; the cold sweep, printed
besides, compiles. A contender's seconds are those of its processes from start to end;
without start-up, from when its imports were done. Then come 16 seeds of the preset, and
trials an hour by executor.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

COUNTS = {1: (1, 1, 1), 4: (1, 1, 4), 16: (2, 2, 4), 64: (8, 2, 4)}
PARTS = ("all", "64", "seeds", "executors")
EXECUTORS = ("loop", "map", "vmap", "shard", "shard_vmap")


def make_space(count: int) -> dict[str, list]:
    """Make the space of 1, 4, 16 or 64 trials, as lists."""
    rates, decays, seeds = COUNTS[count]
    return {
        "learning_rate": [round(1e-3 * 1000 ** (i / 7), 6) for i in range(rates)],
        "weight_decay": [5e-4, 5e-3][:decays],
        "seed": list(range(seeds)),
    }


def run_command(command: list[str], must_succeed: bool = True) -> tuple[float, str]:
    """Run a command; returns its wall seconds and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    seconds = time.perf_counter() - started
    if must_succeed and done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    return seconds, done.stdout


class Ours:
    """Commands of main.py that share a compilation cache."""

    def __init__(self, directory: Path, epochs: int | None, devices: int) -> None:
        """Run in a directory, each time in a new one below it; None: its own."""
        self._directory, self._number = directory, 0
        self._epochs, self._devices = epochs, devices
        self.cache = directory / "cache"

    def _make_command(self, *flags: str) -> list[str]:
        self._number += 1
        return [
            sys.executable,
            str(ROOT / "main.py"),
            f"--workdir={self.last}",
            f"--compilation_cache={self.cache}",
            *([] if self._epochs is None else [f"--epochs={self._epochs}"]),
            *flags,
        ]

    @property
    def last(self) -> Path:
        """Return the directory of the last command."""
        return self._directory / str(self._number)

    def sweep(self, space: dict[str, list], executor: str) -> tuple[float, float]:
        """Run a sweep; returns its seconds with and without start-up."""
        text = ";".join(f"{n}={','.join(map(str, v))}" for n, v in space.items())
        flags = ["--mode=sweep", f"--sweep={text}", f"--executor={executor}"]
        if executor.startswith("shard"):
            flags.append(f"--cpu_devices={self._devices}")
        wall, output = run_command(self._make_command(*flags))
        return wall, float(re.search(r"took ([0-9.]+) s from", output)[1])

    def run_alone(self, options: dict) -> tuple[float, float]:
        """Run one trial as a run of its own; returns its seconds likewise."""
        flags = [f"--{name}={value}" for name, value in options.items()]
        command = self._make_command(*flags)
        wall, _ = run_command(command)
        result = json.loads((self.last / "result.json").read_text())
        return wall, result["seconds"]


def list_points(space: dict[str, list]) -> list[dict]:
    """List the points of a space."""
    points: list[dict] = [{}]
    for name, values in space.items():
        points = [{**point, name: value} for point in points for value in values]
    return points


def run_torch(python: str, directory: Path, epochs: int, threads: int) -> list[tuple]:
    """Run PyTorch in both layouts; returns the seconds of the faster."""
    import numpy as np

    from cnn import config, data

    options = config.make_config(config.load_preset("digits")).data
    dataset, arrays = data.load_dataset(options), {}
    for split in ("train", "validation", "test"):
        images = getattr(dataset, split)
        arrays[f"{split}_images"] = images.read(np.arange(len(images)))
        arrays[f"{split}_labels"] = images.labels
    np.savez(directory / "digits.npz", **arrays)
    (directory / "space.json").write_text(json.dumps(make_space(64)))
    script = str(Path(__file__).with_name("torch_sweep.py"))
    found = []
    for layout in ("default", "channels_last"):
        files = [str(directory / name) for name in ("digits.npz", "space.json")]
        command = [python, script, *files, str(epochs), layout, str(threads)]
        wall, output = run_command(command)
        result = json.loads(output.splitlines()[-1])
        if result["trials"] != 64:
            raise SystemExit(f"PyTorch ran {result['trials']} trials instead of 64")
        found.append((wall, result["seconds"], f"PyTorch and Optuna, {layout}"))
    return found


def compare(ours: Ours, options: argparse.Namespace, directory: Path) -> None:
    """Print the table of contenders."""
    print(f"\n64 trials of {options.epochs} epochs, executor {options.executor}\n")
    print("| contender | s | s without start-up | it / our sweep |")
    print("|---|---|---|---|")
    cold = ours.sweep(make_space(64), options.executor)
    warm = ours.sweep(make_space(64), options.executor)
    rows = [(*warm, "our sweep"), (*cold, "our sweep, nothing compiled before")]
    points = list_points(make_space(64))
    ours.run_alone(points[0])
    chosen = points[:: len(points) // options.runs]
    alone = [ours.run_alone(point) for point in chosen]
    scale = len(points) / len(chosen)
    wall, inner = (scale * sum(pair[i] for pair in alone) for i in (0, 1))
    rows.append((wall, inner, f"64 runs of main.py ({len(chosen)} measured)"))
    if options.torch_python:
        threads = options.threads
        rows += run_torch(options.torch_python, directory, options.epochs, threads)
    for wall, inner, name in rows:
        ratios = f"{wall / warm[0]:.2f}, without start-up {inner / warm[1]:.2f}"
        print(f"| {name} | {wall:.1f} | {inner:.1f} | {ratios} |", flush=True)


def compare_seeds(directory: Path, ours: Ours, options: argparse.Namespace) -> None:
    """Print 16 seeds of the preset digits, as it is, beside one run of it."""
    preset = Ours(directory / "preset", None, options.devices)
    preset.cache = ours.cache
    preset.run_alone({})
    wall, _ = preset.run_alone({})
    result = json.loads((preset.last / "result.json").read_text())
    images = result["steps"] * 32
    training = images / result["images_per_second"]
    bound = wall - training + 16 * training
    space = {"seed": list(range(16))}
    preset.sweep(space, options.executor)
    swept, inner = preset.sweep(space, options.executor)
    print(f"\n16 seeds of digits: {swept:.1f} s ({inner:.1f} s without start-up);")
    print(f"one start-up and 16 times one run's training: {bound:.1f} s")
    print((preset.last / "sweep" / "settings.csv").read_text())


def compare_executors(ours: Ours, options: argparse.Namespace) -> None:
    """Print trials an hour by executor and number of trials, start-up included."""
    print(f"\nTrials an hour, trials of {options.epochs} epochs (without start-up)\n")
    counts = [count for count in COUNTS if count <= options.most]
    print("| executor | " + " | ".join(f"{n} trials" for n in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for executor in EXECUTORS:
        cells = []
        for count in counts:
            ours.sweep(make_space(count), executor)
            wall, inner = ours.sweep(make_space(count), executor)
            cells.append(f"{3600 * count / wall:,.0f} ({3600 * count / inner:,.0f})")
        print(f"| {executor} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure the chosen part."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch_python", default="")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--executor", default="shard", choices=EXECUTORS)
    parser.add_argument("--runs", type=int, default=64, help="of main.py, of the 64")
    parser.add_argument("--threads", type=int, default=cores, help="PyTorch's")
    parser.add_argument("--devices", type=int, default=cores, help="of shard")
    parser.add_argument("--most", type=int, default=64, help="trials by executor")
    parser.add_argument("--part", default="all", choices=PARTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ours = Ours(directory, options.epochs, options.devices)
        if options.part in ("all", "64"):
            compare(ours, options, directory)
        if options.part in ("all", "seeds"):
            compare_seeds(directory, ours, options)
        if options.part in ("all", "executors"):
            compare_executors(ours, options)


if __name__ == "__main__":
    main()
