"""All-CNN-C: convolutions alone, of which those that stride stand for pooling.

As the paper has it, `--dropout_rate` acts after each stage that strides, and on the
image at 0.4 of it (0.5 and 0.2 there).

Source: Springenberg et al. 2015, table 1 and section 3.1,
    https://arxiv.org/abs/1412.6806
"""

from typing import Any

import flax.linen as nn
import jax

from cnn.models.family import CIFAR, Family
from cnn.models.layers import Conv, Dropout, Layers, check_size, kaiming_fan_in
from cnn.models.options import ModelOptions
from cnn.ops import pooling

# (kernel size, channels, stride, padding) of each convolution, stage by stage. The one
# without padding leaves the 6x6 pixels that the paper averages.
STAGES = (
    ((3, 96, 1, 1), (3, 96, 1, 1), (3, 96, 2, 1)),
    ((3, 192, 1, 1), (3, 192, 1, 1), (3, 192, 2, 1)),
    ((3, 192, 1, 0), (1, 192, 1, 0)),
)
IMAGE_SHARE = 0.4  # of the rate of dropout


class AllCnn(nn.Module):
    """Three stages of convolutions, a 1x1 convolution for a head, global average."""

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
        check_size(x, 9, "the image")
        rate = None if dropout_rate is None else IMAGE_SHARE * dropout_rate
        x = Dropout(name="dropout_image")(x.astype(self.layers.dtype), rate, train)
        for stage, convolutions in enumerate(STAGES, start=1):
            if stage > 1:
                x = Dropout(name=f"dropout{stage - 1}")(x, dropout_rate, train)
            for number, (size, width, stride, padding) in enumerate(convolutions, 1):
                name = f"stage{stage}_conv{number}"
                conv = self._make_conv(
                    width, size, name, stride=stride, padding=padding
                )
                x = nn.relu(conv(x))
            self.sow("features", f"stage{stage}_out", x)
        head = self._make_conv(self.num_classes, 1, "head")
        return pooling.global_avg_pool(nn.relu(head(x)))

    def _make_conv(self, width: int, size: int, name: str, **about: Any) -> Conv:
        return self.layers.conv(
            width, size, kernel_init=kaiming_fan_in, name=name, **about
        )


def all_cnn_c(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create All-CNN-C: 1,369,738 parameters with 10 classes."""
    return AllCnn(num_classes, Layers.from_options(options, dtype))


FAMILY = Family("All-CNN", {"all_cnn_c": all_cnn_c}, input=CIFAR)
