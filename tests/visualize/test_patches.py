"""Top patches: the strongest images, where in them, and what of them is cut out."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from cnn.visualize.compute import patches
from cnn.visualize.compute.receptive_field import Field, Reach

RANDOM = np.random.default_rng(2)
KERNEL = RANDOM.normal(size=(3, 3, 1, 4)).astype(np.float32)
IMAGES = RANDOM.normal(size=(6, 7, 5, 1)).astype(np.float32)
ROWS, COLUMNS = Reach(1, 1, 0, 2), Reach(2, 1, 0, 2)


def compute(kernel, images):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=numbers
    )
    x = jax.nn.relu(x)
    return jnp.max(x, axis=(1, 2)), {"b": x * 0, "a": x}


FUNCTION = Partial(compute, KERNEL)


def test_peaks_are_the_greatest_values_and_their_places():
    _, features = FUNCTION(IMAGES)
    values, places = patches.find_peaks(FUNCTION, IMAGES)["a"]
    flat = np.asarray(features["a"]).reshape(6, 15, 4)
    np.testing.assert_allclose(values, flat.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(places, flat.argmax(axis=1))


def test_top_images_come_strongest_first():
    values = np.array([[1.0, 5], [3, 4], [2, 6]])
    np.testing.assert_array_equal(patches.choose_top(values, 2), [[1, 2], [2, 0]])


def test_projection_of_a_value_is_its_kernel_where_it_saw_the_image():
    _, features = FUNCTION(IMAGES)
    x = np.asarray(features["a"])
    n, i, j, c = np.unravel_index(np.argmax(x), x.shape)
    index = np.full(6, (i * 3 + j) * 4 + c, np.int32)
    found = np.asarray(patches.project(FUNCTION, IMAGES, np.zeros(6, np.int32), index))
    expected = np.zeros((7, 5))
    expected[i : i + 3, j : j + 3] = KERNEL[:, :, 0, c]
    np.testing.assert_allclose(found[n, :, :, 0], expected, rtol=1e-5)
    nothing = patches.project(FUNCTION, IMAGES, np.ones(6, np.int32), index)
    np.testing.assert_array_equal(nothing, 0)


def test_a_patch_is_the_receptive_field():
    image = IMAGES[0]
    found = patches.cut_patch(image, Field((ROWS, COLUMNS)), (2, 1))
    np.testing.assert_array_equal(found, image[2:5, 1:4])


def test_what_lies_outside_is_filled():
    field = Field((Reach(1, 2, -1, 1), Reach(2, 2, -1, 1)))
    found = patches.cut_patch(IMAGES[0], field, (0, 2), fill=9)
    assert found.shape == (3, 3, 1)
    np.testing.assert_array_equal(found[0], 9)
    np.testing.assert_array_equal(found[:, 2], 9)
    np.testing.assert_array_equal(found[1:, :2], IMAGES[0][:2, 3:5])


def test_a_field_larger_than_the_image_is_the_image():
    field = Field((Reach(1, 1, -10, 10), None))
    np.testing.assert_array_equal(
        patches.cut_patch(IMAGES[0], field, (0, 0)), IMAGES[0]
    )
