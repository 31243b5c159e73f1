from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from cnn import keys
from cnn.augment import colour

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "augmentations.npz")
IMAGES = GOLDEN["images"]
VALUES = {"brightness": 1.4, "contrast": 0.6, "saturation": 1.7, "hue": 0.2}
VALUES |= {"gamma": 1.5, "sharpness": 1.8}
IDENTITIES = {
    "brightness": lambda x: colour.adjust_brightness(x, 1.0),
    "contrast": lambda x: colour.adjust_contrast(x, 1.0),
    "saturation": lambda x: colour.adjust_saturation(x, 1.0),
    "hue": lambda x: colour.adjust_hue(x, 0.0),
    "gamma": lambda x: colour.adjust_gamma(x, 1.0),
    "sharpness": lambda x: colour.adjust_sharpness(x, 1.0),
    "posterize": lambda x: colour.posterize(x, 8),
    "solarize": lambda x: colour.solarize(x, 256),
    "invert": lambda x: colour.invert(colour.invert(x)),
    "blur": lambda x: colour.blur(x, 0.0),
    "noise": lambda x: colour.add_noise(make_keys(len(x)), x, 0.0),
    "channels": lambda x: colour.shift_channels(make_keys(len(x)), x, 0.0),
    "lighting": lambda x: colour.light(make_keys(len(x)), x, 0.0),
}
STRONG = {
    "brightness": lambda x: colour.adjust_brightness(x, 3.0),
    "contrast": lambda x: colour.adjust_contrast(x, 3.0),
    "saturation": lambda x: colour.adjust_saturation(x, 3.0),
    "hue": lambda x: colour.adjust_hue(x, -0.4),
    "gamma": lambda x: colour.adjust_gamma(x, 0.3),
    "sharpness": lambda x: colour.adjust_sharpness(x, 5.0),
    "posterize": lambda x: colour.posterize(x, 1),
    "solarize": lambda x: colour.solarize(x, 0),
    "invert": colour.invert,
    "autocontrast": colour.autocontrast,
    "equalize": colour.equalize,
    "blur": lambda x: colour.blur(x, 2.0),
    "noise": lambda x: colour.add_noise(make_keys(len(x)), x, 0.5),
    "channels": lambda x: colour.shift_channels(make_keys(len(x)), x, 0.5),
    "lighting": lambda x: colour.light(make_keys(len(x)), x, 0.5),
}


def make_keys(count):
    return keys.example_keys(0, 0, jnp.arange(count), "colour")


def apply_pillow(function, images=IMAGES):
    return np.stack([np.asarray(function(Image.fromarray(image))) for image in images])


@pytest.mark.parametrize("name", VALUES)
def test_adjustments_equal_torchvision(name):
    found = getattr(colour, f"adjust_{name}")(IMAGES, VALUES[name])
    difference = np.abs(np.float32(found) - GOLDEN[name])
    assert difference.mean() <= 1 and difference.max() <= 2
    own = getattr(colour, f"adjust_{name}")(IMAGES, np.float32([1.0, VALUES[name]]))
    np.testing.assert_array_equal(own[1], found[1])


@pytest.mark.parametrize(
    "function, pillow",
    [
        (colour.invert, ImageOps.invert),
        (colour.equalize, ImageOps.equalize),
        (lambda x: colour.posterize(x, 3), lambda x: ImageOps.posterize(x, 3)),
        (lambda x: colour.solarize(x, 100), lambda x: ImageOps.solarize(x, 100)),
    ],
)
def test_integer_operations_equal_pillow(function, pillow):
    few = np.random.default_rng(0).integers(0, 9, (2, 20, 20, 3), dtype=np.uint8) * 25
    for images in (IMAGES, few, IMAGES[:, :1, :1]):
        np.testing.assert_array_equal(function(images), apply_pillow(pillow, images))


