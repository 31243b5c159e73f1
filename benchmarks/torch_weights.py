"""The PyTorch contender of weights.py.

python torch_weights.py draw|strict|source LIBRARY MODEL FOLDER

FOLDER has images.npz: pixels [N, H, W, 3], mean and std. `draw` adds weights.pth, saved/
as the library saves, and drawn.npy, the logits. `strict` loads FOLDER/run's export into
the class of LIBRARY, `source` its model.py, and each adds the logits.
"""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

CLASSES, SEEN = 10, 8
_TRANSFORMERS = {
    "resnet18": (
        "ResNet",
        {
            "layer_type": "basic",
            "depths": [2, 2, 2, 2],
            "hidden_sizes": [64, 128, 256, 512],
        },
    ),
    "convnext_tiny": ("ConvNext", {}),
    "mobilenet_v2": ("MobileNetV2", {}),
    "efficientnet_b0": (
        "EfficientNet",
        {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    ),
}


def create(library: str, name: str) -> torch.nn.Module:
    """Create a library's model."""
    if library == "timm":
        import timm

        return timm.create_model(name, num_classes=CLASSES)
    if library == "transformers":
        import transformers

        kind, options = _TRANSFORMERS[name]
        config = getattr(transformers, f"{kind}Config")
        model = getattr(transformers, f"{kind}ForImageClassification")
        return model(config(num_labels=CLASSES, **options))
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES)


def randomise(model: torch.nn.Module, size: int) -> None:
    """Draw every parameter, and running statistics from batches of noise."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, x in model.named_parameters():
            if x.ndim > 1:
                x.normal_(0, (2 / x[0].numel()) ** 0.5)
            elif name.endswith("bias"):
                x.normal_(0, 0.1)
            else:
                x.uniform_(0.5, 1.5)
        for module in model.train().modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean of the batches
        for _ in range(3):
            model(torch.randn(SEEN, 3, size, size))


def compute(model: Callable[[torch.Tensor], object], folder: Path) -> np.ndarray:
    """Compute the logits of the images of a folder."""
    found = np.load(folder / "images.npz")
    scaled = ((found["pixels"] / 255 - found["mean"]) / found["std"]).astype(np.float32)
    with torch.inference_mode():
        logits = model(torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous())
    return getattr(logits, "logits", logits).numpy()


def draw(library: str, name: str, folder: Path) -> None:
    """Draw weights, save them in both ways, and save their logits."""
    model = create(library, name)
    randomise(model, np.load(folder / "images.npz")["pixels"].shape[1])
    saved = folder / "saved"
    saved.mkdir()
    if library == "transformers":
        model.save_pretrained(saved)
    elif library == "timm":
        import timm

        timm.models.save_for_hf(model, saved, safe_serialization=True)
    else:
        safetensors.torch.save_file(model.state_dict(), saved / "model.safetensors")
    torch.save(model.state_dict(), folder / "weights.pth")
    np.save(folder / "drawn.npy", compute(model.eval(), folder))


def load_strictly(library: str, name: str, folder: Path) -> None:
    """Load an export into a library's class, and save its logits."""
    model, file = create(library, name), folder / "run/model.safetensors"
    model.load_state_dict(safetensors.torch.load_file(file), strict=True)
    np.save(folder / "strict.npy", compute(model.eval(), folder))


def load_source(library: str, name: str, folder: Path) -> None:
    """Load an export's model.py, and save its logits."""
    run = folder / "run"
    model = runpy.run_path(str(run / "model.py"))["load"](run / "model.safetensors")
    np.save(folder / "source.npy", compute(model, folder))


MODES = {"draw": draw, "strict": load_strictly, "source": load_source}

if __name__ == "__main__":
    MODES[sys.argv[1]](*sys.argv[2:4], Path(sys.argv[4]))
