"""Test accuracy of a short recipe here and in PyTorch, by seed.

    python benchmarks/recipe.py --torch_python=PYTHON --data_dir=DIR [--seeds=2]

ResNet-18 with the stem for small images on tfds:cifar10_jpeg, otherwise as the preset
cifar10_resnet20: batches of 128, SGD with momentum 0.9, weight decay 5e-4, a learning
rate that rises to 0.05 in one epoch and falls by a cosine to 0, mirroring and crops
from 4 reflected pixels. The
first `--examples` of the training set and the first `--test_examples` of the test set
are used. `torch_recipe.py` has the same in PyTorch, with torchvision's ResNet-18.
Prints each accuracy as it is there, then the table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import flags
import numpy as np
import tensorflow_datasets as tfds

DATASET = "cifar10_jpeg"
BATCH, RATE, DECAY = 128, 0.05, 5e-4
MEAN, STD = (0.491373, 0.482353, 0.446667), (0.247059, 0.243529, 0.261569)


def save_images(path: Path, options: argparse.Namespace) -> None:
    """Save the images that both see."""
    arrays = {}
    for part, count in (("train", options.examples), ("test", options.test_examples)):
        source = tfds.data_source(
            DATASET, split=f"{part}[:{count}]", data_dir=options.data_dir
        )
        rows = [source[i] for i in range(len(source))]
        arrays[f"x_{part}"] = np.stack([row["image"] for row in rows])
        arrays[f"y_{part}"] = np.array([row["label"] for row in rows])
    np.savez(path, **arrays)


def train_here(images: Path, seed: int, epochs: int) -> float:
    """Return our test accuracy."""
    command = [sys.executable, "main.py", "--config=cifar10_resnet20"]
    command += [f"--dataset=npz:{images}", "--model=resnet18", "--stem=cifar"]
    command += [f"--seed={seed}", f"--epochs={epochs}", f"--learning_rate={RATE}"]
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([*command, f"--workdir={directory}"], check=True, cwd=flags.ROOT)
        result = json.loads((Path(directory) / "result.json").read_text())
    return result["test_accuracy"]


def train_there(python: str, images: Path, seed: int, epochs: int) -> float:
    """Return PyTorch's test accuracy."""
    script = Path(__file__).with_name("torch_recipe.py")
    settings = {"seed": seed, "epochs": epochs, "batch": BATCH, "rate": RATE}
    settings |= {"decay": DECAY, "mean": MEAN, "std": STD}
    command = [python, str(script), str(images), json.dumps(settings)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python", type=flags.python_with_torch, required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--seeds", type=flags.positive, default=2)
    parser.add_argument("--epochs", type=flags.positive, default=3)
    parser.add_argument("--examples", type=flags.positive, default=50_000)
    parser.add_argument("--test_examples", type=flags.positive, default=10_000)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"ours": [], "PyTorch": []}
    with tempfile.TemporaryDirectory() as directory:
        images = Path(directory) / "images.npz"
        save_images(images, options)
        for seed in range(options.seeds):
            epochs, python = options.epochs, options.torch_python
            found["ours"].append(train_here(images, seed, epochs))
            found["PyTorch"].append(train_there(python, images, seed, epochs))
            flags.report(f"seed {seed}: {found}")
    print("| by | accuracy, % | mean |\n|---|---|---|")
    for name, values in found.items():
        each = ", ".join(f"{100 * x:.2f}" for x in values)
        print(f"| {name} | {each} | {100 * statistics.mean(values):.2f} |")


if __name__ == "__main__":
    flags.run(main)
