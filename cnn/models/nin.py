"""Network in Network: each convolution is followed by 1x1 ones, the last is the head.

The sizes are those of the authors' configuration for CIFAR-10. Its poolings end with
windows that may lie half outside.

Source: Lin et al. 2014, https://arxiv.org/abs/1312.4400; sizes and dropout from its
    authors' configuration for cuda-convnet; first weights and the ReLU behind the head
    from ports of https://gist.github.com/mavenlin/e56253735ef32c3c296d
"""

from typing import Any

import flax.linen as nn
import jax

from cnn.models.family import CIFAR, Family
from cnn.models.layers import Dropout, Layers, check_size
from cnn.models.options import ModelOptions
from cnn.ops import geometry, pooling

# (kernel size, channels) of each convolution, stage by stage; the head is the last.
STAGES = (
    ((5, 192), (1, 160), (1, 96)),
    ((5, 192), (1, 192), (1, 192)),
    ((3, 192), (1, 192)),
)

first_weights = nn.initializers.normal(0.05)


class NetworkInNetwork(nn.Module):
    """Three stages of a convolution and 1x1 convolutions, pooled in between."""

    num_classes: int
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
        check_size(x, 4, "the image")
        for stage, convolutions in enumerate(STAGES, start=1):
            if stage > 1:
                pool = pooling.max_pool2d if stage == 2 else pooling.avg_pool2d
                padding = geometry.pad_last_window(x.shape[1:3], 3, 2)
                x = pool(x, 3, 2, padding)
                x = Dropout(name=f"dropout{stage - 1}")(x, dropout_rate, train)
            for number, (size, width) in enumerate(convolutions, start=1):
                x = self._convolve(x, width, size, f"stage{stage}_conv{number}")
            self.sow("features", f"stage{stage}_out", x)
        return pooling.global_avg_pool(self._convolve(x, self.num_classes, 1, "head"))

    def _convolve(self, x: jax.Array, width: int, size: int, name: str) -> jax.Array:
        conv = self.layers.conv(width, size, kernel_init=first_weights, name=name)
        return nn.relu(conv(x))


def nin(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create Network in Network: 966,986 parameters with 10 classes."""
    return NetworkInNetwork(num_classes, Layers.from_options(options, dtype))


FAMILY = Family("Network in Network", {"nin": nin}, input=CIFAR)
