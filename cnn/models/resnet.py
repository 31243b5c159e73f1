"""ResNet, ResNeXt and wide ResNet for ImageNet, and ResNet with pre-activation.

ResNet is the form called v1.5: the 3x3 convolution of a bottleneck strides. In the
`v2` family and `preact_resnet` normalisation and ReLU precede each convolution, and a
last pair of them follows the stages. Other families are `ResNet` of other numbers.

Source: He et al. 2016, https://arxiv.org/abs/1512.03385; Xie et al. 2017 (ResNeXt),
    https://arxiv.org/abs/1611.05431; Zagoruyko and Komodakis 2016 (wide),
    https://arxiv.org/abs/1605.07146; He et al. 2016 (v2),
    https://arxiv.org/abs/1603.05027
"""

import re
from typing import Any

import flax.linen as nn
import jax

from cnn.errors import UserError
from cnn.models.family import Family, Pattern
from cnn.models.layers import Creator, Dropout, Layers, share_depth
from cnn.models.options import ModelOptions
from cnn.models.residual import Block
from cnn.models.width import widen
from cnn.ops import pooling
from cnn.option import format_value

# Blocks of each stage, by the depth in a name of a network of bottlenecks.
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Of --dropblock_rate, by stage, as in timm and TensorFlow's ResNet.
_DROPBLOCK_SHARES = {3: 0.25, 4: 1.0}
_WIDE = r"wide_resnet(\d+)_(\d+)"
_RESNEXT = r"resnext(?!29_)(\d+)_(\d+)x(\d+)d"  # 29 is for CIFAR


