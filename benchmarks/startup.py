"""Seconds from the command to the first steps: imports, data, compilation, cache.

    python benchmarks/startup.py [--rounds=3] [--images=5000] [--cpu_kernels=xla]

Each round starts a process with an empty compilation cache (cold) and another with the
cache that the first has left (warm), for the preset digits and for cifar10_resnet20 on
random images. The medians of the rounds are printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import flags
import numpy as np

PRESETS = ("digits", "cifar10_resnet20")


def run_child(preset: str, cache: str, dataset: str, kernels: str) -> None:
    """Go through the phases of a run in this process and print their seconds."""
    seconds, started = {}, time.perf_counter()

    def note(phase: str) -> None:
        nonlocal started
        seconds[phase] = time.perf_counter() - started
        started = time.perf_counter()

    import jax

    import main  # noqa: F401
    from cnn import config as config_module
    from cnn import train
    from cnn.runtime import xla
    from cnn.runtime.interrupt import Stop
    from cnn.runtime.profiling import Profiler
    from cnn.runtime.terminal import Terminal
    from cnn.training import memory, progress
    from cnn.training.epoch import Pace

    note("import")
    changes = {"dataset": dataset} if dataset else {}
    changes |= {"compilation_cache": cache, "cpu_kernels": kernels}
    config = config_module.make_config(config_module.load_preset(preset), changes)
    xla.configure(config.device)
    stop = Stop()
    setup = train.make_setup(config, {}, Terminal(), stop)
    note("data")
    begun = progress.begin(setup)
    jax.block_until_ready(begun.state)
    note("state")
    check_fits = memory.check_fits

    def compile_timed(*arguments: Any) -> None:
        # What came before is filling the first chunk, a part of the first step.
        before = time.perf_counter()
        check_fits(*arguments)
        seconds["compile"] = time.perf_counter() - before

    memory.check_fits = compile_timed
    profiler = Profiler(config.profile, setup.total_steps)
    next(progress.take_epoch(setup, begun, stop, Pace(), profiler, setup.total_steps))
    note("first step")
    seconds["first step"] -= seconds["compile"]
    print(json.dumps(seconds))


def measure(*arguments: str) -> dict[str, float]:
    """Return the seconds of the phases of a new process."""
    command = [sys.executable, __file__, "--child", *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(output.stdout.splitlines()[-1])


def measure_help() -> float:
    """Return the seconds of `python main.py --help`."""
    started = time.perf_counter()
    command = [sys.executable, str(flags.ROOT / "main.py"), "--help"]
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


def make_dataset(directory: Path, count: int) -> str:
    """Write random CIFAR-sized images and return the option that reads them."""
    random, arrays = np.random.default_rng(0), {}
    for part, size in (("train", count), ("test", 500)):
        shape = (size, 32, 32, 3)
        arrays[f"x_{part}"] = random.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(size) % 10
    path = directory / "random.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"


def main() -> None:
    """Measure all presets in turns and print the table."""
    if sys.argv[1:2] == ["--child"]:
        return run_child(*sys.argv[2:])
    from cnn.config import list_fields

    kernels = list_fields()["cpu_kernels"].metadata["choices"]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=flags.positive, default=3)
    parser.add_argument("--images", type=flags.positive, default=5000)
    parser.add_argument("--cpu_kernels", default="auto", choices=kernels)
    parser.add_argument("--json", type=flags.new_file)
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        random = make_dataset(Path(directory), options.images)
        for number in range(options.rounds):
            found.setdefault("python main.py --help", []).append(measure_help())
            for preset in PRESETS:
                dataset = "" if preset == "digits" else random
                cache = f"{directory}/{preset}{number}"
                for kind in ("cold", "warm"):
                    child = preset, cache, dataset, options.cpu_kernels
                    flags.report(f"round {number + 1}: {preset}, {kind}")
                    for phase, seconds in measure(*child).items():
                        name = f"{preset}, {kind}: {phase}"
                        found.setdefault(name, []).append(seconds)
    print("| what | seconds, median | range |\n|---|---|---|")
    for name, seconds in found.items():
        middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
        print(f"| {name} | {middle:.2f} | {low:.2f}–{high:.2f} |")
    flags.write_json(options.json, found)
    return None


if __name__ == "__main__":
    flags.run(main)
