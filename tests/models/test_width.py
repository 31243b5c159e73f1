"""The width of a model: what multiplies the channels of its hidden layers."""

import jax
import pytest

from cnn import models
from cnn.config import make_config
from cnn.errors import UserError
from cnn.models.variables import create_variables, flatten_paths

WIDE = ["simple_cnn", "resnet20", "resnet18", "preact_resnet_11", "wrn_10_2"]


@pytest.mark.parametrize("name", WIDE)
def test_the_width_multiplies_every_hidden_channel(name):
    def count(width):
        options = make_config({"model": name, "width_multiplier": width}).model
        model = models.create_model(options, 7)
        variables = jax.eval_shape(lambda: create_variables(model, 0, (32, 32, 3)))
        return flatten_paths(variables["params"])

    base, wide = count(1.0), count(3.0)
    ends = {"head/kernel", "head/bias"}
    ends |= {"stem/kernel"} if name.startswith("wrn") else set()
    for path, leaf in wide.items():
        is_first = leaf.ndim == 4 and leaf.shape[2] == 3
        if leaf.ndim > 1 and not is_first and "wrn" not in name:
            assert leaf.shape[-2] == 3 * base[path].shape[-2], path
        if path not in ends and not path.startswith("stage1_block1/norm1"):
            assert leaf.shape[-1] == 3 * base[path].shape[-1], path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width_multiplier": 0.3}, "^--width_multiplier=0.3 makes 9.6 of 32 channels"),
        (
            {"model": "resnext29_2x4d", "width_multiplier": 0.125},
            "^--width_multiplier=0.125 makes 0.5 of 4 channels",
        ),
    ],
)
def test_a_width_that_leaves_no_whole_channels_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        models.create_model(make_config(options).model, 10)


def test_the_width_of_simple_cnn_is_that_of_its_widths():
    one = {"widths": (4, 6), "dense_widths": (2,), "width_multiplier": 3.0}
    other = {"widths": (12, 18), "dense_widths": (6,)}
    first, second = (
        models.create_model(make_config(options).model, 10) for options in (one, other)
    )
    assert first == second, "and they share their programs"
