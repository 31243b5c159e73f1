"""Images per second of a training epoch by number of devices, weak and strong.

    python benchmarks/scaling.py [--devices=1,2,4,8] [--model=resnet20] [--json=FILE]

Weak: every device has --batch_size images a step, so that more devices see more images.
Strong: all devices together have --batch_size images a step. The numbers of devices
take turns, a round of --steps each, after a warm-up round; efficiency is images/s over
that of one device in the same round, divided by the number of devices. --split shards
parameters and optimizer state too (axis `model` of 2; needs even numbers of devices).
On CPU the devices are virtual and share the cores: what is seen there is what dividing
the work costs, not what more hardware brings. Prints a Markdown table.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from cnn import config, devices, epoch, models, steps  # noqa: E402
from cnn.state import create_state  # noqa: E402

KINDS = ("weak", "strong")


def make_round(options: argparse.Namespace, axes: str, batch_size: int) -> Callable:
    """Make a function that trains one round on a mesh; returns images per second."""
    mesh = devices.make_mesh(axes)
    devices.check_batch_size(batch_size, mesh)
    changes = {"model": options.model, "batch_size": batch_size}
    run = config.make_config(changes | {"precision": options.precision})
    static, shape = run.make_static(), (options.size, options.size, 3)
    task = steps.Task(
        model=models.create_model(static.model, 10, devices.get_dtype(run.device)),
        num_classes=10,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        steps_per_epoch=options.steps,
        optimizer=static.optimizer,
    )
    numbers = run.make_hyperparameters()

    def create(numbers: dict) -> object:
        state = create_state(task.model, shape, task.optimizer, numbers)
        return devices.place_state(mesh, state)

    generator = np.random.default_rng(0)
    size = (options.steps, batch_size)
    chunk = {
        "images": generator.integers(0, 256, (*size, *shape), np.uint8),
        "labels": generator.integers(0, 10, size).astype(np.int32),
        "ids": np.arange(size[0] * size[1], dtype=np.int32).reshape(size),
    }
    chunk = devices.put(devices.split_batches(mesh, batch_size), chunk)
    program = epoch.make_train_chunk(task, mesh)
    sums = devices.put(devices.replicated(mesh), steps.create_train_sums())
    kept = [jax.jit(create)(numbers), sums]

    def run_round() -> float:
        started = time.perf_counter()
        bounds = np.int32(0), np.int32(options.steps)
        kept[0], kept[1], records = program(*kept, chunk, numbers, *bounds)
        np.asarray(records["loss"])
        return options.steps * batch_size / (time.perf_counter() - started)

    return run_round


def measure(options: argparse.Namespace, kind: str, counts: list[int]) -> list[dict]:
    """Measure one kind of scaling, printing a row of the table for each count."""
    rounds = {}
    for count in counts:
        axes = f"data:{count // 2},model:2" if options.split else f"data:{count}"
        batch_size = options.batch_size * (count if kind == "weak" else 1)
        rounds[count] = axes, batch_size, make_round(options, axes, batch_size)
    speeds: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(options.rounds + 1):
        for count, (_, _, run_round) in rounds.items():
            found = run_round()
            if number:  # the first round compiles
                speeds[count].append(found)
    first, rows = counts[0], []
    for count, values in speeds.items():
        axes, batch_size, _ = rounds[count]
        pairs = zip(values, speeds[first], strict=True)
        ratios = [value / base * first / count for value, base in pairs]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(
            f"| {kind} | {axes} | {batch_size} | {statistics.median(values):,.0f} | "
            f"{middle:.2f} ({low:.2f}–{high:.2f}) |",
            flush=True,
        )
        rows.append(
            {
                "kind": kind,
                "mesh": axes,
                "batch_size": batch_size,
                "images_per_second": values,
                "efficiency": ratios,
            }
        )
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", default="1,2,4,8", help="numbers of devices")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--split", action="store_true")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    counts = [int(count) for count in options.devices.split(",")]
    devices.configure(
        devices.DeviceOptions(cpu_devices=max(counts), compilation_cache="off")
    )
    about = f"{devices.describe_device()}, jax {jax.__version__}, n = {options.rounds}"
    print(f"{about}, {options.model} {options.size}x{options.size}")
    print("| kind | mesh | batch | images/s, median | efficiency, median (range) |")
    print("|---|---|---|---|---|")
    rows = [row for kind in KINDS for row in measure(options, kind, counts)]
    if options.json:
        found = {"about": about, "options": vars(options), "rows": rows}
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
