"""Layers that families share: convolution, dense, normalisation, dropout.

Activations are [N, H, W, C]. Parameters and running statistics are float32; `dtype`
is what is computed in. Rates of dropout are traced numbers, or None where absent.

Initialisers are made here or in their family's file, once: two closures made by equal
calls are unequal, and so would be the models that hold them.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.ops import (
    batch_norm,
    convolution,
    drop_block,
    geometry,
    pooling,
    standardization,
)

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "elu": nn.elu,
    "leaky_relu": nn.leaky_relu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
}

kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
lecun_normal = nn.initializers.lecun_normal()
small_normal = nn.initializers.normal(0.01)


class Conv(nn.Module):
    """2-D convolution with `kernel` [S, S, C / groups, O] and an optional `bias` [O].

    Attributes:
        features: O.
        kernel_size: S, the same in both directions, or (rows, columns).
        stride: distance between outputs, in pixels.
        padding: pixels added on each side, or (low, high) of each axis, or `same`
            (S // 2), `valid` (none) or `ceil` (as `geometry.pad_to_ceil`).
        groups: into how many separate convolutions the channels are split.
        use_bias: whether a bias is added.
        kernel_init: draws the kernel; with `torch_default` (uniform within
            ±1 / sqrt(fan in)) the bias is drawn likewise, else it starts at 0.
        dtype: what is computed in.
        formulation: `auto` or `plain`; see `convolution.conv2d`.
        standardized: whether the kernel is standardised before it is used.
    """

    features: int
    kernel_size: int | tuple[int, int]
    stride: int = 1
    padding: int | str | geometry.Pairs = "same"
    groups: int = 1
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = kaiming_fan_out
    dtype: Any = jnp.float32
    formulation: str = "auto"
    standardized: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to [N, H', W', O]."""
        size, padding = self.kernel_size, self.padding
        if padding == "ceil":
            padding = geometry.pad_to_ceil(x.shape[1:3], size, self.stride)
        sides = (size, size) if isinstance(size, int) else size
        shape = (*sides, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        used = (
            standardization.standardize_kernel(kernel) if self.standardized else kernel
        )
        x = convolution.conv2d(
            x.astype(self.dtype),
            used.astype(self.dtype),
            stride=self.stride,
            padding=padding,
            groups=self.groups,
            formulation=self.formulation,
        )
        if self.use_bias:
            is_uniform = self.kernel_init is torch_default
            init = _make_bias_init(is_uniform, kernel)
            bias = self.param("bias", init, (self.features,), jnp.float32)
            x = x + jnp.expand_dims(bias.astype(self.dtype), (0, 1, 2))
        return x


class Dense(nn.Module):
    """Dense layer with `kernel` [I, O] and `bias` [O], initialised as `Conv` is.

    Attributes:
        features: O.
        use_bias: whether a bias is added.
        kernel_init: draws the kernel, and the bias with `torch_default`.
        uniform_bias: whether the bias is drawn so with any other `kernel_init` too.
        dtype: what is computed in.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = torch_default
    uniform_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., I] to [..., O]."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if not self.use_bias:
            return x
        is_uniform = self.uniform_bias or self.kernel_init is torch_default
        init = _make_bias_init(is_uniform, kernel)
        bias = self.param("bias", init, (self.features,), jnp.float32)
        leading = tuple(range(x.ndim - 1))
        return x + jnp.expand_dims(bias.astype(self.dtype), leading)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, statistics in float32.

    Attributes:
        momentum: what running statistics keep at each training step (torch's
            momentum is one minus this).
        epsilon: added to the variance.
        unbiased: whether the running variance is that of n - 1, as in PyTorch.
        use_scale: whether there is a scale; without one it is 1.
        zero_init: whether the scale starts at 0 instead of 1.
        dtype: type of the result.

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    unbiased: bool = False
    use_scale: bool = True
    zero_init: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalise with the batch's statistics in training, else the running ones."""
        shape = (x.shape[-1],)
        zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()
        scale = jnp.ones(shape, jnp.float32)
        if self.use_scale:
            init = zeros if self.zero_init else ones
            scale = self.param("scale", init, shape, jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if train:
            y, mean, var = batch_norm.batch_norm(x, scale, bias, self.epsilon)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                bessel = count / max(count - 1, 1) if self.unbiased else 1.0
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * bessel * var
            return y.astype(self.dtype)
        axes = tuple(range(x.ndim - 1))
        factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
        mean, factor, bias = (
            jnp.expand_dims(v, axes) for v in (running_mean.value, factor, bias)
        )
        return ((x.astype(jnp.float32) - mean) * factor + bias).astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation of each image, in float32; `train` changes nothing.

    Attributes:
        groups: of channels, which are normalised together.
        epsilon: added to the variance.
        dtype: type of the result.

    Source: Wu and He 2018, https://arxiv.org/abs/1803.08494
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalise [N, ..., C].

        Raises:
            UserError: a group is a single value, whose result is its bias.
        """
        if math.prod(x.shape[1:]) == self.groups:
            raise UserError(
                f"{'/'.join(self.path) or 'Group normalisation'} normalises a single "
                f"value in each of {self.groups} groups, and its result is the same "
                "whatever the image shows; give larger images (--image_size), or the "
                "layer fewer groups"
            )
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones_init(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        y = standardization.group_norm(x, scale, bias, self.groups, self.epsilon)
        return y.astype(self.dtype)


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


class StochasticDepth(nn.Module):
    """Drop the residual branch of whole images, at a rate that may be traced.

    Attributes:
        share: of the rate that is this block's, in [0, 1]; see `share_depth`.

    Source: Huang et al. 2016, https://arxiv.org/abs/1603.09382
    """

    share: float

    @nn.compact
    def __call__(
        self, x: jax.Array, rate: jax.Array | float | None, train: bool
    ) -> jax.Array:
        """Zero each image's `x` with probability share · rate, scale the others."""
        if rate is None or not train or not self.share:
            return x
        rate = rate * self.share
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, shape)
        return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


class DropBlock(nn.Module):
    """Drop squares of feature maps, at a rate that may be traced.

    Attributes:
        size: side of the squares, in pixels; 0 drops none.
        share: of the rate that is this layer's, in [0, 1].

    Source: as of `ops.drop_block`.
    """

    size: int
    share: float

    @nn.compact
    def __call__(
        self, x: jax.Array, rate: jax.Array | float | None, train: bool
    ) -> jax.Array:
        """Zero about a share `share` · `rate` of [N, H, W, C], and scale the rest."""
        if rate is None or not train or not self.size:
            return x
        height, width = x.shape[1:3]
        chance = drop_block.compute_seed_rate(
            rate * self.share, self.size, height, width
        )
        shape = (len(x), height, width, 1)
        seeds = jax.random.bernoulli(self.make_rng("dropout"), chance, shape)
        return drop_block.drop_block(x, seeds, self.size)


def select_rates(model: nn.Module, rates: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some rates for which a model's call has an argument, by name."""
    known = inspect.signature(type(model).__call__).parameters
    return {name: rate for name, rate in rates.items() if name in known}


def share_depth(number: int, total: int, rule: str = "paper") -> float:
    """Return a block's share of the stochastic depth rate, linear in its depth.

    Args:
        number: of the block among all residual blocks, from 1.
        total: of them.
        rule: `paper`: number / total, so that the first block is dropped too and the
            last at the whole rate; `from_zero`: (number - 1) / (total - 1), which
            spares the first, as timm has it; `below`: (number - 1) / total, of
            EfficientNet's authors and torchvision, which stays below the rate.
    """
    if rule == "paper":
        return number / total
    return (number - 1) / (max(total - 1, 1) if rule == "from_zero" else total)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes a whole model's layers: what all of them share is said once, here.

    It is the attribute `layers` of every model and block. Two of equal settings are
    equal, and so are the models that hold them: they share compiled programs.

    Attributes:
        dtype: what is computed in.
        unbiased: whether running variances are those of n - 1, as in PyTorch.
        formulation: `auto` or `plain`; see `convolution.conv2d`.
        strided_padding: `symmetric`, or `ceil` for windows that stride.
        epsilon: what batch normalisation adds to the variance.
        momentum: what its running statistics keep at each training step.
    """

    dtype: Any = jnp.float32
    unbiased: bool = False
    formulation: str = "auto"
    strided_padding: str = "symmetric"
    epsilon: float = 1e-5
    momentum: float = 0.9

    @classmethod
    def from_options(
        cls,
        options: ModelOptions,
        dtype: Any,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
    ) -> "Layers":
        """Make it from the options that all families share, and a dtype.

        Args:
            epsilon: the family's, where `--bn_epsilon` leaves it.
            momentum: the family's; PyTorch's is one minus this.
        """
        return cls(
            dtype,
            options.bn_variance == "unbiased",
            options.convolution,
            "ceil" if options.strided_padding == "same" else "symmetric",
            options.bn_epsilon or epsilon,
            momentum,
        )

    def conv(
        self, features: int, kernel_size: int | tuple[int, int], **kwargs: Any
    ) -> Conv:
        """Make a convolution; `kwargs` are further attributes of `Conv`."""
        padding = kwargs.get("padding", "same")
        is_strided = kwargs.get("stride", 1) > 1 and isinstance(padding, int)
        if is_strided and padding and self.strided_padding == "ceil":
            kwargs["padding"] = "ceil"
        return Conv(
            features,
            kernel_size,
            dtype=self.dtype,
            formulation=self.formulation,
            **kwargs,
        )

    def norm(self, **kwargs: Any) -> BatchNorm:
        """Make batch normalisation; `kwargs` are further attributes of `BatchNorm`."""
        return BatchNorm(
            self.momentum,
            self.epsilon,
            unbiased=self.unbiased,
            dtype=self.dtype,
            **kwargs,
        )

    def conv_norm(
        self,
        x: jax.Array,
        train: bool,
        features: int,
        kernel_size: int | tuple[int, int],
        name: str,
        activate: Activation | None = None,
        **kwargs: Any,
    ) -> jax.Array:
        """Convolve without bias, normalise and activate [N, H, W, C].

        Args:
            name: the layers become `{name}_conv` and `{name}_norm` of the module that
                is being called; a `stem` keeps its name.
            kwargs: further attributes of `Conv`; padding is `kernel_size // 2`.
        """
        called = name if name == "stem" else f"{name}_conv"
        if isinstance(kernel_size, int):
            kwargs = {"padding": kernel_size // 2} | kwargs
        conv = self.conv(features, kernel_size, use_bias=False, name=called, **kwargs)
        x = self.norm(name=f"{name}_norm")(conv(x), train)
        return activate(x) if activate else x

    def max_pool(self, x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
        """Take maxima over windows of images [N, H, W, C], padded as strides are."""
        if self.strided_padding == "ceil":
            padding = geometry.pad_to_ceil(x.shape[1:3], size, stride)
        return pooling.max_pool2d(x, size, stride, padding=padding)

    def dense(self, features: int, **kwargs: Any) -> Dense:
        """Make a dense layer; `kwargs` are further attributes of `Dense`."""
        return Dense(features, dtype=self.dtype, **kwargs)


# How a family makes a model: (options, number of classes, dtype that it computes in).
Creator = Callable[[ModelOptions, int, Any], nn.Module]


class ImageTooSmall(UserError):
    """An image shrinks to nothing inside a model."""


def ceil_max_pool(x: jax.Array, size: int, stride: int) -> jax.Array:
    """Take maxima over windows of images [N, H, W, C], as `ceil_mode` of PyTorch.

    The last window may end outside the image, but begins inside.
    """
    padding = geometry.pad_last_window(x.shape[1:3], size, stride)
    return pooling.max_pool2d(x, size, stride, padding=padding)


def check_size(x: jax.Array, smallest: int, where: str) -> None:
    """Refuse an activation that is too small for the next layer.

    Args:
        smallest: the least height and width that the layer takes, in pixels.
        where: the layer's name, for the message.

    Raises:
        ImageTooSmall: H or W is smaller.
    """
    height, width = x.shape[1:3]
    if min(height, width) < smallest:
        raise ImageTooSmall(
            f"The image is too small for this model: {where} receives "
            f"{height}x{width} pixels and needs {smallest}x{smallest}"
        )


def _make_bias_init(is_uniform: bool, kernel: jax.Array) -> Callable[..., jax.Array]:
    if not is_uniform:
        return nn.initializers.zeros_init()
    bound = (kernel.size // kernel.shape[-1]) ** -0.5
    return lambda key, shape, dtype: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )
