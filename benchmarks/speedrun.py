"""How accurate and how fast is the speedrun? Many seeds as one program.

    python benchmarks/speedrun.py                       # small, on digits: no network
    python benchmarks/speedrun.py --dataset=tfds:cifar10_jpeg --data_dir=DIR   # small
    python benchmarks/speedrun.py --full --seeds=50 --data_dir=DIR --precision=bfloat16

Any flag of main.py may follow, `--config=NAME` for another preset. Prints the mean
test accuracy over the seeds with its 95 % interval (Student's t), and the seconds a
run: from drawing weights through the last step and the test, divided by the runs.
Compilation is left out, as airbench leaves it out; so is whitening, which all share.
The share of the peak counts the training steps' multiply-accumulates (three times
those of the forward pass) in these seconds, over those of a matrix product.
"""

import argparse
import time
from typing import Any

import flags
import jax
import limits

from cnn import config as config_module
from cnn import option, train
from cnn.errors import UserError
from cnn.runtime import devices, xla
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep.choose import make_executor
from cnn.sweep.executors import STACKED, check_stackable
from cnn.sweep.table import compute_interval

SMALL = {"airbench_width": 8, "batch_size": 128, "epochs": 4, "learning_rate": 8.0}
DIGITS = {"dataset": "digits", "image_size": 16, "mean": (), "std": ()}
CIFAR = {"train_examples": 2048, "test_split": "test[:1000]"}


def read_flags(texts: list[str]) -> dict[str, Any]:
    """Read flags of main.py, as `--name=value`."""
    fields, found = config_module.list_fields(), {}
    for text in texts:
        name, equals, value = text.removeprefix("--").partition("=")
        if name not in fields or not equals:
            raise UserError(f"{text}: write --name=value, a flag of main.py --help")
        found[name] = option.parse(fields[name], value)
    return found


def make_config(arguments: argparse.Namespace, given: dict[str, Any]) -> Any:
    """Compose the preset, the small size and what was given."""
    layers = [config_module.load_preset(arguments.config)]
    if not arguments.full:
        on_cifar = given.get("dataset", "").startswith("tfds:")
        layers += [SMALL, CIFAR if on_cifar else DIGITS]
    return config_module.make_config(*layers, given)


def measure(config: Any, seeds: int, name: str) -> dict[str, Any]:
    """Train all seeds after a warm-up that compiles; returns accuracies and seconds."""
    stop = Stop()
    setup = train.make_setup(config, {}, Terminal(), stop)
    check_stackable(name, setup)
    executor = make_executor(name, setup, stop, seeds)
    configs = [config.change({"seed": seed}) for seed in range(seeds)]
    active = [True] * seeds

    def race(epochs: int, most: int | None) -> tuple[list[dict], float]:
        started = time.perf_counter()
        states = jax.block_until_ready(executor.create(configs))
        for epoch in range(epochs):
            flags.report(f"epoch {epoch + 1} of {epochs}, {seeds} seeds")
            states, _ = executor.train_epoch(states, configs, epoch, active, most)
        found = executor.evaluate(states, "test", active)
        return found, time.perf_counter() - started

    flags.report("warm-up and compilation")
    compilation = race(1, 1)[1]
    found, seconds = race(config.train.epochs, None)
    accuracies = [one["accuracy"] for one in found]
    images = setup.total_steps * config.step.batch_size
    macs = 3 * setup.description["macs"] * images * seeds
    peak = limits.measure_peak(config.device.precision)
    return {
        "accuracies": accuracies,
        "images_per_second": images * seeds / seconds,
        "of_the_peak": macs / seconds / peak,
        "seconds_per_run": seconds / seeds,
        "warmup_seconds": compilation,
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what was measured, and whether at full size."""
    seeds, mean = len(result["accuracies"]), result["mean_accuracy"]
    low, seconds = result["interval"][0], result["seconds_per_run"]
    half = "" if low is None else f" ± {mean - low:.2%} (95 %)"
    size = "full" if result["is_full"] else "small: not the record's recipe"
    print(
        f"{result['device']}, jax {result['jax']}, --executor={result['executor']}; "
        f"warm-up and compilation apart, {result['warmup_seconds']:.0f} s"
    )
    print("| size | accuracy | n | s a run | images/s | of the peak |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {size} | {mean:.2%}{half} | {seeds} | {seconds:.2f} | "
        f"{result['images_per_second']:,.0f} | {result['of_the_peak']:.1%} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="cifar10_speedrun")
    parser.add_argument("--full", action="store_true", help="as the preset has it")
    parser.add_argument("--seeds", type=flags.positive, default=3)
    parser.add_argument("--executor", default="map", choices=["loop", *STACKED])
    parser.add_argument("--json", type=flags.new_file, help="file to write")
    arguments, rest = parser.parse_known_args()
    config = make_config(arguments, read_flags(rest))
    xla.configure(config.device)
    result = measure(config, arguments.seeds, arguments.executor)
    mean, spread, low, high = compute_interval(result["accuracies"])
    result |= {
        "mean_accuracy": mean,
        "sd": spread,
        "interval": [low, high],
        "is_full": arguments.full,
        "config": config.to_flat(),
        "executor": arguments.executor,
        "device": devices.describe_device(),
        "jax": jax.__version__,
    }
    print_table(result)
    flags.write_json(arguments.json, result)


if __name__ == "__main__":
    flags.run(main)
