"""The network of the CIFAR-10 speedrun: whitening stem, three groups, one dense layer.

Made to be trained in ten epochs; see `configs/cifar10_speedrun.py`.

Source: Jordan 2024, https://arxiv.org/abs/2404.00498
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.models import layers
from cnn.ops import pooling
from cnn.options import option

gelu = functools.partial(nn.gelu, approximate=False)


@dataclasses.dataclass(frozen=True)
class AirbenchOptions:
    """The speedrun network's choices."""

    airbench_width: int = option(
        64,
        "channels of airbench94's first group; the other two have four times as many",
        within="[1, inf)",
    )


def identity_first(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draw a kernel [S, S, I, O] whose first min(I, O) outputs are their inputs.

    The others are drawn as PyTorch draws them; S is odd, so that there is a centre.

    Source: Zagoruyko and Komodakis 2017 (Dirac), https://arxiv.org/abs/1706.00388
    """
    side, _, inputs, outputs = shape
    drawn = layers.torch_default(key, shape, dtype)
    identity = jnp.zeros(shape, dtype)
    identity = identity.at[side // 2, side // 2].set(jnp.eye(inputs, outputs))
    return jnp.where(jnp.arange(outputs)[None, None, None] < inputs, identity, drawn)


class AirbenchGroup(nn.Module):
    """Two 3x3 convolutions that start as the identity, pooled after the first.

    Attributes:
        features: channels of the result.
        conv: makes convolutions.
        norm: makes batch normalisation.
    """

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [N, H, W, C] to [N, H // 2, W // 2, features]."""
        conv = functools.partial(
            self.conv,
            self.features,
            3,
            use_bias=False,
            kernel_init=identity_first,
        )
        x = conv(name="conv1")(x)
        layers.check_size(x, 2, f"the pooling of {self.name}")
        x = pooling.max_pool2d(x, 2)
        x = gelu(self.norm(name="norm1")(x, train))
        x = conv(name="conv2")(x)
        return gelu(self.norm(name="norm2")(x, train))


class Airbench(nn.Module):
    """A 2x2 stem, three groups, the largest of each channel, a dense layer over 9.

    The stem has two filters for each dimension of its patches: they hold a whitening
    and its negative (`--whitening_images`).

    Attributes:
        num_classes: K.
        width: channels of the first group.
        conv: makes convolutions.
        norm: makes batch normalisation.
        dense: makes dense layers.
    """

    num_classes: int
    width: int
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
        layers.check_size(x, 2, "the stem")
        filters = 2 * 2 * 2 * x.shape[-1]
        x = gelu(self.conv(filters, 2, padding="valid", name="stem")(x))
        self.sow("features", "stem_out", x)
        for number, factor in enumerate((1, 4, 4), start=1):
            name = f"stage{number}"
            group = AirbenchGroup(
                factor * self.width, conv=self.conv, norm=self.norm, name=name
            )
            x = group(x, train)
            self.sow("features", f"{name}_out", x)
        x = pooling.global_max_pool(x)
        x = layers.Dropout(name="dropout")(x, dropout_rate, train)
        return self.dense(self.num_classes, use_bias=False, name="head")(x) / 9


def airbench94(options: Any, num_classes: int, dtype: Any) -> nn.Module:
    """Create the speedrun network from `AirbenchOptions`."""
    conv, norm, dense = layers.make_layers(options, dtype)
    # What batch normalisation keeps is short-sighted, as there are but ten epochs.
    norm = functools.partial(norm, momentum=0.6, epsilon=1e-12, use_scale=False)
    return Airbench(num_classes, options.airbench_width, conv, norm, dense)
