"""Training steps and forward passes of our models beside plain flax and PyTorch.

    python benchmarks/train_step.py [--torch_python=PATH] [--models=resnet20,wrn_16_4]

Contenders take turns, a round each, after a warm-up round; a ratio compares neighbours
in time. `loop` calls our jitted step from Python, `plain` is that loop with
--convolution=plain and XLA's library, and `flax` is a loop of flax's own layers and
optax (`plain_flax.py`). Two rows are limits, not contenders. `operations`:
multiply-accumulates of the convolutions and dense layers (three times those of the
forward pass in training) at the speed of a matrix product measured just before; the
last column is the share of it. `bytes`: each layer's output written and read once
forwards and, in training, read once backwards and its gradient written and read, at the
speed of scaling an array. Prints a Markdown table; --json=FILE writes all rounds, after
each case.
"""

import argparse
import math
import os
import statistics

import contenders
import flags
import jax
import limits
import plain_flax
from clocks import CLOCKS
from contenders import Case, Ours

from cnn import models
from cnn.config import list_fields
from cnn.errors import UserError
from cnn.models.variables import count_parameters
from cnn.runtime import devices, xla
from cnn.runtime.options import DeviceOptions

# Image size and batch size where they are not 32 and 64; steps a round.
SIZES = {
    "resnet20": (32, 128),
    "simple_cnn": (32, 128),
    "resnet50": (64, 32),
    "mobilenet_v2": (64, 32),
}
REQUIRED = ("resnet20", "wrn_16_4", "simple_cnn", "resnet50", "mobilenet_v2")
TORCH = (("default", "eager"), ("channels_last", "eager"))
COMPILED = (*TORCH, ("channels_last", "compiled"))


def make_case(name: str, options: argparse.Namespace) -> Case:
    """Make the case of a model: its own size, 32x32 at least, and batch 16 of large.

    At --image_size alone the batch is 32.
    """
    size, _, _ = models.get_published_input(name)
    usual = (32, 64) if size <= 32 else (size, 32 if options.size else 16)
    size, batch_size = SIZES.get(name, usual)
    size, batch_size = options.size or size, options.batch_size or batch_size
    return Case(name, size, 3, batch_size, options.steps, options.clock)


def make_contenders(
    case: Case, options: argparse.Namespace, what: str
) -> tuple[dict[str, contenders.Round], Ours]:
    """Make all contenders of a case, for `train` or `forward`."""
    device = {"precision": options.precision, "cpu_kernels": options.cpu_kernels}
    ours = Ours(case, **device)
    if what == "forward":
        found = {"ours": ours.make_forward()}
    else:
        found = {"ours": ours.make_scanned()}
        if is_chosen("loop", options.only):
            found["loop"] = ours.make_loop()
        if is_chosen("plain", options.only):
            plain = {"convolution": "plain", "cpu_kernels": "xla"}
            plain = Ours(case, **device | plain)
            found["plain"] = plain.make_loop()
    if is_chosen("flax", options.only):
        parameters = count_parameters(ours.state.params)
        found["flax"] = plain_flax.make_flax(case, what, options.precision, parameters)
    python = options.torch_python
    if python and contenders.has_torch(python, case.model):
        for layout, mode in COMPILED if options.compiled else TORCH:
            name = f"PyTorch {mode}, {layout}"
            if is_chosen(name, options.only):
                given = case, what, layout, mode, options.precision
                found[name] = contenders.make_torch(python, *given)
    return found, ours


def is_chosen(name: str, only: str) -> bool:
    """Say whether a contender's name has one of the parts; no parts: every name."""
    return any(part in name for part in only.split(","))


