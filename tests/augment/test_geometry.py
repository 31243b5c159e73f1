from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cnn import keys
from cnn.augment import geometry, resize

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "augmentations.npz")
IMAGES = GOLDEN["images"]
SHAPES = [(1, 1, 1), (1, 5, 2), (6, 9, 3)]
CALLS = {
    "rotate": lambda key, x, s, **more: geometry.rotate(key, x, 30 * s, **more),
    "shift": lambda key, x, s, **more: geometry.shift(key, x, 0.3 * s, **more),
    "shear": lambda key, x, s, **more: geometry.shear(key, x, 20 * s, **more),
    "scale": lambda key, x, s, **more: geometry.scale(
        key, x, 1 - 0.3 * s, 1 + s, **more
    ),
}


def make_keys(count, operation="affine"):
    return keys.example_keys(0, 0, jnp.arange(count), operation)


def make_images(shape, count=4, dtype=np.uint8):
    random = np.random.default_rng(1)
    if dtype == np.uint8:
        return random.integers(0, 256, (count, *shape), dtype=np.uint8)
    return random.random((count, *shape), dtype=np.float32)


def test_affine_equals_torchvision():
    two = jnp.ones(2)
    matrix = geometry.invert_affine(20.0 * two, 0.8, 15.0 * two, 2.0, -1.0)
    found = geometry.transform(IMAGES.astype(np.float32), matrix, fill=30)
    # torchvision counts what lies outside twice on the edge itself; leave that out.
    inside = geometry.transform(np.ones_like(IMAGES, np.float32), matrix)
    whole = (inside == 0) | (inside > 1 - 1e-6)
    assert 0.7 < whole.mean() < 1 and 0.5 < (inside > 0.5).mean() < 0.9
    difference = np.abs(found - GOLDEN["affine_bilinear"])
    assert difference[np.asarray(whole)].max() < 2e-2
    nearest = geometry.transform(IMAGES, matrix, interpolation="nearest", fill=30)
    np.testing.assert_array_equal(nearest, GOLDEN["affine_nearest"])
    rounded = geometry.transform(IMAGES, matrix, fill=30)
    assert np.abs(np.float32(rounded) - found).max() <= 0.5


@pytest.mark.parametrize("mode, other", [("zero", "constant"), ("reflect", "mirror")])
def test_transform_equals_scipy(mode, other):
    images = make_images((11, 14, 2), dtype=np.float32)
    matrix = geometry.make_matrix(make_keys(4), (11, 14), 40.0, 0.3, 0.6, 1.7, 25.0)
    found = geometry.transform(images, matrix, mode=mode, fill=0.25)
    for image, out, (x, y) in zip(images, found, np.float64(matrix), strict=True):
        linear = np.array([[y[1], y[0]], [x[1], x[0]]])
        middle = np.array([5.0, 6.5])
        offset = middle + (y[2], x[2]) - linear @ middle
        for c in range(2):
            if mode == "reflect":
                expected = ndimage.affine_transform(
                    image[..., c], linear, offset, order=1, mode=other
                )
            else:
                padded = np.pad(image[..., c], 30, constant_values=0.25)
                moved = offset + 30 - linear @ (30, 30)
                expected = ndimage.affine_transform(padded, linear, moved, order=1)
                expected = expected[30:-30, 30:-30]
            np.testing.assert_allclose(out[..., c], expected, atol=2e-5)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_strength_zero_changes_nothing(name, shape, interpolation):
    for dtype in (np.uint8, np.float32):
        images = make_images(shape, dtype=dtype)
        found = CALLS[name](make_keys(4), images, 0.0, interpolation=interpolation)
        np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("name", CALLS)
def test_each_image_has_its_own_draw_whatever_its_batch(name):
    images = np.repeat(make_images((8, 9, 3), 1), 4, axis=0)
    key = make_keys(4)
    whole = np.asarray(CALLS[name](key, images, 1.0))
    assert len({image.tobytes() for image in whole}) == 4
    np.testing.assert_array_equal(CALLS[name](key, images, 1.0), whole)
    back = CALLS[name](key[::-1], images, 1.0)
    np.testing.assert_array_equal(back[::-1], whole)
    alone = CALLS[name](key[2:3], images[2:3], 1.0)
    np.testing.assert_array_equal(alone[0], whole[2])
    jitted = jax.jit(CALLS[name])(key, images, 1.0)
    assert np.abs(np.float32(jitted) - whole).max() <= 1
    assert np.mean(np.asarray(jitted) != whole) < 0.01


