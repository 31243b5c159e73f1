"""Memory of training steps, ours and PyTorch's, beside what has to be kept.

    python benchmarks/memory.py [--torch_python=PATH] [--models=resnet20,resnet50]
        [--batch_size=N] [--remat] [--accumulate_steps=4] [--json=FILE]

Each contender is a process of its own. What counts is the most that it has in memory
beyond what it had when everything was imported: `creation` until the state is made and
the step compiled, `steps` from then on (VmHWM, which Linux keeps), of two rounds of
four steps. PyTorch, eager with channels_last, compiles nothing and has one number for
all. `compiler` is what XLA says of the program: temporary memory, and arguments, which
its results take the place of. `kept` is a limit: every layer's output, which the
backward pass reads, and the parameters with their momentum. --remat and
--accumulate_steps add rows with these flags. Prints a Markdown table in MB (10^6).
"""

import argparse
import json
import subprocess
import sys

import contenders
import flags
import resident
import train_step
from contenders import Case, Ours

from cnn import config
from cnn.errors import UserError
from cnn.models import remat
from cnn.models.variables import count_parameters
from cnn.runtime import xla
from cnn.runtime.options import DeviceOptions

SMALL = ("resnet20", "wrn_16_4", "simple_cnn")
LARGE = ("resnet18", "resnet50", "densenet121", "vgg11_bn", "mobilenet_v2")
LARGE += ("efficientnet_b0", "convnext_tiny")
STEPS, ROUNDS = 4, 2


def make_case(name: str, batch_size: int | None) -> Case:
    """Make the case of a model: 32x32, batch 128 for small images, else 64x64, 32."""
    size, usual = (32, 128) if name in SMALL else (64, 32)
    return Case(name, size, 3, batch_size or usual, STEPS)


def serve(name: str, batch_size: int, given: dict) -> None:
    """Run our steps in this process and print their bytes as JSON.

    Args:
        given: options of the run besides its model.
    """
    xla.configure(DeviceOptions(compilation_cache="off"))
    before = resident.read_now()
    case = make_case(name, batch_size)
    ours = Ours(case, **given)
    layers = ours.description["layers"]
    remat.check(config.make_config(given | {"model": name}).model, layers)
    run_round = ours.make_scanned()
    found = {"creation": resident.read_most() - before}
    resident.forget_most()
    for _ in range(ROUNDS):
        run_round()
    found["steps"] = resident.read_most() - before
    analysis = ours.compiled.memory_analysis()
    found["temporary"] = analysis.temp_size_in_bytes
    found["arguments"] = analysis.argument_size_in_bytes
    found["beyond"] = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    numbers = batch_size * train_step.count_outputs(ours.description)
    numbers += 2 * count_parameters(ours.state.params)
    found["kept"] = 4 * numbers
    print(json.dumps(found))


def measure_ours(case: Case, given: dict) -> dict[str, int] | None:
    """Measure our steps in a process of their own.

    Returns:
        As `serve` prints; None where the model does not take the options.
    """
    arguments = case.model, str(case.batch_size), json.dumps(given)
    command = [sys.executable, __file__, "--serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 2:
        flags.report(done.stderr.strip().splitlines()[-1])
        return None
    if done.returncode:
        raise UserError(f"{case} ended: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_torch(python: str, case: Case) -> int:
    """Measure PyTorch's steps in a process of their own."""
    run_round, worker = contenders.make_torch_worker(
        python, case, "train", "channels_last"
    )
    try:
        for _ in range(ROUNDS):
            run_round()
        return int(contenders.ask(worker, "memory"))
    finally:
        worker.kill()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--torch_python", type=flags.python_with_torch, help="a Python with PyTorch")
    add("--models", default=",".join((*SMALL, *LARGE)))
    add("--batch_size", type=flags.positive, help="instead of 128 or 32")
    add("--remat", action="store_true", help="also with --remat=blocks")
    add("--accumulate_steps", type=flags.positive, help="also with so many pieces")
    add("--json", type=flags.new_file)
    return parser.parse_args()


def main() -> None:
    """Measure every model and print the table."""
    options, rows = parse(), []
    variants: list[dict] = [{}]
    variants += [{"remat": "blocks"}] if options.remat else []
    if options.accumulate_steps:
        variants.append({"accumulate_steps": options.accumulate_steps})
    names = "kept", "temporary", "arguments", "creation", "steps"
    print(f"| case | flags | {' | '.join(names)} | PyTorch | ours / PyTorch |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.models.split(","):
        case, theirs = make_case(name, options.batch_size), None
        python = options.torch_python
        if python and contenders.has_torch(python, name):
            theirs = measure_torch(python, case)
        for given in variants:
            found = measure_ours(case, given)
            if found is None:
                continue
            words = " ".join(f"--{key}={value}" for key, value in given.items())
            cells = [str(case), words, *(f"{found[n] / 1e6:,.0f}" for n in names)]
            if theirs:
                ratio = found["steps"] / theirs
                cells += [f"{theirs / 1e6:,.0f}", f"{ratio:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
            rows.append({"case": str(case), "given": given, "torch": theirs} | found)
            flags.write_json(options.json, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        flags.run(lambda: serve(sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])))
    else:
        flags.run(main)
