"""MobileNet v2: inverted residuals with linear bottlenecks.

Source: Sandler et al. 2018, https://arxiv.org/abs/1801.04381
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
from cnn.models.layers import Layers, small_normal
from cnn.models.options import ModelOptions
from cnn.ops.activation import relu6

# (expansion, kernel size, stride of the first block, channels, blocks) of each stage.
ROWS = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 3, 2, 64, 4),
    (6, 3, 1, 96, 3),
    (6, 3, 2, 160, 3),
    (6, 3, 1, 320, 1),
)


def mobilenet_v2(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create MobileNet v2: 3,504,872 parameters with 1000 classes.

    In mobilenet_v2_W channels are multiplied by W; the last convolution has no fewer.

    Raises:
        UserError: W is 0.
    """
    width = read_width(options.model)
    stem_width = round_channels(32 * width)
    return InvertedResidualNet(
        num_classes,
        options.stem,
        stem_width,
        list_stages(stem_width, scale_rows(ROWS, width), relu6),
        round_channels(1280 * max(1.0, width)),
        relu6,
        small_normal,
        Layers.from_options(options, dtype),
    )


FAMILY = Family(
    "MobileNet v2",
    {"mobilenet_v2": mobilenet_v2},
    (
        Pattern(
            "mobilenet_v2_W",
            r"mobilenet_v2_\d+_\d+",
            ("mobilenet_v2_0_5",),
            mobilenet_v2,
        ),
    ),
)
