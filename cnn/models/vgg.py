"""VGG with 11, 13, 16 and 19 layers, plain and with batch normalisation.

Convolutions keep their biases in the normalised forms too, as in torchvision.

Source: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from cnn.models import layers
from cnn.ops import pooling

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class Vgg(nn.Module):
    """Five stages of 3x3 convolutions and max-pooling, three dense layers.

    Attributes:
        num_classes: K.
        depths: convolutions of each stage.
        conv: makes convolutions.
        norm: makes batch normalisation; None leaves it out.
        dense: makes dense layers.
    """

    num_classes: int
    depths: tuple[int, ...]
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module] | None
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
        for stage, depth in enumerate(self.depths, start=1):
            for number in range(1, depth + 1):
                name = f"stage{stage}_conv{number}"
                x = self.conv(WIDTHS[stage - 1], 3, padding=1, name=name)(x)
                if self.norm is not None:
                    x = self.norm(name=f"stage{stage}_norm{number}")(x, train)
                x = nn.relu(x)
            self.sow("features", f"stage{stage}_out", x)
            layers.check_size(x, 2, f"the pooling of stage{stage}")
            x = pooling.max_pool2d(x, 2)
        x = pooling.adaptive_avg_pool2d(x, 7)
        x = x.reshape(x.shape[0], -1)
        init = nn.initializers.normal(0.01)
        for number in (1, 2):
            x = nn.relu(self.dense(4096, kernel_init=init, name=f"dense{number}")(x))
            x = layers.Dropout(name=f"dropout{number}")(x, dropout_rate, train)
        return self.dense(self.num_classes, kernel_init=init, name="head")(x)


def _vgg(
    depth: int, normalised: bool, options: Any, num_classes: int, dtype: Any
) -> nn.Module:
    conv, norm, dense = layers.make_layers(options, dtype)
    return Vgg(num_classes, DEPTHS[depth], conv, norm if normalised else None, dense)


def vgg11(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create VGG-11: 132,863,336 parameters with 1000 classes."""
    return _vgg(11, False, options, num_classes, dtype)


def vgg13(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create VGG-13: 133,047,848 parameters with 1000 classes."""
    return _vgg(13, False, options, num_classes, dtype)


def vgg16(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create VGG-16: 138,357,544 parameters with 1000 classes."""
    return _vgg(16, False, options, num_classes, dtype)


def vgg19(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create VGG-19: 143,667,240 parameters with 1000 classes."""
    return _vgg(19, False, options, num_classes, dtype)


def vgg11_bn(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create VGG-11 with batch normalisation: 132,868,840 parameters."""
    return _vgg(11, True, options, num_classes, dtype)


def vgg13_bn(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create VGG-13 with batch normalisation: 133,053,736 parameters."""
    return _vgg(13, True, options, num_classes, dtype)


def vgg16_bn(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create VGG-16 with batch normalisation: 138,365,992 parameters."""
    return _vgg(16, True, options, num_classes, dtype)


def vgg19_bn(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create VGG-19 with batch normalisation: 143,678,248 parameters."""
    return _vgg(19, True, options, num_classes, dtype)
