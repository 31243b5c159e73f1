"""ResNet for 32x32 images: three stages of basic blocks, 6n + 2 layers.

Source: He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import layers
from cnn.ops import activation, pooling
from cnn.options import option


@dataclasses.dataclass(frozen=True)
class CifarResNetOptions:
    """The CIFAR ResNets' choices."""

    resnet_shortcut: str = option(
        "pad",
        "shortcut of resnet20 … resnet110 where the size changes: pad (option A: every "
        "second pixel, channels padded with zeros) or project (option B: 1x1 "
        "convolution)",
        choices=("pad", "project"),
    )


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
        features: channels of the result.
        stride: of the first convolution and of the shortcut.
        shortcut: `pad` or `project`.
        last_init: draws the last normalisation's scale.
        conv: makes convolutions.
        norm: makes batch normalisation.
    """

    features: int
    stride: int
    shortcut: str
    last_init: Callable[..., jax.Array]
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, features]."""
        residual, stride = x, self.stride
        conv = self.conv(
            self.features, 3, stride=stride, padding=1, use_bias=False, name="conv1"
        )
        x = nn.relu(self.norm(name="norm1")(conv(x), train))
        x = self.conv(self.features, 3, padding=1, use_bias=False, name="conv2")(x)
        x = self.norm(name="norm2", scale_init=self.last_init)(x, train)
        missing = self.features - residual.shape[-1]
        if missing and self.shortcut == "project":
            project = self.conv(
                self.features, 1, stride=stride, use_bias=False, name="shortcut_conv"
            )
            residual = self.norm(name="shortcut_norm")(project(residual), train)
        elif missing:
            sides = (missing // 2, missing - missing // 2)
            residual = residual[:, ::stride, ::stride]
            residual = jnp.pad(residual, ((0, 0), (0, 0), (0, 0), sides))
        return activation.relu(x + residual)


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of n blocks with 16, 32 and 64 channels.

    Attributes:
        num_classes: K.
        blocks: n.
        shortcut: `pad` or `project`.
        zero_init_residual: whether blocks start as their shortcut.
        conv: makes convolutions.
        norm: makes batch normalisation.
        dense: makes dense layers.
    """

    num_classes: int
    blocks: int
    shortcut: str
    zero_init_residual: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    dense: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        x = self.conv(16, 3, padding=1, use_bias=False, name="stem")(x)
        x = activation.relu(self.norm(name="stem_norm")(x, train))
        self.sow("features", "stem_out", x)
        init = nn.initializers
        last_init = init.zeros_init() if self.zero_init_residual else init.ones_init()
        for stage in (1, 2, 3):
            for number in range(1, self.blocks + 1):
                x = CifarBlock(
                    16 * 2 ** (stage - 1),
                    stride=2 if number == 1 and stage > 1 else 1,
                    shortcut=self.shortcut,
                    last_init=last_init,
                    conv=self.conv,
                    norm=self.norm,
                    name=f"stage{stage}_block{number}",
                )(x, train)
            self.sow("features", f"stage{stage}_out", x)
        x = pooling.global_avg_pool(x)
        x = layers.Dropout(name="dropout")(x, dropout_rate, train)
        return self.dense(self.num_classes, name="head")(x)


def make_cifar_resnet(depth: int) -> Callable[[Any, int, Any], nn.Module]:
    """Make the function that creates the CIFAR ResNet of 6n + 2 layers."""

    def create(options: Any, num_classes: int, dtype: Any) -> nn.Module:
        conv, norm, dense = layers.make_layers(options, dtype)
        return CifarResNet(
            num_classes,
            (depth - 2) // 6,
            options.resnet_shortcut,
            options.zero_init_residual,
            conv,
            norm,
            dense,
        )

    return create


resnet20 = make_cifar_resnet(20)
resnet32 = make_cifar_resnet(32)
resnet44 = make_cifar_resnet(44)
resnet56 = make_cifar_resnet(56)
resnet110 = make_cifar_resnet(110)
