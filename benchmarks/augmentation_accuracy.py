"""What each augmentation is worth where examples are few: a table and a plot.

    python benchmarks/augmentation_accuracy.py --data_dir=DIR [--seeds=3] [--epochs=40]

Trains simple_cnn on 2,000 images of tfds:cifar10_jpeg with none and with each one,
writes docs/augmentation.png and prints a Markdown table of the test accuracy, mean ±
standard deviation over the seeds. A result that is in --results is not made again, so
that the command may be stopped.
"""

import argparse
import statistics
from pathlib import Path

import variants

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
    given = ["--dataset=tfds:cifar10_jpeg", f"--data_dir={arguments.data_dir}"]
    given += ["--config=cifar10_simple_cnn", f"--seed={seed}"]
    given += ["--train_examples=2000", f"--epochs={arguments.epochs}"]
    given += [f"--eval_every_epochs={arguments.epochs}", *KINDS[kind]]
    return 100 * variants.train(given, workdir)["test_accuracy"]


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
    title = "simple_cnn, 2,000 training images of cifar10_jpeg"
    path = variants.ROOT / "docs" / "augmentation.png"
    variants.draw(found, "none", title, path)


if __name__ == "__main__":
    main()
