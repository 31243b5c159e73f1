"""MnasNet: inverted residuals found by a search that measures a phone's speed.

It is the paper's B1, without squeeze-and-excitation, in the second version of
torchvision, whose stem and first stage are as wide as the rest.

Source: Tan et al. 2019, https://arxiv.org/abs/1807.11626
"""

from typing import Any

import flax.linen as nn

from cnn.models.family import Family, Pattern
from cnn.models.inverted_residual import (
    InvertedResidualNet,
    list_stages,
    read_width,
    round_channels,
    scale_rows,
)
from cnn.models.layers import Layers
from cnn.models.options import ModelOptions

# (expansion, kernel size, stride of the first block, channels, blocks) of each stage.
ROWS = (
    (1, 3, 1, 16, 1),
    (3, 3, 2, 24, 3),
    (3, 5, 2, 40, 3),
    (6, 5, 2, 80, 3),
    (6, 3, 1, 96, 2),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)

kaiming_uniform = nn.initializers.variance_scaling(1.0, "fan_out", "uniform")


def mnasnet(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create mnasnetW: channels are multiplied by W, but the last convolution's.

    Raises:
        UserError: W is 0.
    """
    width = read_width(options.model)
    stem_width = round_channels(32 * width)
    stages = list_stages(stem_width, scale_rows(ROWS, width), nn.relu)
    # The first has no shortcut, even where its result has its input's shape.
    first = (stages[0][0]._replace(has_shortcut=False),)
    return InvertedResidualNet(
        num_classes,
        options.stem,
        stem_width,
        (first, *stages[1:]),
        1280,
        nn.relu,
        kaiming_uniform,
        Layers.from_options(options, dtype, momentum=0.9997),
    )


FAMILY = Family(
    "MnasNet",
    {
        "mnasnet0_5": mnasnet,
        "mnasnet0_75": mnasnet,
        "mnasnet1_0": mnasnet,
        "mnasnet1_3": mnasnet,
    },
    (Pattern("mnasnetW", r"mnasnet\d+_\d+", ("mnasnet0_35",), mnasnet),),
)