def test_autocontrast_stretches():
    found = np.asarray(colour.autocontrast(IMAGES))
    low = IMAGES.min(axis=(1, 2), keepdims=True).astype(int)
    high = IMAGES.max(axis=(1, 2), keepdims=True).astype(int)
    np.testing.assert_array_equal(found, (IMAGES - low) * 255 // (high - low))
    pillow = apply_pillow(ImageOps.autocontrast)
    assert np.abs(np.float32(found) - pillow).max() <= 1
    assert np.mean(found != pillow) < 0.02


def test_sharpness_keeps_pillows_edge():
    found = colour.adjust_sharpness(IMAGES, 0.0)
    expected = apply_pillow(lambda image: ImageEnhance.Sharpness(image).enhance(0.0))
    assert np.abs(np.float32(found) - expected).max() <= 1
    np.testing.assert_array_equal(found[:, 0], IMAGES[:, 0])


def test_blur_equals_scipy():
    images = np.random.default_rng(0).random((2, 9, 11, 3), np.float32)
    found = colour.blur(images, np.float32([1.2, 0.5]), 9)
    for image, out, sigma in zip(images, found, (1.2, 0.5), strict=True):
        expected = ndimage.gaussian_filter(
            image, sigma, mode="nearest", radius=4, axes=(0, 1)
        )
        np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", IDENTITIES)
def test_strength_zero_changes_nothing(name, dtype):
    images = IMAGES if dtype == np.uint8 else IMAGES.astype(dtype) / 255
    found = IDENTITIES[name](images)
    assert found.dtype == dtype
    tolerance = 0 if dtype == np.uint8 else 1e-6
    np.testing.assert_allclose(np.float32(found), np.float32(images), atol=tolerance)


@pytest.mark.parametrize("name", STRONG)
def test_range_is_kept_and_nothing_is_nan(name):
    black = np.zeros((2, 4, 5, 3), np.uint8)
    for images in (IMAGES, black, black + 255, IMAGES[:, :1, :1]):
        found = np.asarray(STRONG[name](images))
        assert found.dtype == np.uint8 and found.shape == images.shape
        floats = np.float32(images) / 255
        found = np.asarray(STRONG[name](floats))
        assert found.dtype == np.float32
        assert found.min() >= 0 and found.max() <= 1
    # Under 255 pixels nothing is equalized.
    images = np.tile(IMAGES, (1, 2, 1, 1))
    changed = STRONG[name](images)
    assert np.abs(np.float32(changed) - images).max() > 1
    jitted = jax.jit(STRONG[name])(images)
    assert np.abs(np.float32(jitted) - np.float32(changed)).max() <= 1


@pytest.mark.parametrize("name", sorted(set(STRONG) - {"posterize", "equalize"}))
def test_gradients_are_finite(name):
    images = np.float32(IMAGES[:, :4, :4]) / 255
    images[0] = 0.0
    gradient = jax.grad(lambda x: STRONG[name](x).sum())(images)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_noise_has_its_deviation_and_lighting_its_direction():
    grey = np.full((500, 4, 5, 3), 0.5, np.float32)
    key = make_keys(500)
    noise = np.asarray(colour.add_noise(key, grey, 0.1)) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert len(np.unique(noise[:, 0, 0, 0])) == 500
    lit = np.asarray(colour.light(key, grey, 0.1))[:, 0, 0] - 0.5
    directions = np.array(colour.PCA_DIRECTIONS)
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=2e-3)
    spread = (lit @ directions.T).std(axis=0)
    np.testing.assert_allclose(spread, 0.1 * np.array(colour.PCA_WEIGHTS), rtol=0.1)
    moved = np.asarray(colour.shift_channels(key, grey, 0.2))[:, 0, 0] - 0.5
    assert np.abs(moved).max() <= 0.2 and np.abs(moved).max() > 0.19
    assert abs(np.corrcoef(moved[:, 0], moved[:, 1])[0, 1]) < 0.2


def test_levels_are_rounded_to_nearest_with_ties_to_even():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    for factor in [0.5, 1.5, *np.linspace(-3, 11, 57)]:
        found = colour.adjust_brightness(jnp.asarray(levels), float(factor))
        scaled = levels.astype(np.float32) * np.float32(1 / 255)
        scaled = scaled * np.float32(factor) * np.float32(255)
        expected = np.clip(np.rint(scaled), 0, 255)
        np.testing.assert_array_equal(found, expected, err_msg=str(factor))


def test_solarize_takes_the_threshold_itself():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    for threshold in (0, 1, 127.5, 128, 255, 256):
        found = colour.solarize(jnp.asarray(levels), threshold)
        expected = np.where(levels >= threshold, 255 - levels, levels)
        np.testing.assert_array_equal(found, expected)
        found = colour.solarize(jnp.asarray(levels / np.float32(255)), threshold)
        np.testing.assert_allclose(found, expected / np.float32(255), atol=1e-6)
