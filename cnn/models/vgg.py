"""VGG with 11, 13, 16 and 19 layers, plain and with batch normalisation.

Convolutions keep their biases in the normalised forms too, as in torchvision.

Source: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556
"""

from typing import Any

import flax.linen as nn
import jax

from cnn.models.family import Family
from cnn.models.layers import Creator, Dropout, Layers, check_size, small_normal
from cnn.models.options import ModelOptions
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
        depths: convolutions of each stage.
        normalised: whether batch normalisation follows each convolution.
    """

    num_classes: int
    depths: tuple[int, ...]
    normalised: bool
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
        layers = self.layers
        for stage, depth in enumerate(self.depths, start=1):
            for number in range(1, depth + 1):
                name = f"stage{stage}_conv{number}"
                x = layers.conv(WIDTHS[stage - 1], 3, padding=1, name=name)(x)
                if self.normalised:
                    x = layers.norm(name=f"stage{stage}_norm{number}")(x, train)
                x = nn.relu(x)
            self.sow("features", f"stage{stage}_out", x)
            check_size(x, 2, f"the pooling of stage{stage}")
            x = pooling.max_pool2d(x, 2)
        x = pooling.adaptive_avg_pool2d(x, 7)
        x = x.reshape(x.shape[0], -1)
        init = small_normal
        for number in (1, 2):
            x = nn.relu(layers.dense(4096, kernel_init=init, name=f"dense{number}")(x))
            x = Dropout(name=f"dropout{number}")(x, dropout_rate, train)
        return layers.dense(self.num_classes, kernel_init=init, name="head")(x)


def make_vgg(depth: int, normalised: bool = False) -> Creator:
    """Make the function that creates the VGG of so many layers with weights."""

    def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
        layers = Layers.from_options(options, dtype)
        return Vgg(num_classes, DEPTHS[depth], normalised, layers)

    return create


FAMILY = Family(
    "VGG",
    {
        "vgg11": make_vgg(11),
        "vgg13": make_vgg(13),
        "vgg16": make_vgg(16),
        "vgg19": make_vgg(19),
        "vgg11_bn": make_vgg(11, normalised=True),
        "vgg13_bn": make_vgg(13, normalised=True),
        "vgg16_bn": make_vgg(16, normalised=True),
        "vgg19_bn": make_vgg(19, normalised=True),
    },
)
