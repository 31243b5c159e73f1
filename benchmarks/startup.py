"""Seconds from the command to the first steps: imports, data, compilation, cache.

    python benchmarks/startup.py [--rounds=3] [--images=5000] [--cpu_kernels=xla]

Each round starts a process with an empty compilation cache (cold) and another with the
cache that the first has left (warm), for the preset digits and for cifar10_resnet20 on
random images; and `python main.py` as a whole. The medians of the rounds are printed.
"""

import argparse
import json
import resource
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
    """Go through the phases of a run in this process and print their seconds.

    What is compiled beside the state and the evaluation is the first step's wait.
    """
    seconds, started = {}, time.perf_counter()

    def note(phase: str) -> None:
        nonlocal started
        seconds[phase] = time.perf_counter() - started
        started = time.perf_counter()

    import jax

    import main  # noqa: F401
    from cnn import config as config_module
    from cnn import train
    from cnn.runtime import devices, xla
    from cnn.runtime.interrupt import Stop
    from cnn.runtime.profiling import Profiler
    from cnn.runtime.terminal import Terminal
    from cnn.training import canary, memory, progress
    from cnn.training.epoch import Pace

    note("import")
    imported, used = time.perf_counter(), time.process_time()
    changes = {"dataset": dataset} if dataset else {}
    changes |= {"compilation_cache": cache, "cpu_kernels": kernels}
    config = config_module.make_config(config_module.load_preset(preset), changes)
    xla.configure(config.device)
    devices.open_backend()
    canary.check(config.device)
    note("canary")
    stop = Stop()
    setup = train.make_setup(config, {}, Terminal(), stop)
    note("data")
    compiling = progress.compile_ahead(setup, 0)
    begun = progress.begin(setup)
    begun.compiling = compiling
    jax.block_until_ready(begun.state)
    note("state")
    progress.evaluate(setup, begun, setup.eval_split, stop)
    note("evaluation")
    check_fits = memory.check_fits

    def check_timed(*arguments: Any) -> None:
        note("wait for the program")
        check_fits(*arguments)

    memory.check_fits = check_timed
    profiler = Profiler(config.profile, setup.total_steps)
    next(progress.take_epoch(setup, begun, stop, Pace(), profiler, setup.total_steps))
    note("first step")
    seconds["from imports to the first step"] = time.perf_counter() - imported
    seconds["the same, CPU"] = time.process_time() - used
    print(json.dumps(seconds))


def measure(*arguments: str) -> dict[str, float]:
    """Return the seconds of the phases of a new process."""
    command = [sys.executable, __file__, "--child", *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(output.stdout.splitlines()[-1])


def measure_main(*arguments: str) -> dict[str, float]:
    """Return the seconds of `python main.py`, and those of its CPU."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(flags.ROOT / "main.py"), *arguments]
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"whole command": time.perf_counter() - started, "the same, CPU": used}


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

    def note(what: str, measured: dict[str, float]) -> None:
        for phase, seconds in measured.items():
            found.setdefault(f"{what}: {phase}", []).append(seconds)

    with tempfile.TemporaryDirectory() as directory:
        random = make_dataset(Path(directory), options.images)
        for number in range(options.rounds):
            note("python main.py --help", measure_main("--help"))
            for preset in PRESETS:
                dataset = "" if preset == "digits" else random
                cache = f"{directory}/{preset}{number}"
                for kind in ("cold", "warm"):
                    child = preset, cache, dataset, options.cpu_kernels
                    flags.report(f"round {number + 1}: {preset}, {kind}")
                    note(f"{preset}, {kind}", measure(*child))
            cache = f"--compilation_cache={directory}/main{number}"
            for kind in ("cold", "warm"):
                flags.report(f"round {number + 1}: python main.py, {kind}")
                workdir = f"--workdir={directory}/{kind}{number}"
                note(f"python main.py, {kind}", measure_main(workdir, cache))
    print("| what | seconds, median | range |\n|---|---|---|")
    for name, seconds in found.items():
        middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
        print(f"| {name} | {middle:.2f} | {low:.2f}–{high:.2f} |")
    flags.write_json(options.json, found)
    return None


if __name__ == "__main__":
    flags.run(main)
