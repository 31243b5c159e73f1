"""MobileNet v3: inverted residuals found by search, with hard-swish.

Source: Howard et al. 2019, https://arxiv.org/abs/1905.02244
"""

from typing import Any

import flax.linen as nn

from cnn.models.family import Family
from cnn.models.inverted_residual import Block, InvertedResidualNet, round_channels
from cnn.models.layers import Creator, Layers, small_normal
from cnn.models.options import ModelOptions


def _make_block(
    size: int, width: int, features: int, marks: str = "", stride: int = 1
) -> Block:
    """Make a block from a line of the paper's tables 1 and 2.

    Args:
        marks: `SE` and `HS` as there, for squeeze-and-excitation and hard-swish.
    """
    squeezed = round_channels(width // 4) if "SE" in marks else 0
    activate = nn.hard_swish if "HS" in marks else nn.relu
    return Block(size, stride, width, features, activate, squeezed)


LARGE = (
    (_make_block(3, 16, 16),),
    (_make_block(3, 64, 24, stride=2), _make_block(3, 72, 24)),
    (_make_block(5, 72, 40, "SE", 2), *[_make_block(5, 120, 40, "SE")] * 2),
    (
        _make_block(3, 240, 80, "HS", 2),
        _make_block(3, 200, 80, "HS"),
        *[_make_block(3, 184, 80, "HS")] * 2,
    ),
    (_make_block(3, 480, 112, "SE HS"), _make_block(3, 672, 112, "SE HS")),
    (_make_block(5, 672, 160, "SE HS", 2), *[_make_block(5, 960, 160, "SE HS")] * 2),
)
SMALL = (
    (_make_block(3, 16, 16, "SE", 2),),
    (_make_block(3, 72, 24, stride=2), _make_block(3, 88, 24)),
    (_make_block(5, 96, 40, "SE HS", 2), *[_make_block(5, 240, 40, "SE HS")] * 2),
    (_make_block(5, 120, 48, "SE HS"), _make_block(5, 144, 48, "SE HS")),
    (_make_block(5, 288, 96, "SE HS", 2), *[_make_block(5, 576, 96, "SE HS")] * 2),
)


def make_mobilenet_v3(
    stages: tuple[tuple[Block, ...], ...], dense_width: int
) -> Creator:
    """Make the function that creates one member of the family.

    Args:
        dense_width: units of the layer before the head.
    """

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        return InvertedResidualNet(
            num_classes,
            options.stem,
            16,
            stages,
            6 * stages[-1][-1].features,
            nn.hard_swish,
            small_normal,
            Layers.from_options(options, dtype, epsilon=1e-3, momentum=0.99),
            gates=(nn.relu, nn.hard_sigmoid),
            dense_width=dense_width,
        )

    return create


FAMILY = Family(
    "MobileNet v3",
    {
        "mobilenet_v3_small": make_mobilenet_v3(SMALL, 1024),
        "mobilenet_v3_large": make_mobilenet_v3(LARGE, 1280),
    },
)