class ResNet(nn.Module):
    """A stem, stages of residual blocks, global average, dense.

    Attributes:
        stem: `imagenet` (7x7 by 2, then pooling by 2), or `cifar` (3x3).
        depths: blocks of each stage.
        is_bottleneck: basic blocks, or bottlenecks of four times the channels.
        groups: of each bottleneck's 3x3 convolution.
        group_width: channels of each group in the first stage.
        preactivated: the v2 form.
        zero_init: whether blocks start as their shortcut, unless preactivated.
        stem_features: channels of the stem, and of what the first stage multiplies.
        strides_first: whether a bottleneck's first convolution strides, not its 3x3.
        dropblock_sizes: sides of DropBlock's squares in stages 3 and 4, in pixels.
    """

    num_classes: int
    stem: str
    depths: tuple[int, ...]
    is_bottleneck: bool
    groups: int
    group_width: int
    preactivated: bool
    zero_init: bool
    layers: Layers
    stem_features: int = 64
    strides_first: bool = False
    dropblock_sizes: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
        dropblock_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        layers = self.layers
        is_small = self.stem == "cifar"
        # The same on both sides whatever --strided_padding, as in Flax's example.
        sides = ((1, 1), (1, 1)) if is_small else ((3, 3), (3, 3))
        x = layers.conv(
            self.stem_features,
            3 if is_small else 7,
            stride=1 if is_small else 2,
            padding=sides,
            use_bias=False,
            name="stem",
        )(x)
        if not self.preactivated:
            x = nn.relu(layers.norm(name="stem_norm")(x, train))
        self.sow("features", "stem_out", x)
        if not is_small:
            x = layers.max_pool(x, 3, 2, padding=1)
        for stage, depth in enumerate(self.depths, start=1):
            for number in range(1, depth + 1):
                block = self._make_block(stage, number)
                x = block(x, train, stochastic_depth_rate, dropblock_rate)
            self.sow("features", f"stage{stage}_out", x)
        if self.preactivated:
            x = nn.relu(layers.norm(name="norm")(x, train))
        x = pooling.global_avg_pool(x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        return layers.dense(self.num_classes, name="head")(x)

    def _make_block(self, stage: int, number: int) -> Block:
        planes = self.stem_features * 2 ** (stage - 1)
        done = sum(self.depths[: stage - 1]) + number
        dropblock = (0, 0.0)
        if stage > 2:
            dropblock = self.dropblock_sizes[stage - 3], _DROPBLOCK_SHARES[stage]
        return Block(
            planes * self.groups * self.group_width // 64,
            planes * 4 if self.is_bottleneck else planes,
            stride=2 if number == 1 and stage > 1 else 1,
            groups=self.groups,
            is_bottleneck=self.is_bottleneck,
            preactivated=self.preactivated,
            zero_init=self.zero_init,
            layers=self.layers,
            strides_first=self.strides_first,
            share=share_depth(done, sum(self.depths), "from_zero"),
            dropblock=dropblock,
            name=f"stage{stage}_block{number}",
        )


def make_resnet(
    depths: tuple[int, ...],
    is_bottleneck: bool,
    groups: int = 1,
    group_width: int = 64,
    preactivated: bool = False,
) -> Creator:
    """Make the function that creates one member of the family; see `ResNet`."""

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        stem_features, _ = widen(options, 64, group_width)
        return ResNet(
            num_classes,
            options.stem,
            depths,
            is_bottleneck,
            groups,
            group_width,
            preactivated,
            options.zero_init_residual,
            Layers.from_options(options, dtype),
            stem_features,
            dropblock_sizes=(0, 0) if preactivated else _read_sizes(options),
        )

    return create


def _read_sizes(options: ModelOptions) -> tuple[int, int]:
    """Return the sides of DropBlock's squares in stages 3 and 4.

    Raises:
        UserError: there are more than two.
    """
    sizes = options.dropblock_size
    if len(sizes) not in (1, 2):
        raise UserError(
            f"--dropblock_size={format_value(sizes)}: give one number of pixels, or "
            "two for stages 3 and 4, as 5,3"
        )
    return sizes[0], sizes[-1]


def wider(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create wide_resnetD_K, K times as broad inside, or resnextD_GxWd, G groups of W.

    Raises:
        UserError: there is none of that depth, or a width is 0.
    """
    name = options.model
    depth, *widths = map(int, re.findall(r"\d+", name))
    if depth not in DEPTHS or 0 in widths:
        known = str(min(DEPTHS, key=lambda x: abs(x - depth)))
        nearest = re.sub(r"\d+", known, name, count=1)
        nearest = re.sub(r"(?<!\d)0+(?!\d)", "1", nearest)
        raise UserError(
            f"--model={name}: its depth is one of {', '.join(map(str, DEPTHS))}, its "
            f"widths are at least 1; did you mean {nearest}?"
        )
    groups, width = widths if len(widths) == 2 else (1, 64 * widths[0])
    return make_resnet(DEPTHS[depth], True, groups, width)(options, num_classes, dtype)


FAMILY = Family(
    "ResNet, ResNeXt, wide ResNet, ResNet v2",
    {
        "resnet18": make_resnet((2, 2, 2, 2), False),
        "resnet34": make_resnet((3, 4, 6, 3), False),
        "resnet50": make_resnet((3, 4, 6, 3), True),
        "resnet101": make_resnet((3, 4, 23, 3), True),
        "resnet152": make_resnet((3, 8, 36, 3), True),
        "resnext50_32x4d": make_resnet((3, 4, 6, 3), True, 32, 4),
        "resnext101_32x8d": make_resnet((3, 4, 23, 3), True, 32, 8),
        "resnext101_64x4d": make_resnet((3, 4, 23, 3), True, 64, 4),
        "wide_resnet50_2": make_resnet((3, 4, 6, 3), True, 1, 128),
        "wide_resnet101_2": make_resnet((3, 4, 23, 3), True, 1, 128),
        "resnet50v2": make_resnet((3, 4, 6, 3), True, preactivated=True),
        "resnet101v2": make_resnet((3, 4, 23, 3), True, preactivated=True),
        "resnet152v2": make_resnet((3, 8, 36, 3), True, preactivated=True),
        "preact_resnet18": make_resnet((2, 2, 2, 2), False, preactivated=True),
        "preact_resnet34": make_resnet((3, 4, 6, 3), False, preactivated=True),
    },
    (
        Pattern("wide_resnetD_K", _WIDE, ("wide_resnet50_4",), wider),
        Pattern("resnextD_GxWd", _RESNEXT, ("resnext101_32x4d",), wider),
    ),
)
