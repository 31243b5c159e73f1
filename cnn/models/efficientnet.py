"""EfficientNet: inverted residuals that rescale channels, at eight sizes.

Width, depth and the image grow together from B0 to B7.

Source: Tan and Le 2019, https://arxiv.org/abs/1905.11946
"""

from typing import Any

import flax.linen as nn

from cnn.models.family import Family
from cnn.models.inverted_residual import (
    InvertedResidualNet,
    list_stages,
    round_channels,
    scale_rows,
)
from cnn.models.layers import Creator, Layers
from cnn.models.options import ModelOptions

# (expansion, kernel size, stride of the first block, channels, blocks) of each stage.
ROWS = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)

fan_out_uniform = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")


def make_efficientnet(
    width: float, depth: float, epsilon: float = 1e-5, momentum: float = 0.9
) -> Creator:
    """Make the function that creates one member of the family.

    Args:
        width: what B0's channels are multiplied by.
        depth: what the blocks of its stages are multiplied by.
        epsilon: of batch normalisation; B5 to B7 of torchvision have TensorFlow's.
        momentum: of its running statistics.
    """

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        stem_width, rows = round_channels(32 * width), scale_rows(ROWS, width, depth)
        return InvertedResidualNet(
            num_classes,
            options.stem,
            stem_width,
            list_stages(stem_width, rows, nn.silu, "excite"),
            4 * rows[-1][3],
            nn.silu,
            fan_out_uniform,
            Layers.from_options(options, dtype, epsilon, momentum),
        )

    return create


FAMILY = Family(
    "EfficientNet",
    {
        "efficientnet_b0": make_efficientnet(1.0, 1.0),
        "efficientnet_b1": make_efficientnet(1.0, 1.1),
        "efficientnet_b2": make_efficientnet(1.1, 1.2),
        "efficientnet_b3": make_efficientnet(1.2, 1.4),
        "efficientnet_b4": make_efficientnet(1.4, 1.8),
        "efficientnet_b5": make_efficientnet(1.6, 2.2, 1e-3, 0.99),
        "efficientnet_b6": make_efficientnet(1.8, 2.6, 1e-3, 0.99),
        "efficientnet_b7": make_efficientnet(2.0, 3.1, 1e-3, 0.99),
    },
    # The sizes of torchvision's weights; the paper has 260 for B2.
    inputs={
        "efficientnet_b1": (240, 3, 1000),
        "efficientnet_b2": (288, 3, 1000),
        "efficientnet_b3": (300, 3, 1000),
        "efficientnet_b4": (380, 3, 1000),
        "efficientnet_b5": (456, 3, 1000),
        "efficientnet_b6": (528, 3, 1000),
        "efficientnet_b7": (600, 3, 1000),
    },
)
