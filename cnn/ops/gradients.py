"""The two gradients of a convolution, as functions of their own.

Arrays are channels-last: x [N, H, W, C], kernel [Sh, Sw, C / groups, O] and the
gradient of the loss with respect to the output, g [N, H', W', O]; one spatial axis
less in 1-D. The convolution is y = Σ_ab x[·s + a·d − low] kernel[a, b].

The formulas are spelled for XLA's CPU backend, which is quick only for convolutions
written NHWC, HWIO → NHWC; those that JAX derives by itself are not written so.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnn.ops import geometry
from cnn.ops.geometry import Padding, Pairs

_SPELLING = ("NHWC", "HWIO", "NHWC")


def convolution_input_gradient(
    gradient: jax.Array,
    kernel: jax.Array,
    input_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """Compute ∂loss/∂x of a convolution from ∂loss/∂y.

    For a valid convolution of stride 1 it is the full convolution of the gradient
    with the flipped kernel, input and output channels exchanged. A stride s puts
    s − 1 zeros between the gradient's pixels first; padding trims the result.

    Args:
        gradient: ∂loss/∂y, [N, H', W', O], or [N, L', O] in 1-D.
        kernel: [Sh, Sw, C / groups, O], or [S, C / groups, O] in 1-D.
        input_shape: the shape of x, [N, H, W, C] or [N, L, C].
        stride: as in the convolution.
        padding: as in the convolution.
        dilation: as in the convolution.
        groups: as in the convolution.

    Returns:
        ∂loss/∂x of `input_shape`, in the gradient's dtype.

    Raises:
        ValueError: the shapes do not belong to one convolution.

    Source: Goodfellow, Bengio, Courville, Deep Learning (2016), §9.5,
        https://www.deeplearningbook.org/contents/convnets.html
    """
    shape = tuple(input_shape)
    static = resolve(shape, kernel.shape, stride, padding, dilation, groups)
    _check_gradient(gradient, shape, kernel.shape, static)
    kernel = kernel.astype(gradient.dtype)
    if len(shape) == 4:
        return input_gradient(gradient, kernel, shape, *static)
    flat = (shape[0], 1, *shape[1:])
    out = input_gradient(gradient[:, None], kernel[None], flat, *lift(static))
    return out[:, 0]


def convolution_kernel_gradient(
    x: jax.Array,
    gradient: jax.Array,
    kernel_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """Compute ∂loss/∂kernel of a convolution from ∂loss/∂y.

    At the kernel's offset (a, b) it is Σ over images and output pixels of
    x[n, i·s + a·d − low, j·s + b·d − low, c] · g[n, i, j, o].

    Args:
        x: the convolution's input, [N, H, W, C], or [N, L, C] in 1-D.
        gradient: ∂loss/∂y, [N, H', W', O], or [N, L', O] in 1-D.
        kernel_shape: [Sh, Sw, C / groups, O], or [S, C / groups, O] in 1-D.
        stride: as in the convolution.
        padding: as in the convolution.
        dilation: as in the convolution.
        groups: as in the convolution.

    Returns:
        ∂loss/∂kernel of `kernel_shape`, in x's dtype.

    Raises:
        ValueError: the shapes do not belong to one convolution.
    """
    shape = tuple(kernel_shape)
    static = resolve(x.shape, shape, stride, padding, dilation, groups)
    _check_gradient(gradient, x.shape, shape, static)
    gradient = gradient.astype(x.dtype)
    if x.ndim == 4:
        return kernel_gradient(x, gradient, shape, *static)
    lifted = kernel_gradient(x[:, None], gradient[:, None], (1, *shape), *lift(static))
    return lifted[0]


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
        dimension_numbers=_SPELLING,
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
    """Compute the 2-D kernel gradient as one matrix product for each offset."""
    height, width, depth, features = shape
    pixels = gradient.reshape(-1, groups, features // groups)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows = []
    for a in range(height):
        for b in range(width):
            taps = _shifted(padded, gradient.shape, (a, b), stride, dilation)
            rows.append(
                jnp.einsum(
                    "pgc,pgo->cgo",
                    taps.reshape(-1, groups, depth),
                    pixels,
                    preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
                )
            )
    return jnp.stack(rows).reshape(shape).astype(x.dtype)


def resolve(
    shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    groups: int,
) -> tuple[tuple[int, ...], Pairs, tuple[int, ...], int]:
    """Check a convolution's shapes; return (stride, padding, dilation, groups).

    Raises:
        ValueError: the shapes do not belong to one convolution.
    """
    axes = len(shape) - 2
    if axes not in (1, 2) or len(kernel_shape) != axes + 2:
        raise ValueError(
            f"x {list(shape)} and kernel {list(kernel_shape)}: give [N, L, C] with "
            "[S, C / groups, O], or [N, H, W, C] with [Sh, Sw, C / groups, O]"
        )
    (groups,) = geometry.per_axis("groups", groups, 1)
    strides = geometry.per_axis("stride", stride, axes)
    dilations = geometry.per_axis("dilation", dilation, axes)
    channels, (depth, features) = shape[-1], kernel_shape[-2:]
    if depth * groups != channels or features % groups:
        raise ValueError(
            f"{channels} input and {features} output channels in {groups} groups "
            f"do not fit kernel {list(kernel_shape)}: its last axes must be "
            "[input channels / groups, output channels], both divisible by groups"
        )
    pairs = geometry.resolve_padding(padding, kernel_shape[:axes], dilations)
    return strides, pairs, dilations, groups


def lift(static: tuple) -> tuple:
    """Return the static arguments of the 2-D convolution of height 1 for a 1-D one."""
    stride, padding, dilation, groups = static
    return (1, *stride), ((0, 0), *padding), (1, *dilation), groups


def output_shape(
    shape: tuple[int, ...], kernel_shape: tuple[int, ...], static: tuple
) -> tuple[int, ...]:
    """Return the shape of a convolution's output.

    Raises:
        ValueError: the kernel is larger than the padded input.
    """
    stride, padding, dilation, _ = static
    axes = zip(shape[1:-1], kernel_shape, stride, padding, dilation, strict=False)
    return (
        shape[0],
        *(geometry.output_length(*axis) for axis in axes),
        kernel_shape[-1],
    )


def _check_gradient(
    gradient: jax.Array, shape: tuple, kernel_shape: tuple, static: tuple
) -> None:
    expected = output_shape(shape, kernel_shape, static)
    if gradient.shape != expected:
        raise ValueError(
            f"gradient {list(gradient.shape)}: x {list(shape)} and kernel "
            f"{list(kernel_shape)} give an output of {list(expected)}"
        )


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
