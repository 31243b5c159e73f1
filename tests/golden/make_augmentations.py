"""Make augmentations.npz with torchvision: python tests/golden/make_augmentations.py

Two colour images of 13 x 17, smooth with some noise, through torchvision.transforms.v2.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode, _auto_augment
from torchvision.transforms.v2 import functional as F

NEAREST, BILINEAR = InterpolationMode.NEAREST, InterpolationMode.BILINEAR
POLICY = {
    "ShearX": 0.3,
    "ShearY": -0.23,
    "TranslateX": 3.7,
    "TranslateY": -2.2,
    "Rotate": 25.0,
    "Brightness": -0.4,
    "Color": 0.5,
    "Contrast": 0.6,
    "Sharpness": 0.7,
    "Posterize": 3,
    "Solarize": 0.6,
    "AutoContrast": 0.0,
    "Equalize": 0.0,
    "Invert": 0.0,
}


def make_images():
    """Return uint8 [2, 3, 13, 17]."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:13, :17]
    waves = [np.sin(x / a + y / b) for a, b in ((3, 5), (4, -3), (-6, 2))]
    smooth = 110 + 80 * np.stack(waves)
    noise = random.normal(0, 12, (2, 3, 13, 17))
    images = np.stack([smooth, 235 - smooth[::-1]]) + noise
    return torch.from_numpy(np.clip(images, 20, 240).astype(np.uint8))


def main():
    """Write the file."""
    images = make_images()
    affine = {"angle": 20.0, "translate": [2, -1], "scale": 0.8, "shear": [15.0, 0.0]}
    policy = _auto_augment.RandAugment()
    golden = {
        "images": images,
        "brightness": F.adjust_brightness(images, 1.4),
        "contrast": F.adjust_contrast(images, 0.6),
        "saturation": F.adjust_saturation(images, 1.7),
        "hue": F.adjust_hue(images, 0.2),
        "gamma": F.adjust_gamma(images, 1.5),
        "sharpness": F.adjust_sharpness(images, 1.8),
        "affine_bilinear": F.affine(
            images.float(), **affine, interpolation=BILINEAR, fill=[30.0] * 3
        ),
        "affine_nearest": F.affine(
            images, **affine, interpolation=NEAREST, fill=[30.0] * 3
        ),
        "resized": F.resized_crop(images, 2, 1, 9, 15, [6, 20], antialias=True),
        "enlarged": F.resized_crop(images, 3, 4, 5, 7, [13, 17], antialias=True),
    }
    for name, value in POLICY.items():
        golden[f"policy_{name}"] = policy._apply_image_or_video_transform(
            images, name, value, interpolation=NEAREST, fill={}
        )
    assert math.isclose(golden["images"].float().mean(), 115, abs_tol=15)
    arrays = {k: v.numpy().transpose(0, 2, 3, 1) for k, v in golden.items()}
    np.savez_compressed(Path(__file__).parent / "augmentations.npz", **arrays)


if __name__ == "__main__":
    main()
