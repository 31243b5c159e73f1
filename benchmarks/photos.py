"""JPEG files to measure with: of waves and noise, and of two real photographs."""

import io
from pathlib import Path

import numpy as np


def make_waves(width: int, height: int, seed: int) -> bytes:
    """Make a JPEG file of waves and noise, which the seed draws.

    Of 500x375 pixels it has 44 kB, `make_photo` of as many 82 kB.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] * (2 * np.pi / width)
    waves = np.zeros((height, width, 3))
    for frequency in (1, 3, 7, 15):
        a, b = random.uniform(0, 2 * np.pi, (2, 3))
        down = np.sin(frequency * y[..., None] + a)
        waves += down * np.sin(frequency * x[..., None] + b) / frequency
    return _encode(128 + 50 * waves + random.normal(0, 6, waves.shape))


def make_photo(width: int, height: int, seed: int) -> bytes:
    """Make a JPEG file of a part of one of scikit-learn's two photographs.

    It is enlarged if need be, and gets a sensor's noise.

    Args:
        seed: which photograph, which part of it, and the noise.
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
    return _encode(pixels + random.normal(0, 4, pixels.shape))


def make_photos(directory: Path, width: int, height: int, count: int) -> None:
    """Write `count` files in two class folders, of 16 different contents."""
    contents = [make_photo(width, height, seed) for seed in range(16)]
    for number in range(count):
        path = directory / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % 16])


def _encode(pixels: np.ndarray) -> bytes:
    """Write a JPEG file of quality 90."""
    from PIL import Image

    file = io.BytesIO()
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
