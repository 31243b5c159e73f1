"""Images per second of our epoch, of a plain flax loop and of PyTorch, side by side.

    python benchmarks/train_epoch.py [--torch_python=PATH] [--case=cifar|digits|all]

The same simple_cnn, batch, optimizer and cores for all, in one run: the contenders
take turns, a round each, after a warm-up round; the ratio of a round compares
neighbours in time. Prints a Markdown table and, with --json=FILE, writes the rounds.
--torch_python names a Python that has PyTorch; without it that column is absent.
"""

import argparse
import statistics

import contenders
import flags
import jax
import plain_flax
from contenders import Case, Ours

from cnn.models.variables import count_parameters
from cnn.runtime import devices, xla
from cnn.runtime.options import DeviceOptions

CASES = {
    "cifar": Case("simple_cnn", 32, 3, 128, 16),
    "digits": Case("simple_cnn", 8, 1, 32, 120),
}


def compare(name: str, rounds: int, python: str) -> dict:
    """Run all contenders of one case in turns."""
    case = CASES[name]
    ours = Ours(case)
    parameters = count_parameters(ours.state.params)
    plain = plain_flax.make_flax(case, "train", "float32", parameters)
    found = {"ours": ours.make_scanned(), "flax loop": plain}
    if python:
        for layout in ("default", "channels_last"):
            torch = contenders.make_torch(python, case, "train", layout)
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
    parser.add_argument("--torch_python", type=flags.python_with_torch)
    parser.add_argument("--case", default="all", choices=[*CASES, "all"])
    parser.add_argument("--rounds", type=flags.positive, default=9)
    parser.add_argument("--json", type=flags.new_file)
    options = parser.parse_args()
    xla.configure(DeviceOptions(compilation_cache="off"))
    names = list(CASES) if options.case == "all" else [options.case]
    print(f"{devices.describe_device()}, jax {jax.__version__}, n = {options.rounds}")
    print("| case | contender | images/s, median | ours / it, median (range) |")
    print("|---|---|---|---|")
    found = {
        name: compare(name, options.rounds, options.torch_python) for name in names
    }
    flags.write_json(options.json, found)


if __name__ == "__main__":
    flags.run(main)
