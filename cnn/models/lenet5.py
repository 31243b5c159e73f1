"""LeNet-5 in its form of today: two convolutions and three dense layers.

The paper's connects each map of the second convolution to some of the first only,
averages with weights, and compares with drawings of the characters (60,000 parameters,
its section II.B); here, as in nearly all code that bears the name, convolutions are
whole, averages plain, and the last layer is dense.

Source: LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf; in this
form Zhang et al., Dive into Deep Learning, https://d2l.ai/chapter_convolutional-neural-networks/lenet.html
(28x28 with two pixels of padding; the paper's tanh for its sigmoid)
"""

from typing import Any

import flax.linen as nn
import jax

from cnn.models.family import Family
from cnn.models.layers import Layers, check_size, lecun_normal
from cnn.models.options import ModelOptions
from cnn.ops import pooling


class LeNet5(nn.Module):
    """Two stages of a 5x5 convolution and average pooling, three dense layers."""

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
        check_size(x, 16, "the image")
        about = {"kernel_init": lecun_normal}
        for stage, width in enumerate((6, 16), start=1):
            name = f"stage{stage}_conv"
            x = self.layers.conv(width, 5, padding="valid", name=name, **about)(x)
            x = nn.tanh(x)
            self.sow("features", f"stage{stage}_out", x)
            x = pooling.avg_pool2d(x, 2)
        x = x.reshape(x.shape[0], -1)
        for number, width in enumerate((120, 84), start=1):
            x = nn.tanh(self.layers.dense(width, name=f"dense{number}", **about)(x))
        return self.layers.dense(self.num_classes, name="head", **about)(x)


def lenet5(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create LeNet-5: 61,706 parameters with 10 classes and grey 32x32 images."""
    return LeNet5(num_classes, Layers.from_options(options, dtype))


FAMILY = Family("LeNet-5", {"lenet5": lenet5}, input=(32, 1, 10))
