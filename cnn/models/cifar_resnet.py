"""ResNet for 32x32 images: three stages, of basic blocks 6n + 2 layers.

`preact_resnet_N` and `resnext29_GxWd` are three stages of the bottlenecks of `resnet`
behind a 3x3 convolution. In the former the first convolution of a bottleneck strides.

Source: He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385; He et al. 2016
    (pre-activated), https://arxiv.org/abs/1603.05027, and their code,
    https://github.com/KaimingHe/resnet-1k-layers/blob/master/resnet-pre-act.lua; Xie
    et al. 2017 (ResNeXt), https://arxiv.org/abs/1611.05431, and their code,
    https://github.com/facebookresearch/ResNeXt/blob/master/models/resnext.lua
"""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.errors import UserError
from cnn.models.family import CIFAR, Family, Pattern
from cnn.models.layers import Creator, Dropout, Layers, StochasticDepth, share_depth
from cnn.models.options import ModelOptions
from cnn.models.resnet import ResNet
from cnn.models.width import widen
from cnn.ops import activation, pooling

_PREACTIVATED = r"preact_resnet_(\d+)"
_RESNEXT = r"resnext29_(\d+)x(\d+)d"


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
        features: channels of the result.
        stride: of the first convolution and of the shortcut.
        shortcut: `pad` or `project`.
        zero_init: whether the last normalisation's scale starts at 0.
        share: of the stochastic depth rate.
    """

    features: int
    stride: int
    shortcut: str
    zero_init: bool
    share: float
    layers: Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, stochastic_depth_rate: jax.Array | None
    ) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, features]."""
        residual, layers = x, self.layers
        x = self._conv(3, self.stride, "conv1")(x)
        x = nn.relu(layers.norm(name="norm1")(x, train))
        x = self._conv(3, 1, "conv2")(x)
        x = layers.norm(zero_init=self.zero_init, name="norm2")(x, train)
        missing = self.features - residual.shape[-1]
        if missing and self.shortcut == "project":
            residual = self._conv(1, self.stride, "shortcut_conv")(residual)
            residual = layers.norm(name="shortcut_norm")(residual, train)
        elif missing:
            sides = (missing // 2, missing - missing // 2)
            residual = residual[:, :: self.stride, :: self.stride]
            residual = jnp.pad(residual, ((0, 0), (0, 0), (0, 0), sides))
        drop = StochasticDepth(self.share, name="stochastic_depth")
        return activation.relu(drop(x, stochastic_depth_rate, train) + residual)

    def _conv(self, size: int, stride: int, name: str) -> nn.Module:
        return self.layers.conv(
            self.features,
            size,
            stride=stride,
            padding=size // 2,
            use_bias=False,
            name=name,
        )


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of n blocks, each of twice the channels.

    Attributes:
        blocks: n.
        features: channels of the stem and of the first stage.
        shortcut: `pad` or `project`.
        zero_init: whether blocks start as their shortcut.
    """

    num_classes: int
    blocks: int
    features: int
    shortcut: str
    zero_init: bool
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
        features = self.features
        x = self.layers.conv(features, 3, padding=1, use_bias=False, name="stem")(x)
        x = activation.relu(self.layers.norm(name="stem_norm")(x, train))
        self.sow("features", "stem_out", x)
        for stage in (1, 2, 3):
            for number in range(1, self.blocks + 1):
                done = self.blocks * (stage - 1) + number
                block = CifarBlock(
                    features * 2 ** (stage - 1),
                    stride=2 if number == 1 and stage > 1 else 1,
                    shortcut=self.shortcut,
                    zero_init=self.zero_init,
                    share=share_depth(done, 3 * self.blocks),
                    layers=self.layers,
                    name=f"stage{stage}_block{number}",
                )
                x = block(x, train, stochastic_depth_rate)
            self.sow("features", f"stage{stage}_out", x)
        x = pooling.global_avg_pool(x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        return self.layers.dense(self.num_classes, name="head")(x)


def make_cifar_resnet(depth: int) -> Creator:
    """Make the function that creates the CIFAR ResNet of 6n + 2 layers."""

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        return CifarResNet(
            num_classes,
            blocks=(depth - 2) // 6,
            features=widen(options, 16)[0],
            shortcut=options.resnet_shortcut,
            zero_init=options.zero_init_residual,
            layers=Layers.from_options(options, dtype),
        )

    return create


def preact_resnet(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create preact_resnet_N: N = 9n + 2, n bottlenecks a stage, pre-activated.

    Raises:
        UserError: N is not 9n + 2.
    """
    depth = int(re.fullmatch(_PREACTIVATED, options.model)[1])
    if depth < 11 or (depth - 2) % 9:
        raise UserError(
            f"--model={options.model}: the depth of preact_resnet_N is 9n + 2 (11, 20, "
            "…, 164, 1001); did you mean "
            f"preact_resnet_{max(11, (depth + 2) // 9 * 9 + 2)}?"
        )
    return ResNet(
        num_classes,
        "cifar",
        depths=((depth - 2) // 9,) * 3,
        is_bottleneck=True,
        groups=1,
        group_width=64,
        preactivated=True,
        zero_init=False,
        layers=Layers.from_options(options, dtype),
        stem_features=widen(options, 16)[0],
        strides_first=True,
    )


def resnext29(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create resnext29_GxWd: G groups of W channels in the first stage's bottlenecks.

    Raises:
        UserError: G or W is 0.
    """
    groups, width = map(int, re.fullmatch(_RESNEXT, options.model).groups())
    if not groups * width:
        raise UserError(
            f"--model={options.model}: groups and their width are at least 1; did you "
            f"mean resnext29_{max(groups, 1)}x{max(width, 1)}d?"
        )
    stem_features, _ = widen(options, 64, width)
    return ResNet(
        num_classes,
        "cifar",
        depths=(3, 3, 3),
        is_bottleneck=True,
        groups=groups,
        group_width=width,
        preactivated=False,
        zero_init=options.zero_init_residual,
        layers=Layers.from_options(options, dtype),
        stem_features=stem_features,
    )


FAMILY = Family(
    "ResNet and ResNeXt for CIFAR",
    {
        "resnet20": make_cifar_resnet(20),
        "resnet32": make_cifar_resnet(32),
        "resnet44": make_cifar_resnet(44),
        "resnet56": make_cifar_resnet(56),
        "resnet110": make_cifar_resnet(110),
    },
    (
        Pattern(
            "preact_resnet_N",
            _PREACTIVATED,
            ("preact_resnet_11", "preact_resnet_164"),
            preact_resnet,
        ),
        Pattern(
            "resnext29_GxWd",
            _RESNEXT,
            ("resnext29_2x4d", "resnext29_8x64d"),
            resnext29,
        ),
    ),
    input=CIFAR,
)
