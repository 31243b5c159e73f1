"""EfficientNet v2: early stages fuse expansion and filter in one convolution.

Source: Tan and Le 2021, https://arxiv.org/abs/2104.00298
"""

from typing import Any

import flax.linen as nn

from cnn.models.efficientnet import fan_out_uniform
from cnn.models.family import Family
from cnn.models.inverted_residual import InvertedResidualNet, Row, list_stages
from cnn.models.layers import Creator, Layers
from cnn.models.options import ModelOptions


def make_efficientnet_v2(fused: tuple[Row, ...], rows: tuple[Row, ...]) -> Creator:
    """Make the function that creates one member of the family.

    Args:
        fused: (expansion, kernel size, stride of the first block, channels, blocks) of
            each stage of fused blocks; the stem has as many channels as the first.
        rows: of each stage that follows, whose blocks rescale channels.
    """

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        stem_width, middle = fused[0][3], fused[-1][3]
        stages = list_stages(stem_width, fused, nn.silu, "fused")
        return InvertedResidualNet(
            num_classes,
            options.stem,
            stem_width,
            stages + list_stages(middle, rows, nn.silu, "excite"),
            1280,
            nn.silu,
            fan_out_uniform,
            Layers.from_options(options, dtype, epsilon=1e-3),
        )

    return create


FAMILY = Family(
    "EfficientNet v2",
    {
        "efficientnet_v2_s": make_efficientnet_v2(
            ((1, 3, 1, 24, 2), (4, 3, 2, 48, 4), (4, 3, 2, 64, 4)),
            ((4, 3, 2, 128, 6), (6, 3, 1, 160, 9), (6, 3, 2, 256, 15)),
        ),
        "efficientnet_v2_m": make_efficientnet_v2(
            ((1, 3, 1, 24, 3), (4, 3, 2, 48, 5), (4, 3, 2, 80, 5)),
            (
                (4, 3, 2, 160, 7),
                (6, 3, 1, 176, 14),
                (6, 3, 2, 304, 18),
                (6, 3, 1, 512, 5),
            ),
        ),
        "efficientnet_v2_l": make_efficientnet_v2(
            ((1, 3, 1, 32, 4), (4, 3, 2, 64, 7), (4, 3, 2, 96, 7)),
            (
                (4, 3, 2, 192, 10),
                (6, 3, 1, 224, 19),
                (6, 3, 2, 384, 25),
                (6, 3, 1, 640, 7),
            ),
        ),
    },
    input=(480, 3, 1000),
    inputs={"efficientnet_v2_s": (384, 3, 1000)},
)
