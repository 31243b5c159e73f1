"""The network of the CIFAR-10 speedrun: whitening stem, three groups, one dense layer.

Made to be trained in ten epochs; see `configs/cifar10_speedrun.py`.

Source: Jordan 2024, https://arxiv.org/abs/2404.00498
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models.family import CIFAR, Family
from cnn.models.layers import Dropout, Layers, check_size, torch_default
from cnn.models.options import ModelOptions
from cnn.ops import pooling


def identity_first(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draw a kernel [S, S, I, O] whose first min(I, O) outputs are their inputs.

    The others are drawn as PyTorch draws them; S is odd, so that there is a centre.

    Source: Zagoruyko and Komodakis 2017 (Dirac), https://arxiv.org/abs/1706.00388
    """
    side, _, inputs, outputs = shape
    drawn = torch_default(key, shape, dtype)
    identity = jnp.zeros(shape, dtype)
    identity = identity.at[side // 2, side // 2].set(jnp.eye(inputs, outputs))
    return jnp.where(jnp.arange(outputs)[None, None, None] < inputs, identity, drawn)


class AirbenchGroup(nn.Module):
    """Two 3x3 convolutions that start as the identity, pooled after the first.

    What batch normalisation keeps is short-sighted, as there are but ten epochs.

    Attributes:
        features: channels of the result.
    """

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [N, H, W, C] to [N, H // 2, W // 2, features]."""
        for number in (1, 2):
            conv = self.layers.conv(
                self.features,
                3,
                use_bias=False,
                kernel_init=identity_first,
                name=f"conv{number}",
            )
            x = conv(x)
            if number == 1:
                check_size(x, 2, f"the pooling of {self.name}")
                x = pooling.max_pool2d(x, 2)
            norm = self.layers.norm(use_scale=False, name=f"norm{number}")
            x = nn.gelu(norm(x, train), approximate=False)
        return x


class Airbench(nn.Module):
    """A 2x2 stem, three groups, the largest of each channel, a dense layer over 9.

    The stem has two filters for each dimension of its patches: they hold a whitening
    and its negative (`--whitening_images`).

    Attributes:
        width: channels of the first group.
    """

    num_classes: int
    width: int
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
        check_size(x, 2, "the stem")
        filters = 2 * 2 * 2 * x.shape[-1]
        x = self.layers.conv(filters, 2, padding="valid", name="stem")(x)
        x = nn.gelu(x, approximate=False)
        self.sow("features", "stem_out", x)
        for number, factor in enumerate((1, 4, 4), start=1):
            name = f"stage{number}"
            x = AirbenchGroup(factor * self.width, self.layers, name=name)(x, train)
            self.sow("features", f"{name}_out", x)
        x = pooling.global_max_pool(x)
        x = Dropout(name="dropout")(x, dropout_rate, train)
        return self.layers.dense(self.num_classes, use_bias=False, name="head")(x) / 9


def airbench94(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create the speedrun network of `--airbench_width`."""
    layers = Layers.from_options(options, dtype, epsilon=1e-12, momentum=0.6)
    return Airbench(num_classes, options.airbench_width, layers)


FAMILY = Family(
    "airbench, a speedrun on CIFAR-10",
    {
        "airbench94": airbench94,
    },
    input=CIFAR,
)
