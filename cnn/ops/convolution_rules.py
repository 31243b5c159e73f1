"""The gradients of a 2-D convolution, in formulations that are quick on CPU.

Arrays: x [N, H, W, C], kernel [Sh, Sw, C / groups, O], gradient [N, H', W', O];
`stride`, `padding`, `dilation` as `geometry.resolve_convolution` returns them.

XLA's CPU backend is quick only for convolutions written NHWC, HWIO → NHWC, and the
gradients that JAX derives are not: inside a loop they ran 40 times slower. So the
input gradient is written as such a convolution, and the kernel gradient as matrix
products over chunks of images that fit the cache.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cnn.ops import geometry
from cnn.ops.geometry import Pairs

_CHUNK_BYTES = 1_200_000  # a core's L2 cache is 1–2 MB


def input_gradient(
    gradient: jax.Array,
    kernel: jax.Array,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int,
) -> jax.Array:
    """Compute the 2-D input gradient as one convolution in XLA's quick spelling."""
    config, around = [(0, 0, 0)], []
    for axis in (0, 1):
        reach = geometry.extent(kernel.shape[axis], dilation[axis])
        spread = geometry.extent(gradient.shape[1 + axis], stride[axis])
        low = reach - 1 - padding[axis][0]
        high = shape[1 + axis] + reach - 1 - spread - low
        around.append((max(low, 0), max(high, 0)))
        config.append((min(low, 0), min(high, 0), stride[axis] - 1))
    if config != [(0, 0, 0)] * 3:
        zero = jnp.zeros((), gradient.dtype)
        gradient = lax.pad(gradient, zero, [*config, (0, 0, 0)])
    return lax.conv_general_dilated(
        gradient,
        _exchange_channels(kernel[::-1, ::-1], groups),
        window_strides=(1, 1),
        padding=around,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def kernel_gradient(
    x: jax.Array,
    gradient: jax.Array,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int,
) -> jax.Array:
    """Compute the 2-D kernel gradient as a sum of matrix products over image chunks."""
    height, width, depth, features = shape
    images = x.shape[0]
    if depth * groups == 0 or x.size == 0 or gradient.size == 0:
        return jnp.zeros(shape, x.dtype)
    if stride == (1, 1) and groups == 1 and height * width > 1 and depth >= 8:
        product, columns = _crossed_shifts, width * depth + height * features
    else:
        product, columns = _patches, height * width * depth * groups + features
    pixels = x.shape[1] * x.shape[2] // (stride[0] * stride[1])
    size = max(1, min(images, _CHUNK_BYTES // (pixels * columns * x.dtype.itemsize)))

    def of_chunk(start, size):
        parts = [lax.dynamic_slice_in_dim(a, start, size) for a in (x, gradient)]
        return product(*parts, shape, stride, padding, dilation, groups)

    chunks, rest = divmod(images, size)
    total = of_chunk(images - rest, rest) if rest else 0
    if chunks == 1:
        total = total + of_chunk(0, size)
    else:
        start = jnp.zeros(shape, _sum_dtype(x)) + total
        total = lax.fori_loop(
            0, chunks, lambda i, sum: sum + of_chunk(i * size, size), start
        )
    return total.astype(x.dtype)


def _crossed_shifts(x, gradient, shape, stride, padding, dilation, groups):
    """Shift x along columns and the gradient along rows; one product has all taps.

    A tap (a, b) meets row i + a·d − low of x with row i of the gradient. Moving the
    gradient's rows instead of x's leaves Sw copies of x and Sh of the gradient where
    patches would make Sh·Sw of x, and gives the product two broad sides.
    """
    height, width, depth, features = shape
    count, rows, _, _ = x.shape
    x = jnp.pad(x, ((0, 0), (0, 0), padding[1], (0, 0)))
    ends = gradient.shape[2]
    x = [x[:, :, b * dilation[1] : b * dilation[1] + ends] for b in range(width)]
    moved = []
    for a in range(height):
        low = a * dilation[0] - padding[0][0]
        high = rows - gradient.shape[1] - low
        zero = jnp.zeros((), gradient.dtype)
        around = ((0, 0, 0), (low, high, 0), (0, 0, 0), (0, 0, 0))
        moved.append(lax.pad(gradient, zero, around))
    x = jnp.concatenate(x, -1).reshape(-1, width * depth)
    moved = jnp.concatenate(moved, -1).reshape(-1, height * features)
    product = jnp.matmul(x.T, moved, preferred_element_type=_sum_dtype(x))
    product = product.reshape(width, depth, height, features)
    return product.transpose(2, 0, 1, 3)


def _patches(x, gradient, shape, stride, padding, dilation, groups):
    """Multiply the gradient with the patches of x that its pixels saw."""
    height, width, depth, features = shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = jnp.stack(
        [
            _shifted(padded, gradient.shape, (a, b), stride, dilation)
            for a in range(height)
            for b in range(width)
        ],
        axis=3,
    )
    kind = _sum_dtype(x)
    if groups == 1:
        taps = taps.reshape(-1, height * width * depth)
        pixels = gradient.reshape(-1, features)
        product = jnp.matmul(taps.T, pixels, preferred_element_type=kind)
        return product.reshape(shape)
    taps = taps.reshape(-1, height * width, groups, depth)
    pixels = gradient.reshape(-1, groups, features // groups)
    product = jnp.einsum("ptgc,pgo->tcgo", taps, pixels, preferred_element_type=kind)
    return product.reshape(shape)


def _sum_dtype(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _exchange_channels(kernel: jax.Array, groups: int) -> jax.Array:
    """Turn [Sh, Sw, C / groups, O] into [Sh, Sw, O / groups, C]."""
    height, width, depth, features = kernel.shape
    split = kernel.reshape(height, width, depth, groups, features // groups)
    split = split.transpose(0, 1, 4, 3, 2)
    return split.reshape(height, width, features // groups, groups * depth)


def _shifted(
    padded: jax.Array,
    shape: tuple[int, ...],
    offset: tuple[int, int],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> jax.Array:
    """Return the pixels that the kernel's tap at `offset` meets, [N, H', W', C]."""
    low = [o * d for o, d in zip(offset, dilation, strict=True)]
    high = [
        lo + geometry.extent(n, s)
        for lo, n, s in zip(low, shape[1:3], stride, strict=True)
    ]
    limits = (padded.shape[0], *high, padded.shape[-1])
    return lax.slice(padded, (0, *low, 0), limits, (1, *stride, 1))
