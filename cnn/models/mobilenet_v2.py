"""MobileNet v2: inverted residuals with linear bottlenecks.

Source: Sandler et al. 2018, https://arxiv.org/abs/1801.04381
"""

from typing import Any

import flax.linen as nn

from cnn.models.family import Family
from cnn.models.inverted_residual import InvertedResidualNet
from cnn.models.layers import Layers, small_normal
from cnn.models.options import ModelOptions

# (expansion, kernel size, stride of the first block, channels, blocks) of each stage.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 3, 2, 64, 4),
    (6, 3, 1, 96, 3),
    (6, 3, 2, 160, 3),
    (6, 3, 1, 320, 1),
)


def mobilenet_v2(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create MobileNet v2: 3,504,872 parameters with 1000 classes."""
    return InvertedResidualNet(
        num_classes,
        STAGES,
        excites=False,
        activate=nn.relu6,
        head_init=small_normal,
        layers=Layers.from_options(options, dtype),
    )


FAMILY = Family("MobileNet v2", {"mobilenet_v2": mobilenet_v2})
