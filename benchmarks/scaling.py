"""Images per second of a training epoch by number of devices, weak and strong.

    python benchmarks/scaling.py [--devices=1,2,4,8] [--model=resnet20] [--json=FILE]

Weak: every device has --batch_size images a step, so that more devices see more images.
Strong: all devices together have --batch_size images a step. The numbers of devices
take turns, a round of --steps each, after a warm-up round; efficiency is images/s over
that of the first number of devices in the same round, by devices. --split shards
parameters and optimizer state too (axis `model` of 2; needs even numbers of devices).
The last column is multiply-accumulates (three times those of the forward pass) over
those of a matrix product on as many devices, measured just before. On CPU the devices
are virtual and share the cores, hence also the peak: what is seen there is what
dividing the work costs, not what more hardware brings. Prints a Markdown table.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import flags
import jax
import limits
import numpy as np

from cnn import config, models
from cnn.models import summary
from cnn.runtime import devices, xla
from cnn.runtime.options import DeviceOptions
from cnn.training import epoch, steps
from cnn.training.setup import make_create, make_structure_of_model

KINDS = ("weak", "strong")


def make_round(options: argparse.Namespace, axes: str, batch_size: int) -> Callable:
    """Make a function that trains one round on a mesh; returns images per second."""
    mesh = devices.make_mesh(axes)
    devices.check_batch_size(batch_size, mesh)
    changes = {"model": options.model, "batch_size": batch_size}
    run = config.make_config(changes | {"precision": options.precision})
    shape = (options.size, options.size, 3)
    structure = dataclasses.replace(
        make_structure_of_model(run, 10), steps_per_epoch=options.steps
    )
    create = make_create(structure.model, shape, structure.rule, mesh)
    everywhere = devices.replicated(mesh)
    inputs = run.make_numbers(), epoch.make_bounds(0, options.steps)
    numbers, bounds = devices.put(everywhere, inputs)
    generator = np.random.default_rng(0)
    size = (options.steps, batch_size)
    chunk = {
        "images": generator.integers(0, 256, (*size, *shape), np.uint8),
        "labels": generator.integers(0, 10, size).astype(np.int32),
        "ids": np.arange(size[0] * size[1], dtype=np.int32).reshape(size),
    }
    chunk = devices.put(devices.split_batches(mesh, batch_size), chunk)
    program = epoch.make_train_chunk(structure, mesh)
    sums = devices.put(everywhere, steps.create_train_sums())
    kept = [create(numbers, {}), sums]

    def run_round() -> float:
        started = time.perf_counter()
        kept[0], kept[1], step_metrics = program(*kept, chunk, numbers, bounds)
        np.asarray(step_metrics["loss"])
        return options.steps * batch_size / (time.perf_counter() - started)

    return run_round


def measure_share(options: argparse.Namespace) -> float:
    """Return the share of one device's peak that an image a second is."""
    run = config.make_config({"model": options.model})
    model = models.create_model(run.model, 10)
    macs = 3 * summary.describe_model(model, (options.size, options.size, 3))["macs"]
    return macs / limits.measure_peak(options.precision)


def measure(options: argparse.Namespace, kind: str, share: float) -> list[dict]:
    """Measure one kind of scaling, printing a row of the table for each count."""
    rounds, counts = {}, options.devices
    for count in counts:
        flags.report(f"{kind}, {count} devices: making the state")
        axes = f"data:{count // 2},model:2" if options.split else f"data:{count}"
        batch_size = options.batch_size * (count if kind == "weak" else 1)
        rounds[count] = axes, batch_size, make_round(options, axes, batch_size)
    speeds: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(options.rounds + 1):
        for count, (_, _, run_round) in rounds.items():
            flags.report(f"{kind}, round {number} of {options.rounds}, {count} devices")
            found = run_round()
            if number:  # the first round compiles
                speeds[count].append(found)
    first, rows = counts[0], []
    for count, values in speeds.items():
        axes, batch_size, _ = rounds[count]
        pairs = zip(values, speeds[first], strict=True)
        ratios = [value / base * first / count for value, base in pairs]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        # Virtual devices of a CPU are not more hardware.
        hardware = 1 if jax.default_backend() == "cpu" else count
        median = statistics.median(values)
        of_peak = share * median / hardware
        print(
            f"| {kind} | {axes} | {batch_size} | {median:,.0f} | "
            f"{middle:.2f} ({low:.2f}–{high:.2f}) | {of_peak:.1%} |",
            flush=True,
        )
        rows.append(
            {
                "kind": kind,
                "mesh": axes,
                "batch_size": batch_size,
                "images_per_second": values,
                "efficiency": ratios,
                "of_the_peak": of_peak,
            }
        )
    return rows


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add, positive = parser.add_argument, flags.positive
    counts = flags.positives
    add("--devices", default="1,2,4,8", type=counts, help="numbers of devices")
    add("--model", default="resnet20")
    add("--size", type=positive, default=32, help="pixels a side")
    add("--batch_size", type=positive, default=64)
    add("--steps", type=positive, default=4, help="steps a round")
    add("--rounds", type=positive, default=5)
    add("--precision", default="float32", choices=("float32", "bfloat16"))
    add("--split", action="store_true", help="parameters over two devices as well")
    add("--json", type=flags.new_file)
    options = parser.parse_args()
    odd = [count for count in options.devices if count % 2]
    if options.split and odd:
        parser.error(f"--split needs even --devices, as 2,4,8; there is {odd[0]}")
    return options


def main() -> None:
    """Measure and print the table."""
    options = parse()
    models.get_published_input(options.model)  # refuses an unknown one
    most = max(options.devices)
    xla.configure(DeviceOptions(cpu_devices=most, compilation_cache="off"))
    for count in options.devices:
        devices.check_batch_size(options.batch_size, devices.make_mesh(f"data:{count}"))
    about = f"{devices.describe_device()}, jax {jax.__version__}, n = {options.rounds}"
    print(f"{about}, {options.model} {options.size}x{options.size}")
    share = measure_share(options)
    print("| kind | mesh | batch | images/s | efficiency (range) | of the peak |")
    print("|---|---|---|---|---|---|", flush=True)
    rows = [row for kind in KINDS for row in measure(options, kind, share)]
    given = {name: value for name, value in vars(options).items() if name != "json"}
    flags.write_json(options.json, {"about": about, "options": given, "rows": rows})


if __name__ == "__main__":
    flags.run(main)
