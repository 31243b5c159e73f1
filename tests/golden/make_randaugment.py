"""Make randaugment.json with timm: python tests/golden/make_randaugment.py

Of `rand-mM-inc1` the operations in their order, and the argument of each at some
magnitudes, where it has one; of those with a random sign the positive one.
"""

import json
import random
from pathlib import Path

from timm.data import auto_augment

MAGNITUDES = (0.0, 2.6, 6.0, 7.3, 10.0)


def find_argument(name, magnitude):
    """Return an operation's argument; the larger of both signs."""
    level = auto_augment.LEVEL_TO_ARG[name]
    if level is None:
        return None
    return max(level(magnitude, {})[0] for _ in range(20))


def main():
    """Write the file."""
    random.seed(0)
    names = auto_augment.rand_augment_choices("", increasing=True)
    found = {
        name: {str(m): find_argument(name, m) for m in MAGNITUDES} for name in names
    }
    path = Path(__file__).parent / "randaugment.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
