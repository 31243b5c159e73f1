"""Print the table of docs/models.md: counts, and the differences from PyTorch.

    python benchmarks/parity.py [MODEL …]

Without names, every architecture of tests/golden/parity.npz. Training deep nets takes
minutes each on a CPU.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cnn import models  # noqa: E402
from cnn.models import summary  # noqa: E402
from cnn.models.options import ModelOptions  # noqa: E402
from tests.golden import ours  # noqa: E402


def compare(found, wanted):
    """Return the largest difference over the largest number."""
    return np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))


def make_row(name, golden):
    """Make one row: counts with the published classes, differences with 10."""
    shortcut = "project" if name.endswith("_project") else "pad"
    model = name.removesuffix("_project")
    size, channels, classes = models.get_published_input(model)
    options = ModelOptions(model=model, resnet_shortcut=shortcut)
    module = models.create_model(options, classes)
    counts = summary.describe_model(module, (size, size, channels))
    cells = [
        name,
        f"{counts['num_parameters']:,}",
        f"{counts['num_batch_stats']:,}",
        f"{counts['macs'] / 1e9:.3f}",
        f"{compare(ours.compute_logits(name), golden[f'{name}/logits']):.1e}",
    ]
    if f"{name}/losses" in golden:
        losses = golden[f"{name}/losses"]
        difference = np.abs(ours.train(name)["losses"] - losses) / losses
        cells.append(f"{difference.max():.1e}")
    return "| " + " | ".join(cells) + " |"


def main():
    """Print the rows."""
    golden = np.load(ROOT / "tests/golden/parity.npz")
    known = sorted({name.split("/")[0] for name in golden})
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(known))
    names = parser.parse_args().models or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{unknown[0]} is not in parity.npz, which has {', '.join(known)}")
    jax.config.update("jax_compilation_cache_dir", "/tmp/cnn-parity")
    print("| model | parameters | batch statistics | GMACs | logits | 20 losses |")
    print("|---|---|---|---|---|---|")
    for name in names:
        print(make_row(name, golden), flush=True)


if __name__ == "__main__":
    main()
