"""Fine-tuning beside training from scratch: the tables and plots of three examples.

    python benchmarks/finetune.py [EXAMPLE …] [--seeds=3] [--data_dir=DIR]
        [--weights=resnet20-12fca82f.th] [-- any flag of main.py …]

EXAMPLE is digits, cifar10_jpeg or classes; all three without. Every run is kept under
--runs and taken from there the next time. Tables go to their places in
docs/fine_tuning.md, the curves of the training loss to docs/fine_tuning_EXAMPLE.png.
Flags behind `--` are for every run, the sources too; with them, `--docs=DIR` writes
to a copy of the page.
"""

import argparse
import dataclasses
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
STAGES = {"scratch": "from scratch", "head": "head only", "last": "last stage and head"}
STAGES |= {"everything": "everything", "gradual": "gradual, from the head down"}


@dataclasses.dataclass(frozen=True)
class Example:
    """One example: where it comes from, and the flags of each way of training.

    Attributes:
        source: flags that train the source; empty for the file --weights.
        modes: flags of each way, by name.
        sizes: training images a class, each a column; 0: as the preset has it.
        classes: number of classes.
    """

    source: tuple[str, ...]
    modes: dict[str, tuple[str, ...]]
    sizes: tuple[int, ...] = (0,)
    classes: int = 5


def make_modes(epochs: int) -> dict[str, tuple[str, ...]]:
    """Make the ways of training a network of three stages.

    `gradual` unfreezes a stage after each quarter of the epochs.
    """
    everything = ("--freeze_through=", "--train_only=")
    unfreeze = [f"stage{3 - i}:{epochs * (i + 1) // 4}" for i in range(3)]
    return {
        "scratch": ("--init_from=", *everything),
        "head": ("--freeze_through=", "--train_only=head"),
        "last": ("--freeze_through=stage2", "--train_only="),
        "everything": everything,
        "gradual": (
            "--freeze_through=",
            "--train_only=head",
            f"--unfreeze={','.join(unfreeze)}",
        ),
    }


CIFAR_SOURCE = (
    "--config=finetune_classes",
    "--init_from=",
    "--train_only=",
    "--classes=0,1,2,3,4",
    "--train_examples=0",
    "--epochs=10",
    "--batch_size=128",
    "--learning_rate=0.1",
)
EXAMPLES = {
    "digits": Example(("--classes=0,1,2,3,4",), make_modes(10), (10, 20, 50)),
    "cifar10_jpeg": Example(
        (),
        make_modes(1)
        | {
            "scratch": ("--init_from=", "--freeze_statistics=false"),
            "gradual": (
                "--epochs=3",
                "--train_only=head",
                "--unfreeze=stage3:1,stage2:2",
            ),
        },
        classes=10,
    ),
    "classes": Example(CIFAR_SOURCE, make_modes(20)),
}


def run(directory: Path, flags: list[str]) -> None:
    """Train one run, unless it is there already."""
    if (directory / "result.json").exists():
        return
    command = [sys.executable, "main.py", f"--workdir={directory.absolute()}", *flags]
    print("$", *command[1:], flush=True)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def run_example(name: str, options: argparse.Namespace, flags: list[str]) -> dict:
    """Train all runs of an example; returns their directories by (way, size)."""
    example, directories = EXAMPLES[name], {}
    for seed in range(options.seeds):
        shared = [f"--seed={seed}", "--log_every_steps=1", *flags]
        if options.data_dir and name != "digits":
            shared.append(f"--data_dir={options.data_dir.absolute()}")
        source = options.weights
        if example.source:
            source = options.runs / name / "source" / str(seed)
            run(source, [*example.source, *shared])
        for size in example.sizes:
            for mode, mode_flags in example.modes.items():
                directory = options.runs / name / f"{mode}-{size}" / str(seed)
                mine = [f"--config=finetune_{name}", f"--init_from={source.absolute()}"]
                if size:
                    mine.append(f"--train_examples={size * example.classes}")
                run(directory, [*mine, *shared, *mode_flags])
                directories.setdefault((mode, size), []).append(directory)
    return directories


def make_table(name: str, directories: dict) -> str:
    """Write the table: accuracy and seconds of each way, mean ± spread over seeds."""
    example = EXAMPLES[name]
    titles = ["way"]
    for size in example.sizes:
        suffix = f", {size} images a class" if size else ""
        titles += [f"test accuracy, %{suffix}", "seconds"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for mode in example.modes:
        cells = [STAGES[mode]]
        for size in example.sizes:
            results = [read_result(path) for path in directories[mode, size]]
            cells.append(show([100 * result["test_accuracy"] for result in results]))
            cells.append(f"{statistics.mean(x['seconds'] for x in results):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    count = len(next(iter(directories.values())))
    return "\n".join([*lines, "", f"n = {count} seeds. {describe_start(directories)}"])


def describe_start(directories: dict) -> str:
    """Say how many test images are right before the first step."""
    (key,) = [key for key in directories if key[0] == "everything"][:1]
    line = read_lines(directories[key][0])[0]
    accuracy = line.get("test_accuracy")
    return f"Before the first step: {accuracy:.2%} (everything, seed 0)."


def plot(name: str, directories: dict, path: Path) -> None:
    """Draw the training loss of the first seed, for the smallest training set."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for mode in EXAMPLES[name].modes:
        lines = read_lines(directories[mode, EXAMPLES[name].sizes[0]][0])
        steps = [line["step"] for line in lines if "example_ids_hash" in line]
        losses = [line["loss"] for line in lines if "example_ids_hash" in line]
        width = max(1, len(losses) // 40)
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        axes.plot(steps[width - 1 :], smooth, label=STAGES[mode])
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.legend(loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def read_result(directory: Path) -> dict:
    """Read result.json."""
    return json.loads((directory / "result.json").read_text())


def read_lines(directory: Path) -> list[dict]:
    """Read metrics.jsonl."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def show(values: list[float]) -> str:
    """Write mean ± standard deviation."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def write_table(page: Path, name: str, table: str) -> None:
    """Put a table in its place on the page."""
    text, marks = page.read_text(), (f"<!-- {name} -->", f"<!-- end of {name} -->")
    pattern = rf"{marks[0]}\n.*?{marks[1]}"
    filled = f"{marks[0]}\n\n{table}\n\n{marks[1]}"
    page.write_text(re.sub(pattern, lambda _: filled, text, flags=re.DOTALL))


def main() -> None:
    """Run the chosen examples, write their tables and draw their curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("examples", nargs="*", choices=[[], *EXAMPLES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("resnet20-12fca82f.th"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "finetune")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    own, flags = sys.argv[1:], []
    if "--" in own:
        place = own.index("--")
        own, flags = own[:place], own[place + 1 :]
    options = parser.parse_args(own)
    page = options.docs / "fine_tuning.md"
    if not page.exists():
        options.docs.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "docs" / "fine_tuning.md", page)
    for name in options.examples or EXAMPLES:
        directories = run_example(name, options, flags)
        table = make_table(name, directories)
        print(table, flush=True)
        write_table(page, name, table)
        plot(name, directories, options.docs / f"fine_tuning_{name}.png")


if __name__ == "__main__":
    main()
