"""Weights as images."""

import jax
import numpy as np
import pytest

from cnn import config as config_module
from cnn import models
from cnn.models.variables import create_variables
from cnn.visualize.compute import kernels, layers

RANDOM = np.random.default_rng(1)


def list_layers(name, shape=(8, 8, 3), **changes):
    options = config_module.make_config({"model": name} | changes).make_static()
    model = models.create_model(options.model, 5)
    variables = jax.jit(lambda: create_variables(model, 0, shape))()
    return layers.list_layers(model.apply, variables, shape)


@pytest.mark.parametrize(
    "name, of_classes", [("logistic_regression", True), ("mlp", False)]
)
def test_pixel_weights_give_the_logit(name, of_classes):
    """What an image adds up to under a weight image is what the layer computes."""
    found = list_layers(name, mlp_widths=(6,))
    weights = kernels.find_pixel_weights(found, (8, 8, 3))
    assert weights.are_of_classes == of_classes
    image = RANDOM.normal(size=(8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(
        (weights.images * image).sum(axis=(1, 2, 3)),
        image.reshape(-1) @ found[0].kernel,
        rtol=1e-4,
        atol=1e-5,
    )


def test_sliding_weights_are_pixel_weights_of_classes():
    weights = kernels.find_pixel_weights(list_layers("sliding_regression"), (8, 8, 3))
    assert weights.images.shape == (5, 8, 8, 3) and weights.are_of_classes


@pytest.mark.parametrize(
    "name, changes",
    [
        ("simple_cnn", {}),
        ("simple_cnn", {"batch_norm": False}),
        ("simple_cnn", {"kernel_size": 8}),
        ("locally_connected", {}),
    ],
)
def test_other_models_have_no_pixel_weights(name, changes):
    """A layer that others follow gives no class's weights, however large it is."""
    found = list_layers(name, widths=(4,), local_widths=(4,), **changes)
    assert kernels.find_pixel_weights(found, (8, 8, 3)) is None


def make_layer(name, groups=1, inputs=6, after=()):
    kernel = np.ones((3, 3, inputs // groups, 12), np.float32)
    paths = frozenset(f"params/{x}/kernel" for x in after)
    return layers.Layer(f"params/{name}/kernel", kernel, groups, paths)


@pytest.mark.parametrize(
    "groups, after, expected",
    [
        (1, ["first"], (1, "")),
        (2, ["first"], (2, "second")),
        (12, ["first"], (1, "")),  # each channel alone
        (2, ["first", "other"], (1, "")),
    ],
)
def test_columns_are_what_the_next_layer_keeps_apart(groups, after, expected):
    second = make_layer("second", groups, inputs=12, after=after)
    assert kernels.find_columns([make_layer("first", inputs=3), second]) == expected
    assert kernels.find_columns([make_layer("first")]) == (1, "")


def test_kernels_are_sorted_within_their_column():
    images = np.ones((4, 2, 2, 1)) * np.array([1, -3, 2, 4]).reshape(4, 1, 1, 1)
    columns = kernels.sort_columns(images, 2)
    np.testing.assert_array_equal(columns, [[1, 0], [3, 2]])


def test_kernels_are_sorted_by_norm():
    images = np.ones((3, 2, 2, 1)) * np.array([1, -3, 2]).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(kernels.sort_by_size(images), [1, 2, 0])


def test_each_kernel_is_scaled_by_its_own_largest_weight():
    images = np.stack([np.full((2, 2, 1), 0.5), np.zeros((2, 2, 1))])
    images[0, 0, 0] = -2
    scaled = kernels.scale_each(images, kernels.find_negligible(images))
    assert scaled[0].min() == -1 and scaled[0].max() == 0.25
    np.testing.assert_array_equal(scaled[1], 0)


def test_negligible_kernels_are_not_scaled_up():
    images = np.ones((3, 2, 2, 1)) * np.array([1, 0.019, -0.021]).reshape(3, 1, 1, 1)
    is_weak = kernels.find_negligible(images)
    np.testing.assert_array_equal(is_weak, [0, 1, 0])
    scaled = kernels.scale_each(images, is_weak)
    np.testing.assert_array_equal(scaled[:, 0, 0, 0], [1, 0, -1])
    assert not kernels.find_negligible(np.zeros((2, 1, 1, 1))).any()


@pytest.mark.parametrize("pixels", [0, 2])
def test_images_move_to_the_right(pixels):
    images = RANDOM.integers(1, 256, (2, 3, 5, 1), dtype=np.uint8)
    moved = kernels.shift_right(images, pixels)
    np.testing.assert_array_equal(moved[:, :, pixels:], images[:, :, : 5 - pixels])
    np.testing.assert_array_equal(moved[:, :, :pixels], 0)
