"""The names that Big Transfer gives its arrays, as its authors' code reads them."""

import jax
import numpy as np
import pytest

from cnn import models
from cnn.config import make_config
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables, flatten_paths
from cnn.weights import big_transfer, exchange, names
from cnn.weights.flax_names import is_flax, name_by_collections
from cnn.weights.leaf import wrap

MODEL = "bit_r50x1"
NAMED = {
    "root_block/standardized_conv2d/kernel": "stem/kernel",
    "block1/unit01/a/group_norm/gamma": "stage1_block1/norm1/scale",
    "block1/unit01/a/proj/standardized_conv2d/kernel": (
        "stage1_block1/shortcut_conv/kernel"
    ),
    "block3/unit06/b/standardized_conv2d/kernel": "stage3_block6/conv2/kernel",
    "block4/unit03/c/group_norm/beta": "stage4_block3/norm3/bias",
    "group_norm/gamma": "norm/scale",
    "group_norm/beta": "norm/bias",
    "head/conv2d/bias": "head/bias",
    "head/conv2d/kernel": "head/kernel",
}


@pytest.fixture(scope="module")
def shapes():
    model = models.create_model(ModelOptions(model=MODEL), 5)
    return jax.eval_shape(lambda: create_variables(model, 0, (32, 32, 3)))


def make_leaves(shapes):
    """Make what a file holds: its arrays, each of one number, and the numbers."""
    flat = flatten_paths(shapes)
    theirs = names.list_paths(big_transfer.spell_bit(flat), flat)
    leaves = {}
    for number, (name, path) in enumerate(theirs.items()):
        shape = flat[path].shape
        if path == "params/head/kernel":
            shape = (1, 1, *shape)
        name = name.removeprefix("params/")
        leaves[name] = np.broadcast_to(np.float32(number), shape)
    return leaves


def read(shapes, leaves):
    assert is_flax(leaves)
    found = {n: wrap(x) for n, x in name_by_collections(leaves).items()}
    found, spelling = exchange.name_leaves(MODEL, flatten_paths(shapes), found)
    assert spelling.library == "Big Transfer"
    assert exchange.count_outputs(found) == 5
    return exchange.import_leaves(MODEL, shapes, found, "BiT.npz")


def test_every_array_is_taken_by_its_name(shapes):
    leaves = make_leaves(shapes)
    found = flatten_paths(read(shapes, leaves)["params"])
    assert len(found) == len(leaves) == len(flatten_paths(shapes))
    for theirs, ours in NAMED.items():
        np.testing.assert_array_equal(
            found[ours], leaves[f"resnet/{theirs}"].reshape(found[ours].shape)
        )


def test_units_have_two_digits():
    paths = [f"params/stage3_block{number}/conv1/kernel" for number in (9, 36)]
    spelling = big_transfer.spell_bit(paths)
    found = names.list_paths(spelling, paths)
    place = "params/resnet/block3/unit{}/a/standardized_conv2d/kernel"
    assert list(found) == [place.format("09"), place.format("36")]


def test_an_array_that_is_missing_is_named(shapes):
    leaves = make_leaves(shapes)
    del leaves["resnet/block2/unit01/a/proj/standardized_conv2d/kernel"]
    with pytest.raises(UserError, match="missing: params/stage2_block1/shortcut_conv"):
        read(shapes, leaves)


def test_pixels_are_scaled_as_it_was_trained_with():
    for channels in (1, 3):
        config = make_config({"model": MODEL})
        found = exchange.choose_scaling(config.data, config.model, channels)
        assert found == ((0.5,) * channels, (0.5,) * channels)