def compare(case: Case, options: argparse.Namespace, what: str) -> dict:
    """Run the contenders of one case in turns and print their rows."""
    flags.report(f"{case}, {what}: the machine's limits, then compilation")
    peak = limits.measure_peak(options.precision, options.clock)
    bandwidth = limits.measure_bandwidth(clock=options.clock)
    found, ours = make_contenders(case, options, what)
    macs, values = ours.description["macs"], count_outputs(ours.description)
    training = what == "train"
    itemsize = 2 if options.precision == "bfloat16" else 4
    macs *= 3 if training else 1
    moved = itemsize * values * (5 if training else 2)
    speeds = contenders.take_turns(found, case.images, options.rounds)
    print(f"| {case} | {what} | operations | {peak / macs:,.0f} | | 100% |")
    print(f"| {case} | {what} | bytes | {bandwidth / moved:,.0f} | | |")
    for name, values in speeds.items():
        median = statistics.median(values)
        ratio = contenders.compare_with(speeds["ours"], values)
        share = f"{median * macs / peak:.0%}"
        print(f"| {case} | {what} | {name} | {median:,.0f} | {ratio} | {share} |")
    print(flush=True, end="")
    return {
        "images_per_second": speeds,
        "peak_macs_per_second": peak,
        "macs_per_image": macs,
        "bandwidth_bytes_per_second": bandwidth,
        "bytes_per_image": moved,
        "compile_seconds": ours.compile_seconds,
    }


def count_outputs(description: dict) -> int:
    """Count the numbers in the outputs of all layers with parameters, for one image."""
    return sum(math.prod(layer["output_shape"]) for layer in description["layers"])


def parse() -> argparse.Namespace:
    """Read the command line; `models` becomes the list of names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    torch = flags.python_with_torch
    kernels = list_fields()["cpu_kernels"].metadata["choices"]
    add("--torch_python", type=torch, help="a Python with PyTorch")
    add("--compiled", action="store_true", help="torch.compile too")
    add("--models", default=",".join(REQUIRED), help="names, or all")
    add("--what", default="train", choices=("train", "forward", "both"))
    size = "pixels a side, instead of each model's"
    add("--size", "--image_size", type=flags.positive, help=size)
    add("--batch_size", type=flags.positive, help="instead of each model's")
    add("--precision", default="float32", choices=("float32", "bfloat16"))
    add("--cpu_kernels", default="auto", choices=kernels)
    add("--only", default="", help="contenders beside ours, by parts of names")
    add("--rounds", default=5, type=flags.positive)
    add("--steps", default=8, type=flags.positive, help="of a round")
    clock = "seconds of the wall, or of CPU time of all threads (clocks.py)"
    add("--clock", default="wall", choices=tuple(CLOCKS), help=clock)
    add("--json", type=flags.new_file)
    options = parser.parse_args()
    if options.compiled and not options.torch_python:
        parser.error("--compiled needs --torch_python=PATH")
    names = ["loop", "plain", "flax", *(f"PyTorch {mode}, {x}" for x, mode in COMPILED)]
    if not any(is_chosen(name, options.only) for name in names):
        parser.error(f"--only={options.only} is part of none of: {'; '.join(names)}")
    options.models = options.models.split(",")
    if options.models == ["all"]:
        names = models.list_names()
        options.models = [*names, "wrn_16_4"]
    return options


def main() -> None:
    """Compare the chosen models and print the tables."""
    options = parse()
    # Of a GPU's memory JAX takes three quarters at once; PyTorch needs some too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    cases = [make_case(name, options) for name in options.models]
    xla.configure(DeviceOptions(compilation_cache="off"))
    both = ("train", "forward") if options.what == "both" else (options.what,)
    print(
        f"{devices.describe_device()}, {len(os.sched_getaffinity(0))} cores, "
        f"jax {jax.__version__}, {options.precision}, kernels "
        f"{options.cpu_kernels}, n = {options.rounds} rounds of {options.steps} steps\n"
    )
    unit = "images/s" if options.clock == "wall" else "images/s of CPU time"
    print(f"| case | what | contender | {unit} | ours / it (range) | of the peak |")
    print("|---|---|---|---|---|---|", flush=True)
    found, failed = {}, []
    for case in cases:
        for what in both:
            try:
                found[f"{case}, {what}"] = compare(case, options, what)
            except UserError as error:
                flags.report(f"{case}, {what}: {error}")
                failed.append(f"{case}, {what}")
            flags.write_json(options.json, found)
    if failed:
        raise UserError(f"without figures: {'; '.join(failed)}")


if __name__ == "__main__":
    flags.run(main)
