"""Make drop_block.npz: python tests/golden/make_drop_block.py, under timm.

Of timm's `drop_block_2d` on maps of several sizes: what it was given, the probability
of a seed that it computed, the seeds that it drew, and what it returned.
"""

from pathlib import Path

import numpy as np
import torch
from timm.layers import drop

# By name: height, width, size of the squares, rate, share of the rate.
CASES = {
    "stage3": (14, 14, 5, 0.4, 0.25),
    "stage4": (7, 7, 3, 0.2, 1.0),
    "paper": (9, 9, 7, 0.3, 1.0),
    "even": (8, 6, 4, 0.2, 1.0),
    "two": (5, 5, 2, 0.4, 1.0),
    "small": (3, 5, 7, 0.5, 1.0),
}


def main():
    """Write the file."""
    drawn = []
    draw = torch.Tensor.bernoulli_

    def note(tensor, gamma):
        seeds = draw(tensor, gamma)
        drawn.append((gamma, seeds.clone()))
        return seeds

    torch.manual_seed(0)
    torch.Tensor.bernoulli_ = note
    found = {}
    for name, (height, width, size, rate, share) in CASES.items():
        x = torch.randn(3, 2, height, width)
        y = drop.drop_block_2d(x, rate, size, share)
        gamma, seeds = drawn.pop()
        found |= {
            f"{name}/case": np.array([height, width, size, rate, share]),
            f"{name}/x": x.numpy().transpose(0, 2, 3, 1),
            f"{name}/gamma": np.float64(gamma),
            f"{name}/seeds": seeds.numpy().transpose(0, 2, 3, 1).astype(bool),
            f"{name}/y": y.numpy().transpose(0, 2, 3, 1),
        }
    np.savez_compressed(Path(__file__).parent / "drop_block.npz", **found)


if __name__ == "__main__":
    main()
