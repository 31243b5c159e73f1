"""The coordinate check: the size of activations over widths, and its picture."""

import numpy as np
import pytest
from PIL import Image

from cnn.config import make_config
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.visualize import visualize
from cnn.visualize.compute import coordinates
from cnn.visualize.draw import coordinate_check


def test_values_keep_over_widths_in_mup_and_grow_in_the_standard_one(tmp_path):
    options = {"optimizer": "adamw", "learning_rate": 0.02, "widths": (8, 16)}
    config = make_config(
        {"dataset": "digits", "train_examples": 200, "pictures": ("coordinate_check",)},
        options | {"head": "global_average", "batch_size": 32},
    )
    found = coordinates.check_coordinates(config, (1.0, 8.0), Terminal())
    assert found.layers == ("stage1_conv", "stage2_conv", "head")
    assert found.sizes["mup"].shape == (coordinates.STEPS + 1, 3, 2)
    mup_slopes = found.fit_slopes("mup", coordinates.STEPS)
    standard = found.fit_slopes("standard", coordinates.STEPS)
    assert all(
        abs(mup_slopes[layer]) < 0.15 for layer in ("stage1_conv", "stage2_conv")
    )
    assert mup_slopes["head"] < 0.15
    assert standard["stage2_conv"] > 0.4
    same = found.sizes["standard"][..., 0] - found.sizes["mup"][..., 0]
    assert not np.any(same), "at the base width they are one"
    drawn = coordinate_check.draw(found, tmp_path / "x.png")
    with Image.open(drawn.path) as image:
        assert image.width > 600
    for width, column in zip(found.widths, found.sizes["mup"].T, strict=True):
        assert np.isfinite(column).all(), width


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "mlp"}, "is for models that --width_multiplier .* --model=mlp has"),
        ({"coordinate_widths": (2.0,)}, "^--coordinate_widths: give two widths"),
    ],
)
def test_a_coordinate_check_needs_widths(options, message):
    config = make_config({"dataset": "digits"}, options)
    with pytest.raises(UserError, match=message):
        coordinates.check_coordinates(
            config, config.visualize.coordinate_widths, Terminal()
        )


def test_a_coordinate_check_is_of_a_run_before_it_is_trained(tmp_path):
    config = make_config({"pictures": ("coordinate_check",)})
    visualize.check_described(config.visualize.pictures)
    with pytest.raises(UserError, match="with --mode=describe"):
        visualize.visualize(config, [tmp_path], Terminal())
