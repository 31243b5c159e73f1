"""Print the table of docs/models.md: counts, and how far from PyTorch we are.

python benchmarks/parity.py [MODEL …]; every architecture of tests/golden/parity.npz
without arguments. Training deep nets takes minutes each on a CPU.
"""

import sys
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cnn import describe, models  # noqa: E402
from cnn.models import ModelOptions  # noqa: E402
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
    counts = describe.describe_model(module, (size, size, channels))
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
    jax.config.update("jax_compilation_cache_dir", "/tmp/cnn-parity")
    names = sys.argv[1:] or sorted({name.split("/")[0] for name in golden})
    print("| model | parameters | batch statistics | GMACs | logits | 20 losses |")
    print("|---|---|---|---|---|---|")
    for name in names:
        print(make_row(name, golden), flush=True)


if __name__ == "__main__":
    main()
