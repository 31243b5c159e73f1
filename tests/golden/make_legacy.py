"""Make legacy.pth with PyTorch: python tests/golden/make_legacy.py

A file in the form of before 1.6: two views of one storage, bfloat16, a whole number.
"""

from pathlib import Path

import torch


def main():
    """Write the file."""
    numbers = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    tensors = {
        "module.a.weight": numbers,
        "module.a.view": numbers.t()[1:],
        "module.b": torch.tensor([1.5, -2], dtype=torch.bfloat16),
        "module.n": torch.tensor(7),
    }
    path = Path(__file__).parent / "legacy.pth"
    saved = {"state_dict": tensors, "epoch": 3}
    torch.save(saved, path, _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
