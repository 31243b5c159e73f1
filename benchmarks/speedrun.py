"""How accurate and how fast is the speedrun? Many seeds as one program.

    python benchmarks/speedrun.py                       # small, on digits: no network
    python benchmarks/speedrun.py --dataset=tfds:cifar10_jpeg --data_dir=DIR   # small
    python benchmarks/speedrun.py --full --seeds=50 --data_dir=DIR --precision=bfloat16

Any flag of main.py may follow, `--config=NAME` for another preset. Prints the mean
test accuracy over the seeds with its 95 % interval (Student's t), and the seconds a
run: from drawing weights through the last step and the test, divided by the runs.
Compilation is left out, as airbench leaves it out; so is whitening, which all share.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402

from cnn import config as config_module  # noqa: E402
from cnn import devices, options  # noqa: E402
from cnn.interrupt import Stop  # noqa: E402
from cnn.progress import Terminal  # noqa: E402
from cnn.run import Run  # noqa: E402
from cnn.sweep.loop import Loop  # noqa: E402
from cnn.sweep.stacked import STACKED, Stacked, check_stackable  # noqa: E402
from cnn.sweep.statistics import compute_interval  # noqa: E402

SMALL = {"airbench_width": 8, "batch_size": 128, "epochs": 4, "learning_rate": 8.0}
DIGITS = {"dataset": "digits", "image_size": 16, "mean": (), "std": ()}
CIFAR = {"train_examples": 2048, "test_split": "test[:1000]"}


def read_flags(texts: list[str]) -> dict[str, Any]:
    """Read flags of main.py, as `--name=value`."""
    fields, found = config_module.list_fields(), {}
    for text in texts:
        name, equals, value = text.removeprefix("--").partition("=")
        if name not in fields or not equals:
            raise SystemExit(f"{text}: write --name=value, a flag of main.py --help")
        found[name] = options.parse(fields[name], value)
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
    with tempfile.TemporaryDirectory() as directory:
        run = Run(config, Path(directory), Terminal(), Stop())
    check_stackable(name, run)
    executor = Loop(run, seeds) if name == "loop" else Stacked(run, name, seeds)
    configs = [config.change({"seed": seed}) for seed in range(seeds)]
    active = [True] * seeds

    def race(epochs: int, most: int | None) -> tuple[list[dict], float]:
        started = time.perf_counter()
        states = jax.block_until_ready(executor.create(configs))
        for epoch in range(epochs):
            states, _ = executor.train_epoch(states, configs, epoch, active, most)
        found = executor.evaluate(states, "test", active)
        return found, time.perf_counter() - started

    compilation = race(1, 1)[1]
    found, seconds = race(config.train.epochs, None)
    accuracies = [one["accuracy"] for one in found]
    return {
        "accuracies": accuracies,
        "seconds_per_run": seconds / seeds,
        "warmup_seconds": compilation,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="cifar10_speedrun")
    parser.add_argument("--full", action="store_true", help="as the preset has it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--executor", default="map", choices=["loop", *STACKED])
    parser.add_argument("--json", type=Path, help="file to write")
    arguments, rest = parser.parse_known_args()
    if arguments.seeds < 1:
        raise SystemExit(f"--seeds={arguments.seeds}: at least 1")
    config = make_config(arguments, read_flags(rest))
    devices.configure(config.device)
    result = measure(config, arguments.seeds, arguments.executor)
    mean, spread, low, high = compute_interval(result["accuracies"])
    result |= {
        "mean_accuracy": mean,
        "sd": spread,
        "interval": [low, high],
        "config": config.to_flat(),
        "executor": arguments.executor,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    half = "" if low is None else f" ± {mean - low:.2%} (95 %)"
    seconds, warmup = result["seconds_per_run"], result["warmup_seconds"]
    print(f"accuracy {mean:.2%}{half}, n = {arguments.seeds}, {seconds:.2f} s a run")
    print(
        f"on {result['device']}, jax {result['jax']}, --executor={arguments.executor}; "
        f"warm-up and compilation apart, {warmup:.0f} s"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
