"""RegNet X and Y: a line gives each block's width, rounded so that stages emerge.

Y is X with squeeze and excitation in each block.

Source: Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678, sections 3.3 and 5;
    where a width does not fit its groups, torchvision's rounding, with which the
    published weights were trained.
"""

import collections
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn.models.family import Family
from cnn.models.layers import Creator, Dropout, Layers, share_depth, small_normal
from cnn.models.options import ModelOptions
from cnn.models.residual import Block
from cnn.ops import pooling


class RegNet(nn.Module):
    """A 3x3 stem, four stages of bottlenecks of full width, global average, dense.

    Attributes:
        stem: `imagenet` (it strides by 2), or `cifar` (by 1).
        stages: (channels, channels of each group, blocks) of each.
        excites: whether blocks rescale channels.
    """

    num_classes: int
    stem: str
    stages: tuple[tuple[int, int, int], ...]
    excites: bool
    layers: Layers

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        layers, stride = self.layers, 1 if self.stem == "cifar" else 2
        x = layers.conv_norm(x, train, 32, 3, "stem", nn.relu, stride=stride)
        self.sow("features", "stem_out", x)
        total, done = sum(depth for *_, depth in self.stages), 0
        for stage, (features, group_width, depth) in enumerate(self.stages, start=1):
            for number in range(1, depth + 1):
                done += 1
                block = Block(
                    features,
                    features,
                    stride=2 if number == 1 else 1,
                    groups=features // group_width,
                    is_bottleneck=True,
                    preactivated=False,
                    zero_init=False,
                    layers=layers,
                    # A quarter of what the block receives, not of its own width.
                    squeezed=round(x.shape[-1] / 4) if self.excites else 0,
                    share=share_depth(done, total, "from_zero"),
                    name=f"stage{stage}_block{number}",
                )
                x = block(x, train, stochastic_depth_rate)
            self.sow("features", f"stage{stage}_out", x)
        x = pooling.global_avg_pool(x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        return layers.dense(self.num_classes, kernel_init=small_normal, name="head")(x)


def compute_stages(
    depth: int, initial: int, slope: float, factor: float, group_width: int
) -> tuple[tuple[int, int, int], ...]:
    """Compute (channels, channels of each group, blocks) of each stage.

    Args:
        depth: blocks of all stages.
        initial: w_0, the first block's width.
        slope: w_a, how much wider the line has each next block.
        factor: w_m, by powers of which `initial` is multiplied instead.
        group_width: channels of each group; a stage of fewer has one group.
    """
    line = initial + slope * np.arange(depth)
    powers = np.round(np.log(line / initial) / np.log(factor))
    widths = 8 * np.round(initial * factor**powers / 8).astype(int)
    stages = []
    for width, blocks in collections.Counter(widths.tolist()).items():
        group = min(group_width, width)
        fitting = group * int(width / group + 0.5)
        # Rounding takes no more than a tenth away.
        fitting += group if fitting < 0.9 * width else 0
        stages.append((fitting, group, blocks))
    return tuple(stages)


def make_regnet(
    depth: int,
    initial: int,
    slope: float,
    factor: float,
    group_width: int,
    excites: bool = False,
) -> Creator:
    """Make the function that creates one member; see `compute_stages`, `RegNet`."""
    stages = compute_stages(depth, initial, slope, factor, group_width)

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        layers = Layers.from_options(options, dtype)
        return RegNet(num_classes, options.stem, stages, excites, layers)

    return create


FAMILY = Family(
    "RegNet",
    {
        "regnet_y_400mf": make_regnet(16, 48, 27.89, 2.09, 8, True),
        "regnet_y_800mf": make_regnet(14, 56, 38.84, 2.4, 16, True),
        "regnet_y_1_6gf": make_regnet(27, 48, 20.71, 2.65, 24, True),
        "regnet_y_3_2gf": make_regnet(21, 80, 42.63, 2.66, 24, True),
        "regnet_y_8gf": make_regnet(17, 192, 76.82, 2.19, 56, True),
        "regnet_y_16gf": make_regnet(18, 200, 106.23, 2.48, 112, True),
        "regnet_y_32gf": make_regnet(20, 232, 115.89, 2.53, 232, True),
        "regnet_y_128gf": make_regnet(27, 456, 160.83, 2.52, 264, True),
        "regnet_x_400mf": make_regnet(22, 24, 24.48, 2.54, 16),
        "regnet_x_800mf": make_regnet(16, 56, 35.73, 2.28, 16),
        "regnet_x_1_6gf": make_regnet(18, 80, 34.01, 2.25, 24),
        "regnet_x_3_2gf": make_regnet(25, 88, 26.31, 2.25, 48),
        "regnet_x_8gf": make_regnet(23, 80, 49.56, 2.88, 120),
        "regnet_x_16gf": make_regnet(22, 216, 55.59, 2.1, 128),
        "regnet_x_32gf": make_regnet(23, 320, 69.86, 2.0, 168),
    },
)
