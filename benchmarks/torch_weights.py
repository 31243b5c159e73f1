"""The PyTorch contender of weights.py.

python torch_weights.py draw LIBRARY MODEL FOLDER
python torch_weights.py check LIBRARY MODEL FOLDER

FOLDER has images.npz: pixels [N, H, W, 3], mean and std. `draw` adds weights.pth, the
directory `saved` in the library's way, and drawn.npy, the logits. `check` loads the
export of FOLDER/run into the class of LIBRARY, and its model.py, and adds the logits of
both: strict.npy and model.py.npy.
"""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

CLASSES, SEEN = 10, 8
_BASIC = {"layer_type": "basic", "depths": [2, 2, 2, 2]}
_B0 = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
_Y_400MF = {"groups_width": 8, "hidden_sizes": [48, 104, 208, 440]}
_Y_400MF |= {"layer_type": "y", "depths": [1, 3, 6, 6]}
_X_400MF = {"groups_width": 16, "hidden_sizes": [32, 64, 160, 400]}
_X_400MF |= {"layer_type": "x", "depths": [1, 2, 7, 12]}
_TRANSFORMERS = {
    "resnet18": ("ResNet", _BASIC | {"hidden_sizes": [64, 128, 256, 512]}),
    "resnet50": ("ResNet", {}),
    "convnext_tiny": ("ConvNext", {}),
    "regnet_y_400mf": ("RegNet", _Y_400MF),
    "regnet_x_400mf": ("RegNet", _X_400MF),
    "mobilenet_v2": ("MobileNetV2", {}),
    "efficientnet_b0": ("EfficientNet", _B0),
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
    """Draw every parameter, and running statistics from batches of noise.

    With biases around 0 the depth of random nets amplifies rounding, up to 1e-5 between
    PyTorch's own float32 and float64; these stay at 3e-6.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for name, x in model.named_parameters():
            if x.ndim > 1:
                x.normal_(0, (2 / x[0].numel()) ** 0.5)
            elif name.endswith("bias"):
                x.uniform_(0, 1)
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


def check(library: str, name: str, folder: Path) -> None:
    """Load an export in both ways, and save the logits of each."""
    run = folder / "run"
    file = run / "model.safetensors"
    model = runpy.run_path(str(run / "model.py"))["load"](file)
    np.save(folder / "model.py.npy", compute(model, folder))
    model = create(library, name)
    model.load_state_dict(safetensors.torch.load_file(file), strict=True)
    np.save(folder / "strict.npy", compute(model.eval(), folder))


if __name__ == "__main__":
    {"draw": draw, "check": check}[sys.argv[1]](*sys.argv[2:4], Path(sys.argv[4]))
