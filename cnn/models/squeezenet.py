"""SqueezeNet 1.1: fire modules, and a convolution for a head.

Source: Iandola et al. 2016, https://arxiv.org/abs/1602.07360
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import layers
from cnn.ops import pooling

# (squeeze, expand) channels of each fire module, stage by stage.
STAGES = (
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 expansions side by side.

    Attributes:
        squeeze: channels in between.
        expand: channels of each expansion.
        conv: makes convolutions.
    """

    squeeze: int
    expand: int
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to [N, H, W, 2 · expand]."""
        x = nn.relu(self.conv(self.squeeze, 1, name="squeeze")(x))
        small = nn.relu(self.conv(self.expand, 1, name="expand1x1")(x))
        large = nn.relu(self.conv(self.expand, 3, padding=1, name="expand3x3")(x))
        return jnp.concatenate([small, large], axis=-1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1.

    Attributes:
        num_classes: K.
        conv: makes convolutions, with the family's initialisation.
    """

    num_classes: int
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        dropout_rate: jax.Array | None = None,
        stochastic_depth_rate: jax.Array | None = None,
    ) -> jax.Array:
        """Map images [N, H, W, C] to logits [N, K]."""
        layers.check_size(x, 17, "the image")
        x = nn.relu(self.conv(64, 3, stride=2, padding=0, name="stem")(x))
        self.sow("features", "stem_out", x)
        for stage, modules in enumerate(STAGES, start=1):
            x = _pool(x)
            for number, (squeeze, expand) in enumerate(modules, start=1):
                name = f"stage{stage}_fire{number}"
                x = Fire(squeeze, expand, self.conv, name=name)(x)
            self.sow("features", f"stage{stage}_out", x)
        x = layers.Dropout(name="dropout")(x, dropout_rate, train)
        init = nn.initializers.normal(0.01)
        head = self.conv(self.num_classes, 1, kernel_init=init, name="head")
        return pooling.global_avg_pool(nn.relu(head(x)))


def _pool(x: jax.Array) -> jax.Array:
    """Max-pool 3x3 by 2; a window that begins inside may end outside."""
    excess = [(0, (size - 3) % 2) for size in x.shape[1:3]]
    return pooling.max_pool2d(x, 3, 2, padding=excess)


def squeezenet1_1(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create SqueezeNet 1.1: 1,235,496 parameters with 1000 classes."""
    conv, _, _ = layers.make_layers(options, dtype)
    init = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")

    def initialised(*args: Any, **kwargs: Any) -> nn.Module:
        return conv(*args, **({"kernel_init": init} | kwargs))

    return SqueezeNet(num_classes, initialised)
