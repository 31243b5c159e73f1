"""Which changes of an image leave the prediction alone? Train four models and draw it.

    python benchmarks/invariance.py --data_dir=DIR [-- any flag of main.py …]

Trains logistic_regression, mlp, simple_cnn, and simple_cnn with augmentation, on digits
and on tfds:cifar10_jpeg of --data_dir (left out without it), draws the accuracy of each
under changes of the test images into `FIGURES/invariance_NAME.png` and prints a table.
What was trained lies in --runs and is not trained again; `--epochs=1
--train_examples=500 --images=50` tries it out.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODELS = {
    "logistic_regression": ["--model=logistic_regression"],
    "mlp": ["--model=mlp"],
    "simple_cnn": ["--model=simple_cnn"],
    "simple_cnn, augmented": [
        "--model=simple_cnn",
        "--rotation_degrees=20",
        "--scale_min=0.8",
        "--scale_max=1.25",
        "--shear_degrees=15",
        "--brightness=0.4",
        "--noise_std=0.05",
    ],
}
# What augmentation shifts by depends on the size of the images.
SETS = {
    "digits": {"flags": ["--epochs=40"], "augmented": ["--crop_padding=2"]},
    "cifar10_jpeg": {
        "flags": ["--dataset=tfds:cifar10_jpeg", "--batch_size=128", "--epochs=5"],
        "augmented": ["--crop_padding=4", "--flip_probability=0.5", "--hue=0.1"],
    },
}
SHOWN = {"shift": (0, 1, 2, 4), "rotation": (15, 30)}


def call(*flags: str) -> None:
    """Call main.py with flags."""
    subprocess.run(
        [sys.executable, "main.py", *flags],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def measure(name: str, options: argparse.Namespace, flags: list[str]) -> dict:
    """Train the models on one set, draw the figure and return `invariance.json`."""
    chosen, directories = SETS[name], []
    flags = [*chosen["flags"], *flags]
    if name != "digits":
        flags.append(f"--data_dir={options.data_dir}")
    for model, changes in MODELS.items():
        if model.endswith("augmented"):
            changes = [*changes, *chosen["augmented"]]
        directory = (options.runs / name / model).absolute()
        call(f"--workdir={directory}", *flags, *changes)
        directories.append(str(directory))
    output = (options.runs / name / "compared").absolute()
    call(
        "--mode=visualize",
        "--pictures=invariance",
        f"--workdir={','.join(directories)}",
        f"--output={output}",
        f"--invariance_images={options.images}",
    )
    options.figures.mkdir(parents=True, exist_ok=True)
    figure = options.figures / f"invariance_{name}.png"
    shutil.copy(output / "pictures" / "invariance_accuracy.png", figure)
    print(f"written to {figure}", flush=True)
    return json.loads((output / "invariance.json").read_text())


def print_table(name: str, found: dict) -> None:
    """Print the accuracy of each model under some of the changes."""
    heads = [f"{change} {x}" for change, values in SHOWN.items() for x in values]
    print(f"\n{name}, {found['images']} test images, accuracy in %\n")
    print(f"| model | {' | '.join(heads)} |\n|---|" + "---|" * len(heads))
    for model, changes in found["runs"].items():
        cells = [
            f"{100 * changes[c]['accuracy'][changes[c]['strength'].index(x)]:.1f}"
            for c, values in SHOWN.items()
            for x in values
        ]
        print(f"| {model} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure every set and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", default="", help="of cifar10_jpeg")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "invariance")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs")
    parser.add_argument("--images", type=int, default=2000, help="test images changed")
    options, flags = parser.parse_known_args()
    flags = [flag for flag in flags if flag != "--"]
    for name in SETS if options.data_dir else ["digits"]:
        print_table(name, measure(name, options, flags))


if __name__ == "__main__":
    main()
