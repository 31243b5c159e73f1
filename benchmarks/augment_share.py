"""What share of a resnet20 training step augmentation takes, batch 128 at 32x32.

    python benchmarks/augment_share.py [--rounds=9]

For each recipe of augment.py at this size: the median over rounds of a training step
with it over one without it, taken in turns; and, finer than that noise, the seconds
that augmentation takes alone over those of the step.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import augment  # noqa: E402

from cnn.config import make_config
from cnn.runtime import devices, xla
from cnn.runtime.options import DeviceOptions
from cnn.training import epoch, steps
from cnn.training.setup import make_structure_of_model
from cnn.training.state import create_state

BATCH, STEPS = 128, 3
RECIPES = {"none": {}} | {
    n: augment.CASES[n] for n in ("cifar_standard", "cifar_strong")
}


def make_data():
    """Make uint8 images [STEPS, B, 32, 32, 3] and labels; values do not matter."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (STEPS, BATCH, 32, 32, 3), dtype=np.uint8)
    return images, random.integers(0, 10, (STEPS, BATCH), dtype=np.int32)


def make_round(recipe):
    """Make a function that takes some training steps and returns seconds a step."""
    config = make_config({"model": "resnet20", "momentum": 0.9}, recipe)
    structure, numbers = make_structure_of_model(config, 10), config.make_numbers()
    state = create_state(structure.model, (32, 32, 3), structure.rule, numbers)
    ids = np.arange(STEPS * BATCH, dtype=np.int32).reshape(STEPS, BATCH)
    images, labels = make_data()
    chunk = jax.device_put({"images": images, "labels": labels, "ids": ids})
    program = epoch.make_train_chunk(structure)
    kept = [state, steps.create_train_sums()]

    def run():
        started = time.perf_counter()
        bounds = epoch.make_bounds(0, STEPS)
        kept[0], kept[1], step_metrics = program(*kept, chunk, numbers, bounds)
        np.asarray(step_metrics["loss"])
        return (time.perf_counter() - started) / STEPS

    return run


def main():
    """Measure and print a line a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    xla.configure(DeviceOptions(compilation_cache="off"))
    print(f"{devices.describe_device()}, jax {jax.__version__}, n = {rounds}")
    runs = {name: make_round(recipe) for name, recipe in RECIPES.items()}
    seconds = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            taken = run()
            if number:  # the first round compiles
                seconds[name].append(taken)
    step = statistics.median(seconds["none"])
    print(f"step without: {1000 * step:.1f} ms ({BATCH / step:,.0f} images/s)")
    images, labels = (x[0] for x in make_data())
    for name in ("cifar_standard", "cifar_strong"):
        pairs = zip(seconds[name], seconds["none"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        run = augment.make_own(name, np.stack([images] * augment.STEPS), labels)
        run()
        alone = min(augment.measure(run) for _ in range(5))
        print(f"{name}: step {ratio:.3f} times, alone {alone / step:.2%} of it")


if __name__ == "__main__":
    main()
