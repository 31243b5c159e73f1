"""Several models of one structure evaluated: apart, mapped or vmapped over weights.

`python benchmarks/ensemble.py --model=resnet20 --members=4` prints the CPU seconds
(user and system) of each way: medians of rounds, the ways in turn, nothing compiled.
"""

import argparse
import functools
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from cnn.models import create_model
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables
from cnn.training import epoch
from cnn.training.steps import Structure

CLASSES = 10


def read_cpu() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make_ways(given: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Make the ways to evaluate all members on one chunk of random images."""
    size, channels = given.size, given.channels
    shape = (size, size, channels)
    model = create_model(ModelOptions(model=given.model), CLASSES, jnp.float32)
    structure = Structure(model, CLASSES, (0.5,) * channels, (0.25,) * channels)
    create = jax.jit(lambda seed: create_variables(model, seed, shape))
    members = [create(seed) for seed in range(given.members)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *members)
    batches = (given.batches, given.batch_size)
    pixels = np.random.default_rng(0).integers(0, 256, (*batches, *shape), np.uint8)
    labels, mask = np.zeros(batches, np.int32), np.ones(batches, bool)
    chunk = jax.device_put({"images": pixels, "labels": labels, "mask": mask})
    none = structure.task.create_sums(CLASSES)
    every = jax.tree.map(lambda x: np.stack([x] * given.members), none)
    bounds = epoch.make_bounds(0, given.batches)
    one = functools.partial(epoch.example_chunk, structure, None, epoch.take_batch)
    alone = jax.jit(one)

    def compute(own: tuple) -> tuple:
        return one(*own, chunk, bounds)

    mapped = jax.jit(lambda *own: jax.lax.map(compute, own))
    vmapped = jax.jit(lambda *own: jax.vmap(lambda *x: compute(x))(*own))
    return {
        "apart": lambda: [alone(one, none, chunk, bounds) for one in members],
        "map": lambda: mapped(stacked, every),
        "vmap": lambda: vmapped(stacked, every),
    }


def main() -> None:
    """Time the ways in turn and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="simple_cnn")
    parser.add_argument("--size", type=int, default=8, help="pixels of a side")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    ways = make_ways(given)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        jax.block_until_ready(way())
    for _ in range(given.rounds):
        for name, way in ways.items():
            started = read_cpu()
            jax.block_until_ready(way())
            seconds[name].append(read_cpu() - started)
    apart = statistics.median(seconds["apart"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:6} {median:.3f} s of CPU, {median / apart:.2f} of apart")


if __name__ == "__main__":
    main()
