"""Images per second of our epoch, of a plain flax loop and of PyTorch, side by side.

    python benchmarks/train_epoch.py [--torch_python=PATH] [--case=cifar|digits|all]

The same simple_cnn, batch, optimizer and cores for all, in one run: the contenders
take turns, a round each, after a warm-up round; the ratio of a round compares
neighbours in time. Prints a Markdown table and, with --json=FILE, writes the rounds.
--torch_python names a Python that has PyTorch; without it that column is absent.
"""

import argparse
import json
import statistics
import subprocess
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

# Image size, channels, batch size, steps a round.
CASES = {"cifar": (32, 3, 128, 16), "digits": (8, 1, 32, 120)}
WIDTHS = (32, 64, 128)


def make_ours(case: tuple[int, int, int, int]) -> Callable[[], float]:
    """Make a function that runs one round of our epoch; returns seconds."""
    size, channels, batch_size, count = case
    run = config.make_config({"batch_size": batch_size, "weight_decay": 5e-4})
    static = run.make_static()
    task = steps.Task(
        model=models.create_model(static.model, 10),
        num_classes=10,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        steps_per_epoch=count,
        optimizer=static.optimizer,
    )
    numbers = run.make_hyperparameters()
    shape = (size, size, channels)
    state = create_state(task.model, shape, task.optimizer, numbers)
    images, labels = make_data(case)
    chunk = {
        "images": jax.device_put(images),
        "labels": jax.device_put(labels),
        "ids": jax.device_put(np.arange(labels.size).reshape(labels.shape)),
    }
    program = epoch.make_train_chunk(task)
    kept = [state, steps.create_train_sums()]

    def run_round() -> float:
        started = time.perf_counter()
        kept[0], kept[1], records = program(
            kept[0], kept[1], chunk, numbers, np.int32(0), np.int32(count)
        )
        np.asarray(records["loss"])
        return time.perf_counter() - started

    return run_round


def make_flax(case: tuple[int, int, int, int]) -> Callable[[], float]:
    """Make a function that runs one round of a plain flax loop; returns seconds."""
    import flax.linen as nn
    import jax.numpy as jnp
    import optax

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            for width in WIDTHS:
                x = nn.Conv(width, (3, 3), use_bias=False)(x)
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
                x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
            return nn.Dense(10)(jnp.mean(x, (1, 2)))

    size, channels, batch_size, count = case
    model, images, labels = Plain(), *make_data(case)
    chain = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9, nesterov=True)
    )
    variables = model.init(
        jax.random.key(0), jnp.zeros((1, size, size, channels)), train=False
    )

    @jax.jit
    def step(params, batch_stats, opt_state, images, labels):
        def loss_of(params):
            logits, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                (images.astype(jnp.float32) / 255 - 0.5) / 0.25,
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), updated["batch_stats"]

        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = chain.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state, loss

    kept = [
        variables["params"],
        variables["batch_stats"],
        chain.init(variables["params"]),
    ]

    def run_round() -> float:
        started = time.perf_counter()
        for i in range(count):
            *kept[:], loss = step(*kept, images[i], labels[i])
        loss.block_until_ready()
        return time.perf_counter() - started

    return run_round


def make_torch(
    python: str, case: tuple[int, int, int, int], layout: str
) -> Callable[[], float]:
    """Make a function that asks a PyTorch process for one round; returns seconds."""
    script = str(Path(__file__).with_name("torch_epoch.py"))
    arguments = [str(number) for number in (*case, *WIDTHS)]
    worker = subprocess.Popen(
        [python, script, layout, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run_round() -> float:
        worker.stdin.write("round\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    return run_round


def make_data(case: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Make uint8 images [steps, B, H, W, C] and labels; values do not matter here."""
    size, channels, batch_size, count = case
    generator = np.random.default_rng(0)
    shape = (count, batch_size, size, size, channels)
    images = generator.integers(0, 256, shape, np.uint8)
    return images, generator.integers(0, 10, (count, batch_size)).astype(np.int32)


def compare(name: str, rounds: int, python: str) -> dict:
    """Run all contenders of one case in turns."""
    case = CASES[name]
    contenders = {"ours": make_ours(case), "flax loop": make_flax(case)}
    if python:
        contenders["PyTorch"] = make_torch(python, case, "default")
        contenders["PyTorch channels_last"] = make_torch(python, case, "channels_last")
    images = case[2] * case[3]
    speeds: dict[str, list[float]] = {contender: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender, run_round in contenders.items():
            seconds = run_round()
            if number:  # the first round warms up
                speeds[contender].append(images / seconds)
    ours = speeds["ours"]
    rows = {}
    for contender, values in speeds.items():
        ratios = [a / b for a, b in zip(ours, values, strict=True)]
        low, high = min(ratios), max(ratios)
        rows[contender] = {"images_per_second": values, "ours_over_it": ratios}
        print(
            f"| {name} | {contender} | {statistics.median(values):,.0f} "
            f"| {statistics.median(ratios):.2f} ({low:.2f}–{high:.2f}) |",
            flush=True,
        )
    return rows


def main() -> None:
    """Compare the chosen cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch_python", default="")
    parser.add_argument("--case", default="all", choices=[*CASES, "all"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    devices.configure(devices.DeviceOptions(compilation_cache="off"))
    names = list(CASES) if options.case == "all" else [options.case]
    print(f"{devices.describe_device()}, jax {jax.__version__}, n = {options.rounds}")
    print("| case | contender | images/s, median | ours / it, median (range) |")
    print("|---|---|---|---|")
    found = {
        name: compare(name, options.rounds, options.torch_python) for name in names
    }
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
