"""Training steps and forward passes of our models beside a plain loop and PyTorch.

    python benchmarks/train_step.py [--torch_python=PATH] [--models=resnet20,wrn_16_4]

Contenders take turns, a round each, after a warm-up round; a ratio compares neighbours
in time. `loop` calls our jitted step from Python, `plain` is that loop with
--convolution=plain, as a plain flax program has it. Two rows are limits, not
contenders. `operations`: multiply-accumulates of the convolutions and dense layers
(three times those of the forward pass in training) at the speed of a matrix product
measured just before; the last column is the share of it. `bytes`: each layer's output
written and read once forwards and, in training, read once backwards and its gradient
written and read, at the speed of scaling an array. Prints a Markdown table;
--json=FILE writes all rounds.
"""

import argparse
import json
import math
import os
import statistics
from pathlib import Path

import contenders
from contenders import Case, Ours

import jax  # isort: skip
from cnn import describe, devices, models

# Image size and batch size where they are not 32 and 64; steps a round.
SIZES = {
    "resnet20": (32, 128),
    "simple_cnn": (32, 128),
    "resnet50": (64, 32),
    "mobilenet_v2": (64, 32),
}
REQUIRED = ("resnet20", "wrn_16_4", "simple_cnn", "resnet50", "mobilenet_v2")
TORCH = (("default", "eager"), ("channels_last", "eager"))


def make_case(name: str, steps: int) -> Case:
    """Make the case of a model: 224x224 and batch 16 where it was published so."""
    size, _, _ = models.get_published_input(name)
    usual = (32, 64) if size <= 32 else (224, 16)
    size, batch_size = SIZES.get(name, usual)
    return Case(name, size, 3, batch_size, steps)


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
    if options.torch_python and case.model not in ("mlp", "logistic_regression"):
        pairs = TORCH
        if options.compiled:
            pairs = (*pairs, ("channels_last", "compiled"))
        for layout, mode in pairs:
            name = f"PyTorch {mode}, {layout}"
            if is_chosen(name, options.only):
                python = options.torch_python
                found[name] = contenders.make_torch(python, case, what, layout, mode)
    return found, ours


def is_chosen(name: str, only: str) -> bool:
    """Say whether a contender's name has one of the parts; no parts: every name."""
    return any(part in name for part in only.split(","))


def compare(case: Case, options: argparse.Namespace, what: str) -> dict:
    """Run the contenders of one case in turns and print their rows."""
    peak, bandwidth = contenders.measure_peak(), contenders.measure_bandwidth()
    found, ours = make_contenders(case, options, what)
    description = describe.describe_model(ours.task.model, case.shape)
    macs, values = description["macs"], count_outputs(description)
    training = what == "train"
    macs, moved = macs * (3 if training else 1), 4 * values * (5 if training else 2)
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


def main() -> None:
    """Compare the chosen models and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch_python", default="", help="a Python with PyTorch")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too")
    parser.add_argument("--models", default=",".join(REQUIRED), help="names, or all")
    parser.add_argument("--what", default="train", choices=("train", "forward", "both"))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--cpu_kernels", default="auto", choices=devices.KERNELS)
    parser.add_argument("--only", default="", help="contenders, by parts of names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    devices.configure(devices.DeviceOptions(compilation_cache="off"))
    names = options.models.split(",")
    if options.models == "all":
        names = [name for name in models.MODELS if name != "wrn_D_K"] + ["wrn_16_4"]
    both = ("train", "forward") if options.what == "both" else (options.what,)
    print(
        f"{devices.describe_device()}, {len(os.sched_getaffinity(0))} cores, "
        f"jax {jax.__version__}, {options.precision}, kernels "
        f"{options.cpu_kernels}, n = {options.rounds} rounds of {options.steps} steps\n"
    )
    print("| case | what | contender | images/s | ours / it (range) | of the peak |")
    print("|---|---|---|---|---|---|")
    found = {}
    for name in names:
        case = make_case(name, options.steps)
        for what in both:
            found[f"{case}, {what}"] = compare(case, options, what)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
