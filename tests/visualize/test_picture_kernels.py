"""Weights as images."""

import jax
import numpy as np
import pytest

from cnn import config as config_module
from cnn import models
from cnn.models.variables import create_variables
from cnn.visualize.compute import kernels

RANDOM = np.random.default_rng(1)


def create(name, shape=(8, 8, 3), **changes):
    options = config_module.make_config({"model": name} | changes).make_static()
    model = models.create_model(options.model, 5)
    return model, jax.jit(lambda: create_variables(model, 0, shape))()


def test_kernels_come_in_the_order_of_execution():
    model, variables = create("resnet20", (8, 8, 3))
    found = kernels.list_kernels(model, variables, (8, 8, 3))
    assert list(found)[:3] == ["stem", "stage1_block1/conv1", "stage1_block1/conv2"]
    assert len(found) == 19
    expected = variables["params"]["stage3_block3"]["conv2"]["kernel"]
    np.testing.assert_array_equal(found["stage3_block3/conv2"], expected)


def test_a_model_without_convolutions_has_no_kernels():
    model, variables = create("mlp", mlp_widths=(6,))
    assert kernels.list_kernels(model, variables, (8, 8, 3)) == {}


@pytest.mark.parametrize(
    "name, layer", [("logistic_regression", "head"), ("mlp", "dense1")]
)
def test_pixel_weights_give_the_logit(name, layer):
    """What an image adds up to under a weight image is what the layer computes."""
    _, variables = create(name, mlp_widths=(6,))
    params = variables["params"]
    found = kernels.find_pixel_weights(params, (8, 8, 3))
    assert list(found) == [layer]
    image = RANDOM.normal(size=(8, 8, 3)).astype(np.float32)
    expected = image.reshape(-1) @ np.asarray(params[layer]["kernel"])
    np.testing.assert_allclose(
        (found[layer] * image).sum(axis=(1, 2, 3)), expected, rtol=1e-4, atol=1e-5
    )


def test_sliding_weights_are_pixel_weights():
    _, variables = create("sliding_regression")
    found = kernels.find_pixel_weights(variables["params"], (8, 8, 3))
    assert found["kernel"].shape == (5, 8, 8, 3)


@pytest.mark.parametrize("name", ["simple_cnn", "locally_connected"])
def test_other_models_have_no_pixel_weights(name):
    _, variables = create(name, widths=(4,), local_widths=(4,))
    assert kernels.find_pixel_weights(variables["params"], (8, 8, 3)) == {}


def test_kernels_are_sorted_by_norm():
    images = np.ones((3, 2, 2, 1)) * np.array([1, -3, 2]).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(kernels.sort_by_size(images), [1, 2, 0])


def test_each_kernel_is_scaled_by_its_own_largest_weight():
    images = np.stack([np.full((2, 2, 1), 0.5), np.zeros((2, 2, 1))])
    images[0, 0, 0] = -2
    scaled = kernels.scale_each(images)
    assert scaled[0].min() == -1 and scaled[0].max() == 0.25
    np.testing.assert_array_equal(scaled[1], 0)


def test_negligible_kernels_are_not_scaled_up():
    images = np.ones((3, 2, 2, 1)) * np.array([1, 0.019, -0.021]).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(kernels.find_negligible(images), [0, 1, 0])
    np.testing.assert_array_equal(kernels.scale_each(images)[:, 0, 0, 0], [1, 0, -1])
    assert not kernels.find_negligible(np.zeros((2, 1, 1, 1))).any()


@pytest.mark.parametrize("pixels", [0, 2])
def test_images_move_to_the_right(pixels):
    images = RANDOM.integers(1, 256, (2, 3, 5, 1), dtype=np.uint8)
    moved = kernels.shift_right(images, pixels)
    np.testing.assert_array_equal(moved[:, :, pixels:], images[:, :, : 5 - pixels])
    np.testing.assert_array_equal(moved[:, :, :pixels], 0)
