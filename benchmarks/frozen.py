"""Images a second: forward alone, with a frozen trunk, from cached features, in full.

    python benchmarks/frozen.py [--model=resnet20] [--images=1280] [--rounds=5]

All four go through one set of random CIFAR-sized images in batches of 128, as training
does: forward is the evaluation of every image, the others are epochs of training.
Rounds alternate, each takes every contender once; the best of the rounds is printed,
with the ratios to forward and to training in full.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from cnn import config as config_module
from cnn.data.images import Dataset, from_array
from cnn.models import summary
from cnn.models.variables import flatten_paths
from cnn.optim import freezing, paths
from cnn.optim.options import FreezingOptions
from cnn.runtime import devices
from cnn.training import epoch, metrics, steps
from cnn.training.setup import make_structure
from cnn.training.state import TrainState, create_state, get_weights
from cnn.transfer import features

BATCH = 128


def make_images(count: int) -> Dataset:
    """Make random images of 10 classes."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    images = from_array(pixels, random.integers(0, 10, count))
    return Dataset("random", tuple("0123456789"), images, None, images)


def make_phase(state: TrainState, description: dict[str, Any]) -> freezing.Phase:
    """Make the phase in which the head alone trains."""
    params = list(flatten_paths(state.params))
    layers = paths.order_layers([x["path"] for x in description["layers"]], params)
    options = FreezingOptions(train_only=("head",))
    return freezing.make_phases(options, layers, get_weights(state), epochs=1)[0]


def make_training(
    structure: steps.Structure, state: TrainState, chunk: dict[str, Any], numbers: Any
) -> Callable[[], None]:
    """Return a function that trains on all batches of a chunk."""
    program = epoch.make_train_chunk(structure)
    # Laid out as the results are, so that the second call is the first one's program.
    everywhere = devices.replicated(devices.make_mesh())
    held = [jax.device_put(jax.tree.map(jax.numpy.copy, state), everywhere)]
    bounds = epoch.make_bounds(0, chunk["labels"].shape[0])

    def train() -> None:
        sums = jax.device_put(steps.create_train_sums(), everywhere)
        held[0], sums, _ = program(held[0], sums, chunk, numbers, bounds)
        jax.block_until_ready(sums)

    return train


def make_contenders(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Make the four functions, each of which goes once through all images."""
    config = config_module.make_config(
        {"model": options.model, "batch_size": BATCH, "weight_decay": 5e-4}
    )
    dataset = make_images(options.images)
    structure, numbers = make_structure(config, dataset), config.make_numbers()
    shape, count = (32, 32, 3), options.images // BATCH
    # Numbers are arguments: as constants they would be folded for minutes.
    create = jax.jit(
        lambda rule, numbers: create_state(structure.model, shape, rule, numbers),
        static_argnums=0,
    )
    state = create(structure.rule, numbers)
    phase = make_phase(state, summary.describe_model(structure.model, shape))
    rule = dataclasses.replace(structure.rule, phase=phase)
    head_state = create(rule, numbers)
    positions = np.arange(count * BATCH, dtype=np.int32).reshape(count, BATCH)
    images = dataset.train.read(positions.ravel()).reshape(count, BATCH, *shape)
    labels = dataset.train.labels[positions]
    chunk = {"images": images, "labels": labels, "ids": positions}
    mesh, bounds = devices.make_mesh(), epoch.make_bounds(0, count)
    chunk = jax.device_put(chunk, devices.split_batches(mesh))
    frozen, variables = dataclasses.replace(structure, rule=rule), get_weights(state)
    see = features.make_feature_chunk(frozen, mesh, is_varied=False)
    cut, _ = features.choose_cache(config, frozen, dataset.train, shape)
    cached = dataclasses.replace(frozen, model=cut.head, takes_features=True)
    seen = chunk | {"images": see(variables, (numbers, np.int32(0)), chunk, bounds)}
    evaluate, mask = epoch.make_eval_chunk(structure), np.ones_like(labels, bool)

    def forward() -> None:
        sums, eval_chunk = metrics.create_sums(10), chunk | {"mask": mask}
        jax.block_until_ready(evaluate(variables, sums, eval_chunk, bounds))

    return {
        "forward alone": forward,
        "head alone trains": make_training(frozen, head_state, chunk, numbers),
        "head alone, cached": make_training(cached, head_state, seen, numbers),
        "everything trains": make_training(structure, state, chunk, numbers),
    }


def main() -> None:
    """Measure all contenders in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=10 * BATCH)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    contenders = make_contenders(options)
    best = dict.fromkeys(contenders, 0.0)
    for number in range(options.rounds + 1):
        for name, function in contenders.items():
            started = time.perf_counter()
            function()
            rate = options.images / (time.perf_counter() - started)
            if number:  # the first round compiles
                best[name] = max(best[name], rate)
    print("| what | images/s | over forward | over everything |\n|---|---|---|---|")
    for name, rate in best.items():
        over = [rate / best[x] for x in ("forward alone", "everything trains")]
        print(f"| {name} | {rate:,.0f} | {over[0]:.2f} | {over[1]:.2f} |")


if __name__ == "__main__":
    main()
