"""Load what we export into torchvision's classes, strictly, and compare logits.

    python benchmarks/torch_export.py --torch_python=PYTHON

PYTHON has PyTorch and torchvision. Prints, for one model of every family, the largest
difference of the logits over the largest logit.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/golden")]
MODELS = ["alexnet", "vgg11", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d"]
MODELS += ["wide_resnet50_2", "densenet121", "squeezenet1_1", "mobilenet_v2"]
MODELS += ["efficientnet_b0", "convnext_tiny"]


def write(directory):
    """Write our state dict and our logits of every model."""
    import jax
    import numpy as np

    from cnn.weights import exchange, safetensors_file
    from tests.golden import ours

    for name in MODELS:
        model, variables, _ = ours.create(name)
        arrays = exchange.export_state_dict(name, variables, 7)
        safetensors_file.save_safetensors(directory / f"{name}.safetensors", arrays)
        images = ours.make_batch("export", 2, 224)
        logits = jax.jit(lambda v, x, model=model: model.apply(v, x))(variables, images)
        np.save(directory / f"{name}.npy", logits)


def check(directory):
    """Load them under PyTorch and compare."""
    import hashed
    import numpy as np
    import safetensors.torch
    import torch
    import torch_models

    worst = 0.0
    for name in MODELS:
        model = torch_models.create(name, hashed.NUM_CLASSES)
        state_dict = safetensors.torch.load_file(directory / f"{name}.safetensors")
        model.load_state_dict(state_dict, strict=True)
        images = torch.from_numpy(hashed.make_images("export", 2, 224))
        with torch.no_grad():
            theirs = model.eval()(images).numpy()
        ours = np.load(directory / f"{name}.npy")
        difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
        worst = max(worst, difference)
        print(f"{name:20} {len(state_dict):4} tensors {difference:.1e}", flush=True)
    print(f"{'worst':20} {worst:.1e}")


def main():
    """Write, then run this file under the other Python."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--torch_python", help="a Python with PyTorch and torchvision")
    chosen.add_argument("--check", type=Path, help="directory to compare, in that one")
    options = parser.parse_args()
    if options.check:
        check(options.check)
        return
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory))
        command = [options.torch_python, __file__, f"--check={directory}"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
