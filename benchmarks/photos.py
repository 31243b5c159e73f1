"""JPEG files of photographs, made of the two that scikit-learn comes with."""

import io
from pathlib import Path

import numpy as np


def make_photo(width: int, height: int, seed: int) -> bytes:
    """Cut a part out of a photograph, enlarge it if need be, and add a sensor's noise.

    Args:
        seed: which photograph, which part of it, and the noise.

    Returns:
        A JPEG file of quality 90.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(seed)
    image = Image.fromarray(load_sample_images().images[seed % 2])
    scale = max(1.0, 1.1 * width / image.width, 1.1 * height / image.height)
    size = round(image.width * scale), round(image.height * scale)
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
    top = random.integers(0, size[1] - height + 1)
    left = random.integers(0, size[0] - width + 1)
    pixels = pixels[top : top + height, left : left + width]
    pixels = pixels + random.normal(0, 4, pixels.shape)
    file = io.BytesIO()
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def make_photos(directory: Path, width: int, height: int, count: int) -> None:
    """Write `count` files in two class folders, of 16 different contents."""
    contents = [make_photo(width, height, seed) for seed in range(16)]
    for number in range(count):
        path = directory / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % 16])
