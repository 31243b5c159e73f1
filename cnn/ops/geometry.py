"""The arithmetic of windows that slide over an axis: lengths, padding, checks.

Axes are described by one whole number each: `length` of the input, `size` of the
window, `stride` between windows, `dilation` between the window's taps. A window of
size s and dilation d covers an extent of (s − 1)·d + 1.
"""

from collections.abc import Sequence

import jax
from jax import lax

# `valid`, `same`, `full`; one number for all sides; (low, high) for every axis; or one
# (low, high) for each axis. `resolve_padding` says what they mean.
Padding = str | int | tuple[int, int] | Sequence[tuple[int, int]]
Pairs = tuple[tuple[int, int], ...]


def per_axis(name: str, value: int | Sequence[int], axes: int, least: int = 1):
    """Return one whole number for each axis from one for all, or from one for each.

    `name` is what the error calls it.

    Raises:
        ValueError: not whole numbers, too small, or not one for each axis.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * axes
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if len(values) != axes or not whole or min(values) < least:
        raise ValueError(
            f"{name}={value!r}: give one whole number of at least {least}"
            + ("" if axes == 1 else f", or a tuple of {axes}")
        )
    return values


def extent(size: int, dilation: int = 1) -> int:
    """Return how far a window of `size` taps reaches: (size − 1)·dilation + 1."""
    return (size - 1) * dilation + 1


def resolve_padding(
    padding: Padding, sizes: Sequence[int], dilations: Sequence[int]
) -> Pairs:
    """Return (low, high) padding for every axis.

    With the window's extent e: `valid` is (0, 0), `full` is (e − 1, e − 1), and
    `same` is ((e − 1) // 2, e // 2), which is e // 2 on both sides for odd extents
    and one more on the right or bottom for even ones, whatever the stride.

    Raises:
        ValueError: none of these.
    """
    extents = [extent(s, d) for s, d in zip(sizes, dilations, strict=True)]
    if padding == "valid":
        return ((0, 0),) * len(extents)
    if padding == "same":
        return tuple(((e - 1) // 2, e // 2) for e in extents)
    if padding == "full":
        return tuple((e - 1, e - 1) for e in extents)
    pairs = padding
    if _is_size(padding):
        pairs = ((padding, padding),) * len(extents)
    elif _is_pair(padding):
        pairs = (tuple(padding),) * len(extents)
    listed = isinstance(pairs, list | tuple) and len(pairs) == len(extents)
    if not listed or not all(_is_pair(pair) for pair in pairs):
        raise ValueError(
            f"padding={padding!r}: give 'valid', 'same', 'full', one whole number, "
            f"(low, high), or {len(extents)} such pairs, none negative"
        )
    return tuple(tuple(pair) for pair in pairs)


def pad_to_ceil(lengths: Sequence[int], size: int, stride: int) -> Pairs:
    """Return the (low, high) padding with which ceil(length / stride) windows fit.

    The odd pixel goes to the right and bottom: TensorFlow's and Flax's SAME, another
    padding than `same` here wherever windows stride.

    Args:
        lengths: of the axes, in pixels.
        size: of the window on every axis.
        stride: likewise.
    """
    totals = (max((-(-n // stride) - 1) * stride + size - n, 0) for n in lengths)
    return tuple((total // 2, total - total // 2) for total in totals)


def pad_last_window(lengths: Sequence[int], size: int, stride: int) -> Pairs:
    """Return the padding with which the last window begins inside and may end outside.

    It is `ceil_mode` of PyTorch's poolings, and what Caffe's always do. Nothing is
    added before the first pixel.
    """
    return tuple((0, (size - length) % stride) for length in lengths)


def output_length(
    length: int, size: int, stride: int, padding: tuple[int, int], dilation: int = 1
) -> int:
    """Return how many windows fit: (length + low + high − extent) // stride + 1.

    Raises:
        ValueError: the window is longer than the padded axis.
    """
    room = length + sum(padding) - extent(size, dilation)
    if room < 0:
        raise ValueError(
            f"a window of {size} taps with dilation {dilation} reaches "
            f"{extent(size, dilation)} pixels, but the axis has {length} plus padding "
            f"{padding}; give a larger input, more padding or a smaller window"
        )
    return room // stride + 1


def resolve_convolution(
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
    (groups,) = per_axis("groups", groups, 1)
    strides = per_axis("stride", stride, axes)
    dilations = per_axis("dilation", dilation, axes)
    channels, (depth, features) = shape[-1], kernel_shape[-2:]
    if depth * groups != channels or features % groups:
        raise ValueError(
            f"{channels} input and {features} output channels in {groups} groups "
            f"do not fit kernel {list(kernel_shape)}: its last axes must be "
            "[input channels / groups, output channels], both divisible by groups"
        )
    pairs = resolve_padding(padding, kernel_shape[:axes], dilations)
    return strides, pairs, dilations, groups


def lift(static: tuple) -> tuple:
    """Return the static arguments of the 2-D convolution of height 1 for a 1-D one."""
    stride, padding, dilation, groups = static
    return (1, *stride), ((0, 0), *padding), (1, *dilation), groups


def convolution_shape(
    shape: tuple[int, ...], kernel_shape: tuple[int, ...], static: tuple
) -> tuple[int, ...]:
    """Return the shape of a convolution's output.

    Raises:
        ValueError: the kernel is larger than the padded input.
    """
    stride, padding, dilation, _ = static
    axes = zip(shape[1:-1], kernel_shape, stride, padding, dilation, strict=False)
    return (shape[0], *(output_length(*axis) for axis in axes), kernel_shape[-1])


def slice_tap(
    padded: jax.Array,
    offset: Sequence[int],
    counts: Sequence[int],
    stride: Sequence[int],
) -> jax.Array:
    """Cut out what one tap of all windows meets: x[:, offset + i·stride], i < counts.

    Returns:
        [N, *counts, C].
    """
    axes = zip(offset, counts, stride, strict=True)
    high = [low + extent(count, step) for low, count, step in axes]
    limits = (padded.shape[0], *high, padded.shape[-1])
    return lax.slice(padded, (0, *offset, 0), limits, (1, *stride, 1))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_pair(value: object) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and all(_is_size(side) for side in value)


def plain_convolution(
    x: jax.Array,
    kernel: jax.Array,
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int,
) -> jax.Array:
    """Convolve as XLA does it, in the spelling that its CPU backend is fast for."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
