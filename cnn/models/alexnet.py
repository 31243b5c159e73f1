"""AlexNet: torchvision's one-column form, and the two-column form of the paper.

Source: Krizhevsky et al. 2012, https://papers.nips.cc/paper/4824; the one-column
form is that of Krizhevsky 2014, https://arxiv.org/abs/1404.5997
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.family import Family
from cnn.models.layers import (
    Dropout,
    Layers,
    check_size,
    small_normal,
    torch_default,
)
from cnn.models.options import ModelOptions
from cnn.ops import pooling


class AlexNet(nn.Module):
    """Five convolutions, three dense layers.

    Attributes:
        widths: channels of the five convolutions.
        first_padding: pixels around the image.
        groups: of convolutions 2, 4 and 5.
        normalises: whether convolutions 1 and 2 are followed by local response
            normalisation.
        pooled_size: side of what the dense layers see, by adaptive pooling; 0 takes
            the feature map as it is.
        kernel_init: draws the kernels.
    """

    num_classes: int
    widths: tuple[int, ...]
    first_padding: int
    groups: int
    normalises: bool
    pooled_size: int
    kernel_init: Callable[..., jax.Array]
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
        x = self._convolve(x)
        if self.pooled_size:
            x = pooling.adaptive_avg_pool2d(x, self.pooled_size)
        x = x.reshape(x.shape[0], -1)
        for number in (1, 2):
            x = Dropout(name=f"dropout{number}")(x, dropout_rate, train)
            x = nn.relu(self._dense(4096, f"dense{number}")(x))
        return self._dense(self.num_classes, "head")(x)

    def _dense(self, features: int, name: str) -> nn.Module:
        return self.layers.dense(features, kernel_init=self.kernel_init, name=name)

    def _convolve(self, x: jax.Array) -> jax.Array:
        sizes, strides = (11, 5, 3, 3, 3), (4, 1, 1, 1, 1)
        paddings = (self.first_padding, 2, 1, 1, 1)
        grouped = (1, self.groups, 1, self.groups, self.groups)
        check_size(x, sizes[0] - 2 * self.first_padding, "stage1")
        for i, width in enumerate(self.widths):
            stage = f"stage{i + 1}"
            conv = self.layers.conv(
                width,
                sizes[i],
                stride=strides[i],
                padding=paddings[i],
                groups=grouped[i],
                kernel_init=self.kernel_init,
                name=f"{stage}_conv",
            )
            x = nn.relu(conv(x))
            if self.normalises and i < 2:
                x = local_response_norm(x)
            self.sow("features", f"{stage}_out", x)
            if i in (0, 1, 4):
                check_size(x, 3, f"the pooling of {stage}")
                x = pooling.max_pool2d(x, 3, 2)
        return x


def local_response_norm(
    x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> jax.Array:
    """Divide each activation by a power of its neighbouring channels' energy.

    Args:
        size: channels summed over, centred on the own.
        alpha: weight of their sum of squares.
        beta: exponent.
        k: added to the sum.

    Returns:
        `x / (k + alpha · sum of squares over size channels) ** beta`. (PyTorch's
        LocalResponseNorm divides alpha by size.)

    Source: Krizhevsky et al. 2012, section 3.3
    """
    squares = jnp.square(x.astype(jnp.float32))
    low = size // 2
    sums = jax.lax.reduce_window(
        squares,
        0.0,
        jax.lax.add,
        (1, 1, 1, size),
        (1, 1, 1, 1),
        ((0, 0), (0, 0), (0, 0), (low, size - 1 - low)),
    )
    return (x * (k + alpha * sums) ** -beta).astype(x.dtype)


def alexnet(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create torchvision's AlexNet: 61,100,840 parameters with 1000 classes."""
    return AlexNet(
        num_classes,
        widths=(64, 192, 384, 256, 256),
        first_padding=2,
        groups=1,
        normalises=False,
        pooled_size=6,
        kernel_init=torch_default,
        layers=Layers.from_options(options, dtype),
    )


def alexnet_2012(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create the paper's AlexNet with two-group convolutions: 60,965,224 parameters.

    It was published for 227x227 pixels (the paper prints 224, of which 55 outputs
    cannot be made); weights start from N(0, 0.01).
    """
    return AlexNet(
        num_classes,
        widths=(96, 256, 384, 384, 256),
        first_padding=0,
        groups=2,
        normalises=True,
        pooled_size=6,
        kernel_init=small_normal,
        layers=Layers.from_options(options, dtype),
    )


FAMILY = Family(
    "AlexNet",
    {
        "alexnet": alexnet,
        "alexnet_2012": alexnet_2012,
    },
    inputs={"alexnet_2012": (227, 3, 1000)},
)
