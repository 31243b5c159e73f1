"""What each augmentation is worth where examples are few: a table and a plot.

    python benchmarks/augmentation_accuracy.py --data_dir=DIR [--seeds=3] [--epochs=40]

Trains simple_cnn on 2,000 images of tfds:cifar10_jpeg with none and with each one,
writes docs/augmentation.png and prints a Markdown table of the test accuracy, mean ±
standard deviation over the seeds. A result that is in --results is not made again, so
that the command may be stopped.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
KINDS = {
    "none": [],
    "rotation": ["--rotation_degrees=15"],
    "crop": ["--crop_padding=4"],
    "colour": ["--brightness=0.2", "--contrast=0.2", "--saturation=0.2", "--hue=0.05"],
    "affine": [
        "--rotation_degrees=10",
        "--shift=0.1",
        "--shear_degrees=10",
        "--scale_min=0.9",
        "--scale_max=1.1",
    ],
    "flip": ["--flip_probability=0.5"],
    "cut-out": ["--cutout_size=12"],
    "mix-up": ["--mixup_alpha=0.2"],
}


def measure(kind: str, seed: int, arguments: argparse.Namespace) -> float:
    """Train once, unless it was done, and return the test accuracy in percent."""
    workdir = Path(arguments.results) / f"{kind.replace(', ', '_')},{seed}"
    result = workdir / "result.json"
    if not result.exists():
        command = [sys.executable, "main.py", f"--workdir={workdir.absolute()}"]
        command += ["--dataset=tfds:cifar10_jpeg", f"--data_dir={arguments.data_dir}"]
        command += ["--config=cifar10_simple_cnn", f"--seed={seed}"]
        command += ["--train_examples=2000", f"--epochs={arguments.epochs}"]
        command += [f"--eval_every_epochs={arguments.epochs}", *KINDS[kind]]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return 100 * json.loads(result.read_text())["test_accuracy"]


def draw(found: dict[str, list[float]], path: Path) -> None:
    """Plot the accuracy of every kind: a point a seed, a line at their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    names = list(found)[::-1]
    for place, name in enumerate(names):
        values = found[name]
        axes.plot(values, [place] * len(values), "o", color="#0072b2", alpha=0.7)
        mean = statistics.mean(values)
        axes.plot([mean, mean], [place - 0.3, place + 0.3], color="#d55e00", lw=2)
    axes.axvline(statistics.mean(found["none"]), color="0.6", lw=1, ls="--")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("test accuracy, % (points: seeds; bar: mean; dashed: none)")
    axes.set_title("simple_cnn, 2,000 training images of cifar10_jpeg")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure every kind, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", default="~/tensorflow_datasets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--results", default="runs/augmentation_accuracy")
    arguments = parser.parse_args()
    found = {}
    print("| augmentation | test accuracy, % | gain |\n|---|---|---|")
    for kind in KINDS:
        found[kind] = [measure(kind, s, arguments) for s in range(arguments.seeds)]
        mean = statistics.mean(found[kind])
        spread = statistics.stdev(found[kind]) if arguments.seeds > 1 else 0.0
        gain = mean - statistics.mean(found["none"])
        print(f"| {kind} | {mean:.2f} ± {spread:.2f} | {gain:+.2f} |", flush=True)
    draw(found, ROOT / "docs" / "augmentation.png")


if __name__ == "__main__":
    main()
