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
import time
from pathlib import Path

import contenders
from contenders import Case, Ours

import jax  # isort: skip
from cnn import devices

CASES = {
    "cifar": Case("simple_cnn", 32, 3, 128, 16),
    "digits": Case("simple_cnn", 8, 1, 32, 120),
}


def make_flax(case: Case) -> contenders.Round:
    """Make a function that runs one round of a plain flax loop; returns seconds."""
    import flax.linen as nn
    import jax.numpy as jnp
    import optax

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            for width in (32, 64, 128):
                x = nn.Conv(width, (3, 3), use_bias=False)(x)
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
                x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
            return nn.Dense(10)(jnp.mean(x, (1, 2)))

    model, images, labels = Plain(), *contenders.make_data(case)
    chain = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9, nesterov=True)
    )
    variables = model.init(jax.random.key(0), jnp.zeros((1, *case.shape)), train=False)

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
        for i in range(case.steps):
            *kept[:], loss = step(*kept, images[i], labels[i])
        loss.block_until_ready()
        return time.perf_counter() - started

    return run_round


def compare(name: str, rounds: int, python: str) -> dict:
    """Run all contenders of one case in turns."""
    case = CASES[name]
    found = {"ours": Ours(case).make_scanned(), "flax loop": make_flax(case)}
    if python:
        for layout in ("default", "channels_last"):
            torch = contenders.make_torch(python, case, "train", layout, "eager")
            found[f"PyTorch {layout}"] = torch
    speeds = contenders.take_turns(found, case.images, rounds)
    for contender, values in speeds.items():
        ratio = contenders.compare_with(speeds["ours"], values)
        median = statistics.median(values)
        print(f"| {name} | {contender} | {median:,.0f} | {ratio} |", flush=True)
    return speeds


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
