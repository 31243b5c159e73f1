"""What is worth knowing about one GPU, in less than eight minutes.

    python benchmarks/gpu.py --out=DIR [--torch_python=PATH] [--data_dir=DIR]
        [--airbench=airbench94.py] [--parts=resnet50,augmentation] [--seconds=470]

Each part is another benchmark, or a command of main.py, in a process of its own, in the
order of `list_parts`: training steps of four models beside compiled PyTorch, the
speedrun's two presets beside airbench's script, 64 trials as one program, the message
for a batch that does not fit, augmentation's share of a step, and XLA's flags. A part
that what is left of `--seconds` does not suffice for is skipped, and one that takes
more than it has is ended; both are said. `gpu.md` and `gpu.json` hold what each part
printed, written anew after every one.

airbench's script runs in its own directory, where it looks for the images; without
`--data_dir` the speedrun is the small one, on digits. `--small` takes sizes that a CPU
can do, to try the parts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import flags

HERE = Path(__file__).parent
STEPS = {"resnet50": 224, "wrn_28_10": 32, "convnext_tiny": 224, "efficientnet_b0": 224}
XLA_FLAGS = (
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    "--xla_gpu_autotune_level=0",
    "--xla_gpu_enable_command_buffer=",
)
_LINES = 40  # of what a part prints that are kept


class Part(NamedTuple):
    """A command and the seconds that it has.

    Attributes:
        fails: whether it is to end with exit code 2, as a refusal does.
    """

    name: str
    command: list[str]
    seconds: int
    variables: dict[str, str] = {}
    directory: Path = flags.ROOT
    fails: bool = False


def list_parts(options: argparse.Namespace, home: Path) -> list[Part]:
    """List all parts, the most useful first.

    Args:
        home: where runs are written.
    """
    parts = [_make_steps(options, name, size) for name, size in STEPS.items()]
    parts += _make_speedruns(options)
    sweep = [f"--executor={'loop' if options.small else 'map'}", "--part=64"]
    sweep += ["--runs=1", f"--epochs={1 if options.small else 3}"]
    sweep += [f"--torch_python={options.torch_python}"] if options.torch_python else []
    parts.append(Part("trials", _call("sweep.py", *sweep), 60))
    if not options.small:  # a computer has more memory than that batch takes
        large = ["--model=resnet152", "--image_size=448", "--batch_size=1024"]
        large += ["--dataset=digits", "--epochs=1", f"--workdir={home / 'large'}"]
        command = [sys.executable, str(flags.ROOT / "main.py"), *large]
        parts.append(Part("does not fit", command, 60, fails=True))
    parts.append(Part("augmentation", _call("augment_share.py", "--rounds=3"), 40))
    for flag in XLA_FLAGS:
        steps = _make_steps(options, "resnet50", STEPS["resnet50"])
        alone = [x for x in steps.command if not x.startswith("--torch_python")]
        alone = [x for x in alone if x != "--compiled"] + ["--only=loop"]
        parts.append(Part(f"resnet50, {flag}", alone, 40, {"XLA_FLAGS": flag}))
    return parts


def _call(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(HERE / script), *arguments]


def _make_steps(options: argparse.Namespace, name: str, size: int) -> Part:
    """Make the part of a model's training steps, beside compiled PyTorch if given."""
    size, batch, steps = (32, 4, 1) if options.small else (size, 128, 20)
    given = [f"--models={name}", f"--size={size}", f"--batch_size={batch}"]
    given += [f"--steps={steps}", "--rounds=3", "--precision=bfloat16"]
    if options.torch_python:
        given += [f"--torch_python={options.torch_python}", "--compiled"]
    only = "compiled" if options.torch_python else "loop"
    return Part(
        f"steps of {name}", _call("train_step.py", *given, f"--only={only}"), 90
    )


def _make_speedruns(options: argparse.Namespace) -> list[Part]:
    """Make the parts of both presets, and of airbench's script if given."""
    given = ["--seeds=2"]
    if options.data_dir:
        given = ["--full", "--seeds=10", f"--data_dir={options.data_dir}"]
        given += [f"--dataset={options.dataset}", "--precision=bfloat16"]
    parts = [
        Part(preset, _call("speedrun.py", f"--config={preset}", *given), 75)
        for preset in ("cifar10_speedrun", "cifar10_speedrun_muon")
    ]
    if options.airbench:
        script = Path(options.airbench).resolve()
        command = [options.torch_python, str(script)]
        parts.append(Part("airbench's script", command, 100, {}, script.parent))
    return parts


def run(part: Part) -> dict[str, Any]:
    """Run a part; returns its exit code, seconds and last lines."""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            part.command,
            cwd=part.directory,
            env=os.environ | part.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=part.seconds,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, output = "out of time", error.stdout or b""
    lines = output.decode(errors="replace").splitlines()
    expected = 2 if part.fails else 0
    return {
        "part": part.name,
        "command": part.command,
        "result": "done" if code == expected else f"failed ({code})",
        "seconds": round(time.perf_counter() - started, 1),
        "output": lines[-_LINES:],
    }


def write(out: Path, found: list[dict[str, Any]]) -> None:
    """Write what was found so far, as JSON and to be read."""
    (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    text = ["| part | result | seconds |", "|---|---|---|"]
    text += [f"| {x['part']} | {x['result']} | {x['seconds']} |" for x in found]
    for one in found:
        text += ["", f"## {one['part']}", "", *one["output"]]
    (out / "gpu.md").write_text("\n".join(text) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="directory of gpu.md and gpu.json")
    torch = flags.python_with_torch
    add("--torch_python", type=torch, help="a Python with PyTorch")
    add("--data_dir", default="", help="of tensorflow-datasets")
    add("--dataset", default="tfds:cifar10", help="of the speedrun")
    add("--airbench", default="", help="airbench's script")
    add("--parts", default="", help="some of the names; all others are left out")
    add("--seconds", type=flags.positive, default=470)
    add("--small", action="store_true", help="sizes for a CPU")
    options = parser.parse_args()
    if options.airbench and not (
        options.torch_python and os.path.isfile(options.airbench)
    ):
        parser.error("--airbench is a file, and needs --torch_python=PATH")
    return options


def main() -> None:
    """Run what there is time for."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    until, found = time.monotonic() + options.seconds, []
    with tempfile.TemporaryDirectory() as home:
        parts = list_parts(options, Path(home))
        wanted = [x for x in options.parts.split(",") if x]
        unknown = [x for x in wanted if all(x not in part.name for part in parts)]
        if unknown:
            names = "; ".join(part.name for part in parts)
            raise flags.UserError(f"--parts={unknown[0]}: none of {names}")
        for part in parts:
            if wanted and all(x not in part.name for x in wanted):
                continue
            left = int(until - time.monotonic())
            if left < part.seconds / 2:
                result = {"part": part.name, "result": "skipped", "seconds": 0}
                found.append(result | {"command": part.command, "output": []})
            else:
                flags.report(f"{part.name}, {left} s are left")
                found.append(run(part._replace(seconds=min(part.seconds, left))))
            write(options.out, found)
    flags.report((options.out / "gpu.md").read_text())
    if any(one["result"].startswith("failed") for one in found):
        raise SystemExit(1)


if __name__ == "__main__":
    flags.run(main)