def test_draws_are_uniform():
    key = make_keys(10_000)
    matrix = np.asarray(geometry.make_matrix(key, rotation_degrees=90.0))
    angles = np.degrees(np.arctan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    counts = np.histogram(angles, 20, (-90, 90))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 43.8, "chi-squared, 19 degrees, p 0.001"
    shifts = np.asarray(geometry.make_matrix(key, (10, 20), shift=0.5))[:, :, 2]
    for axis, half in ((0, 10.0), (1, 5.0)):
        counts = np.histogram(shifts[:, axis], 20, (-half, half))[0]
        assert ((counts - 500) ** 2 / 500).sum() < 43.8 and counts.sum() == 10_000
    assert abs(np.corrcoef(shifts[:, 0], shifts[:, 1])[0, 1]) < 0.04


def test_composition_is_one_lookup_after_the_other():
    key = make_keys(3)
    one = geometry.make_matrix(key, (6, 6), 30.0, 0.2)
    other = geometry.make_matrix(key, (6, 6), shear_degrees=20.0, scale_min=0.5)
    both = np.asarray(geometry.compose(one, other))
    for a, b, c in zip(np.float64(one), np.float64(other), both, strict=True):
        point = b @ (3.0, -2.0, 1.0)
        np.testing.assert_allclose(c @ (3, -2, 1), a @ (*point, 1), atol=1e-5)


def test_gradients_are_finite_and_weights_sum_to_one():
    images = make_images((7, 7, 1), dtype=np.float32)
    matrix = geometry.make_matrix(make_keys(4), (7, 7), 30.0, 0.1)
    gradient = jax.grad(lambda x: geometry.transform(x, matrix).sum())(images)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0.5
    white = geometry.transform(np.ones_like(images), matrix, fill=1.0)
    np.testing.assert_allclose(white, 1, atol=1e-6)


@pytest.mark.parametrize(
    "name, window, size",
    [("resized", (2, 1, 9, 15), (6, 20)), ("enlarged", (3, 4, 5, 7), (13, 17))],
)
def test_resized_windows_equal_torchvision(name, window, size):
    windows = [np.full(2, side, np.int32) for side in window]
    found = np.float32(resize.resize_windows(IMAGES, windows, size))
    difference = np.abs(found - GOLDEN[name])
    assert difference.max() <= 1 and difference.mean() < 0.2
    mirrored = resize.resize_windows(IMAGES, windows, size, np.array([True, False]))
    np.testing.assert_array_equal(mirrored[0], found[0, :, ::-1])
    np.testing.assert_array_equal(mirrored[1], found[1])


def test_windows_have_the_area_and_aspect_asked_for():
    top, left, height, width = map(
        np.asarray, resize.draw_windows(make_keys(10_000), (40, 50), 0.2, 0.6, 4 / 3)
    )
    assert (top >= 0).all() and (top + height <= 40).all()
    assert (left >= 0).all() and (left + width <= 50).all()
    area, aspect = height * width / 2000, width / height
    assert area.min() > 0.18 and area.max() < 0.63
    assert aspect.min() > 0.68 and aspect.max() < 1.48
    counts = np.histogram(area, 10, (0.2, 0.6))[0]
    assert counts.min() > 800 and counts.max() < 1200
    assert (top == 0).any() and (top + height == 40).any()


def test_impossible_windows_fall_back_to_the_centre():
    windows = resize.draw_windows(make_keys(3), (4, 40), 0.9, 1.0, 1.1)
    np.testing.assert_array_equal(np.stack(windows, 1), [[0, 18, 4, 4]] * 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_windows_change_nothing(shape):
    images = make_images(shape)
    found = resize.random_resized_crop(make_keys(4), images, 1.0, 1.0, 1.0, shape[:2])
    if shape[0] == shape[1]:
        np.testing.assert_array_equal(found, images)
    whole = [np.full(4, side, np.int32) for side in (0, 0, *shape[:2])]
    np.testing.assert_array_equal(
        resize.resize_windows(images, whole, shape[:2]), images
    )
    np.testing.assert_array_equal(resize.soften(images, whole, shape[:2]), images)
    assert resize.soften(images, whole, (1, 1)).shape == images.shape
