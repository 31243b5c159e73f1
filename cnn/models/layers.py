"""Layers that model families share: convolution, normalisation, dropout, activations.

Activations are [N, H, W, C]. Parameters and running statistics are float32; `dtype`
is what is computed in. Rates of dropout are traced numbers, or None where absent.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.errors import UserError
from cnn.ops import convolution

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "elu": nn.elu,
    "leaky_relu": nn.leaky_relu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
}

kaiming_fan_in = nn.initializers.he_normal()
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """2-D convolution with `kernel` [S, S, C / groups, O] and an optional `bias` [O].

    Attributes:
        features: O.
        kernel_size: S, the same in both directions.
        stride: distance between outputs, in pixels.
        padding: pixels added on each side, or `same` (S // 2) or `valid` (none).
        groups: into how many separate convolutions the channels are split.
        use_bias: whether a bias is added.
        kernel_init: draws the kernel.
        dtype: what is computed in.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int | str = "same"
    groups: int = 1
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = kaiming_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to [N, H', W', O]."""
        size = self.kernel_size
        shape = (size, size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = convolution.conv2d(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        if self.use_bias:
            zeros = nn.initializers.zeros_init()
            bias = self.param("bias", zeros, (self.features,), jnp.float32)
            x = x + jnp.expand_dims(bias.astype(self.dtype), (0, 1, 2))
        return x


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, statistics in float32.

    Attributes:
        momentum: what running statistics keep at each training step (torch's
            momentum is one minus this).
        epsilon: added to the variance.
        unbiased: whether the running variance is that of n - 1, as in PyTorch.
        scale_init: draws the scale.
        dtype: type of the result.

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    unbiased: bool = False
    scale_init: Callable[..., jax.Array] = nn.initializers.ones_init()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalise with the batch's statistics in training, else the running ones."""
        shape, zeros = (x.shape[-1],), nn.initializers.zeros_init()
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        x, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
        if train:
            mean = jnp.mean(x, axes)
            var = jnp.mean(jnp.square(x - jnp.expand_dims(mean, axes)), axes)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                bessel = count / max(count - 1, 1) if self.unbiased else 1.0
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * bessel * var
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        mean, factor, bias = (jnp.expand_dims(v, axes) for v in (mean, factor, bias))
        return ((x - mean) * factor + bias).astype(self.dtype)


class Dropout(nn.Module):
    """Dropout whose rate may be a traced number."""

    @nn.compact
    def __call__(
        self, x: jax.Array, rate: jax.Array | float | None, train: bool
    ) -> jax.Array:
        """Zero a share `rate` of `x` and scale the rest by 1 / (1 - rate)."""
        if rate is None or not train:
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, x.shape)
        return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def check_size(x: jax.Array, smallest: int, where: str) -> None:
    """Refuse an activation that is too small for the next layer.

    Args:
        x: [N, H, W, C].
        smallest: the least height and width that the layer takes, in pixels.
        where: the layer's name, for the message.

    Raises:
        UserError: H or W is smaller.
    """
    height, width = x.shape[1:3]
    if min(height, width) < smallest:
        raise UserError(
            f"The image is too small for this model: {where} receives "
            f"{height}x{width} pixels and needs {smallest}x{smallest}. Give a larger "
            "--image_size, or a model with less downsampling."
        )
