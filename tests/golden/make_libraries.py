"""Make libraries.npz: python tests/golden/make_libraries.py, under timm, transformers.

For one model of each family that these libraries have too, from hashed weights
(`hashed.py`) under the library's own names: logits of two images of 64x64 pixels in
evaluation mode, by `library/our name`.
"""

from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from hashed import EVAL_IMAGES, NUM_CLASSES, make_images, make_state_dict

SIZE = 64
TIMM = {
    "resnet18": "resnet18",
    "resnext50_32x4d": "resnext50_32x4d",
    "wide_resnet50_2": "wide_resnet50_2",
    "vgg11_bn": "vgg11_bn",
    "densenet121": "densenet121",
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_b0": "efficientnet_b0",
    "convnext_tiny": "convnext_tiny",
    "regnet_y_400mf": "regnety_004",
    "regnet_x_400mf": "regnetx_004_tv",
}


def create_transformers():
    """Create transformers' models, by our names."""
    t = transformers
    basic = {
        "layer_type": "basic",
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
    }
    b0 = {
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 1280,
        "image_size": 224,
    }
    y_400mf = {
        "hidden_sizes": [48, 104, 208, 440],
        "depths": [1, 3, 6, 6],
        "groups_width": 8,
    }
    found = {
        "resnet18": (t.ResNetForImageClassification, t.ResNetConfig, basic),
        "resnet50": (t.ResNetForImageClassification, t.ResNetConfig, {}),
        "convnext_tiny": (t.ConvNextForImageClassification, t.ConvNextConfig, {}),
        "regnet_y_400mf": (t.RegNetForImageClassification, t.RegNetConfig, y_400mf),
        "mobilenet_v2": (
            t.MobileNetV2ForImageClassification,
            t.MobileNetV2Config,
            {},
        ),
        "efficientnet_b0": (
            t.EfficientNetForImageClassification,
            t.EfficientNetConfig,
            b0,
        ),
    }
    return {
        name: model(config(num_labels=NUM_CLASSES, **options))
        for name, (model, config, options) in found.items()
    }


def compute(model):
    """Compute a model's logits from hashed weights."""
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    tensors = make_state_dict(shapes)
    model.load_state_dict({key: torch.from_numpy(x) for key, x in tensors.items()})
    images = torch.from_numpy(make_images("eval", EVAL_IMAGES, SIZE))
    with torch.no_grad():
        found = model.eval()(images)
    return getattr(found, "logits", found).numpy()


def main():
    """Write the file."""
    found = {}
    for name, theirs in TIMM.items():
        model = timm.create_model(theirs, num_classes=NUM_CLASSES)
        found[f"timm/{name}"] = compute(model)
    for name, model in create_transformers().items():
        found[f"transformers/{name}"] = compute(model)
    for name, logits in found.items():
        print(name, np.abs(logits).max())
    np.savez_compressed(Path(__file__).parent / "libraries.npz", **found)


if __name__ == "__main__":
    main()
