"""DenseNet-BC: each layer sees the concatenation of all before it in its block.

Source: Huang et al. 2017, https://arxiv.org/abs/1608.06993
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import layers
from cnn.ops import pooling


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution.

    Attributes:
        growth: channels that are added.
        conv: makes convolutions.
        norm: makes batch normalisation.
    """

    growth: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, dropout_rate: jax.Array | None
    ) -> jax.Array:
        """Map [N, H, W, C] to [N, H, W, growth]."""
        init = layers.kaiming_fan_in
        for number, (features, size) in enumerate(
            [(4 * self.growth, 1), (self.growth, 3)], start=1
        ):
            x = nn.relu(self.norm(name=f"norm{number}")(x, train))
            x = self.conv(
                features,
                size,
                padding=size // 2,
                use_bias=False,
                kernel_init=init,
                name=f"conv{number}",
            )(x)
        return layers.Dropout(name="dropout")(x, dropout_rate, train)


class DenseNet(nn.Module):
    """A 7x7 stem, four dense blocks with transitions between, global average, dense.

    Attributes:
        num_classes: K.
        depths: layers of each block.
        growth: channels that each layer adds.
        stem_features: channels of the stem.
        conv: makes convolutions.
        norm: makes batch normalisation.
        dense: makes dense layers.
    """

    num_classes: int
    depths: tuple[int, ...]
    growth: int
    stem_features: int
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
        init = layers.kaiming_fan_in
        x = self.conv(
            self.stem_features,
            7,
            stride=2,
            padding=3,
            use_bias=False,
            kernel_init=init,
            name="stem",
        )(x)
        x = nn.relu(self.norm(name="stem_norm")(x, train))
        self.sow("features", "stem_out", x)
        x = pooling.max_pool2d(x, 3, 2, padding=1)
        for stage, depth in enumerate(self.depths, start=1):
            for number in range(1, depth + 1):
                name = f"stage{stage}_layer{number}"
                layer = DenseLayer(self.growth, self.conv, self.norm, name=name)
                x = jnp.concatenate([x, layer(x, train, dropout_rate)], axis=-1)
            self.sow("features", f"stage{stage}_out", x)
            if stage < len(self.depths):
                x = nn.relu(self.norm(name=f"transition{stage}_norm")(x, train))
                x = self.conv(
                    x.shape[-1] // 2,
                    1,
                    use_bias=False,
                    kernel_init=init,
                    name=f"transition{stage}_conv",
                )(x)
                layers.check_size(x, 2, f"transition{stage}")
                x = pooling.avg_pool2d(x, 2)
        x = nn.relu(self.norm(name="norm")(x, train))
        x = pooling.global_avg_pool(x)
        return self.dense(self.num_classes, name="head")(x)


def make_densenet(
    depths: tuple[int, ...], growth: int, stem_features: int
) -> Callable[[Any, int, Any], nn.Module]:
    """Make the function that creates one member of the family; see `DenseNet`."""

    def create(options: Any, num_classes: int, dtype: Any) -> nn.Module:
        parts = layers.make_layers(options, dtype)
        return DenseNet(num_classes, depths, growth, stem_features, *parts)

    return create


densenet121 = make_densenet((6, 12, 24, 16), 32, 64)
densenet169 = make_densenet((6, 12, 32, 32), 32, 64)
densenet201 = make_densenet((6, 12, 48, 32), 32, 64)
densenet161 = make_densenet((6, 12, 36, 24), 48, 96)
