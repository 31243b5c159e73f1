import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import keys
from cnn.augment import crops

PIXELS = np.random.default_rng(3).integers(0, 256, (6, 7, 9, 3), dtype=np.uint8)


def make_keys(count, operation="crop", epoch=0):
    return keys.example_keys(0, epoch, jnp.arange(count), operation)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_crop_equals_numpy(mode, dtype):
    images, padding = PIXELS.astype(dtype), 3
    key = make_keys(6)
    found = crops.crop_padded(key, images, padding, mode)
    top, left = crops.draw_corners(key, (7, 9), (7, 9), padding)
    numpy_mode = "constant" if mode == "zero" else "reflect"
    sides = ((0, 0), (3, 3), (3, 3), (0, 0))
    padded = np.pad(images, sides, mode=numpy_mode)
    for i, (row, column) in enumerate(zip(top + 3, left + 3, strict=True)):
        window = padded[i, row : row + 7, column : column + 9]
        np.testing.assert_array_equal(found[i], window)
    assert found.dtype == dtype and len(np.unique(np.stack([top, left]), axis=1)) > 1


def test_windows_are_flipped_after_the_cut():
    ones = jnp.arange(6)
    top, left = jnp.arange(-2, 4), jnp.arange(6) - 3
    mirrored, upside_down = ones % 2 == 1, ones % 3 == 1
    found = crops.copy_windows(PIXELS, top, left, mirrored, upside_down, (4, 5), fill=9)
    padded = np.pad(PIXELS, ((0, 0), (9, 9), (9, 9), (0, 0)), constant_values=9)
    for i in range(6):
        window = padded[i, 9 + top[i] :][:4, 9 + left[i] :][:, :5]
        window = window[:, ::-1] if mirrored[i] else window
        window = window[::-1] if upside_down[i] else window
        np.testing.assert_array_equal(found[i], window)


def test_flips_equal_numpy_and_obey_their_probability():
    key = make_keys(6, "flip")
    chosen = np.asarray(crops.draw_flips(key, 0.5))
    assert 0 < chosen.sum() < 6
    across = crops.flip_horizontally(key, PIXELS, 0.5)
    down = crops.flip_vertically(key, PIXELS, 0.5)
    for i in range(6):
        mirrored = PIXELS[i, :, ::-1] if chosen[i] else PIXELS[i]
        np.testing.assert_array_equal(across[i], mirrored)
        turned = PIXELS[i, ::-1] if chosen[i] else PIXELS[i]
        np.testing.assert_array_equal(down[i], turned)
    always = crops.flip_horizontally(key, PIXELS, 1.0)
    np.testing.assert_array_equal(always, PIXELS[:, :, ::-1])
    for flip in (crops.flip_horizontally, crops.flip_vertically):
        np.testing.assert_array_equal(flip(key, PIXELS, 0.0), PIXELS)
    np.testing.assert_array_equal(crops.crop_padded(key, PIXELS, 0), PIXELS)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_nothing_or_both_ways_may_be_flipped(dtype):
    images, chosen = PIXELS.astype(dtype), jnp.arange(6) % 2 == 0
    np.testing.assert_array_equal(crops.flip_each(images), images)
    both = crops.flip_each(images, chosen, chosen)
    np.testing.assert_array_equal(both[::2], images[::2, ::-1, ::-1])
    np.testing.assert_array_equal(both[1::2], images[1::2])
    assert both.dtype == dtype


def test_distributions_on_ten_thousand_draws():
    key = make_keys(10_000)
    rate = crops.draw_flips(key, 0.3).mean()
    assert rate == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 10_000))
    top, left = crops.draw_corners(key, (8, 8), (8, 8), 2)
    places, counts = np.unique((top + 2) * 5 + left + 2, return_counts=True)
    assert len(places) == 25
    assert ((counts - 400) ** 2 / 400).sum() < 51.2, "chi-squared, 24 degrees, p 0.001"


def test_alternating_flips_alternate():
    key = make_keys(1000, "alternating_flip")
    flips = [np.asarray(crops.alternate_flips(key, epoch)) for epoch in range(4)]
    np.testing.assert_array_equal(flips[0], flips[2])
    np.testing.assert_array_equal(flips[0], ~flips[1])
    np.testing.assert_array_equal(flips[1], flips[3])
    assert flips[0].mean() == pytest.approx(0.5, abs=0.07)


def test_one_pixel_images():
    image = np.full((2, 1, 1, 1), 7, np.uint8)
    found = crops.crop_padded(make_keys(2), image, 0, "reflect")
    np.testing.assert_array_equal(found, image)
    assert set(np.unique(crops.crop_padded(make_keys(2), image, 3))) <= {0, 7}


def test_result_is_that_of_each_image_alone_and_of_jit():
    key = make_keys(6)
    whole = crops.crop_padded(key, PIXELS, 2, "reflect")
    for i in range(6):
        alone = crops.crop_padded(key[i : i + 1], PIXELS[i : i + 1], 2, "reflect")
        np.testing.assert_array_equal(alone[0], whole[i])
    jitted = jax.jit(crops.crop_padded, static_argnums=3)(key, PIXELS, 2, "reflect")
    np.testing.assert_array_equal(jitted, whole)
