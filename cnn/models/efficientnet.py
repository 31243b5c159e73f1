"""EfficientNet: inverted residuals that rescale channels.

Source: Tan and Le 2019, https://arxiv.org/abs/1905.11946
"""

from typing import Any

import flax.linen as nn

from cnn.models.family import Family
from cnn.models.inverted_residual import InvertedResidualNet
from cnn.models.layers import Layers
from cnn.models.options import ModelOptions

# (expansion, kernel size, stride of the first block, channels, blocks) of each stage.
EFFICIENTNET_B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)

fan_out_uniform = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")


def efficientnet_b0(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create EfficientNet B0: 5,288,548 parameters with 1000 classes."""
    return InvertedResidualNet(
        num_classes,
        EFFICIENTNET_B0,
        excites=True,
        activate=nn.silu,
        head_init=fan_out_uniform,
        layers=Layers.from_options(options, dtype),
    )


FAMILY = Family("EfficientNet", {"efficientnet_b0": efficientnet_b0})
