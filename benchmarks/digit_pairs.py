"""Write images of two digits side by side, whose labels are the digits in them.

python benchmarks/digit_pairs.py pairs.npz

Each is two of scikit-learn's digits, 8x16 pixels; training and test images are made of
different digits, those of `--dataset=digits`. x_train uint8 [N, 8, 16], y_train uint8
[N, 10], 1 where a digit is in the image, and so on; class_names are the digits. About a
tenth of the images show one digit twice and have one label.
"""

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from cnn import data


def make_pairs(
    digits: data.Images, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Put digits side by side, every digit equally often on each side.

    Returns:
        uint8 [count, 8, 16] and labels uint8 [count, 10].
    """
    random = np.random.RandomState(seed)
    sides = [random.permutation(count) % len(digits) for _ in range(2)]
    images = [digits.read(side)[..., 0] for side in sides]
    labels = np.zeros((count, 10), np.uint8)
    for side in sides:
        labels[np.arange(count), digits.labels[side]] = 1
    return np.concatenate(images, axis=2), labels


def write(path: str, train: int = 8000, test: int = 2000) -> None:
    """Write the archive, with so many training and test images."""
    digits = data.load_dataset(data.DataOptions())
    arrays = {"class_names": np.array(digits.class_names)}
    for seed, (part, count) in enumerate({"train": train, "test": test}.items()):
        pairs = make_pairs(getattr(digits, part), count, seed)
        arrays |= dict(zip((f"x_{part}", f"y_{part}"), pairs, strict=True))
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("path")
    write(parser.parse_args().path)
