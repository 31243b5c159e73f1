"""Pooling in one and two dimensions.

Arrays are channels-last, [N, H, W, C] or [N, L, C]. Padding neither counts nor
invents values: a maximum is taken over, and an average divided by, the real pixels
of a window only. Floats and integers keep their dtype, but averages of integers are
float32.

`window` and `stride` are pixels, one number or one for each axis, and windows stand
side by side when no stride is given. `padding` is as in `convolution.conv2d`, at most
half the window. Shapes or numbers that do not fit together raise ValueError.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnn.ops import geometry, pooling_rules
from cnn.ops.geometry import Padding


def max_pool2d(
    x: jax.Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
) -> jax.Array:
    """Take the largest value of each window.

    Returns:
        [N, H', W', C], H' = (H + top + bottom − height) // stride + 1.
        The gradient goes to the first largest value of a window, row by row.
    """
    return pooling_rules.window_max(x, *_resolve(x, 2, window, stride, padding))


def max_pool1d(
    x: jax.Array, window: int, stride: int | None = None, padding: Padding = 0
) -> jax.Array:
    """Take the largest value of each window.

    Returns:
        [N, L', C]. The gradient goes to the first largest value.
    """
    return pooling_rules.window_max(x, *_resolve(x, 1, window, stride, padding))


def avg_pool2d(
    x: jax.Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
) -> jax.Array:
    """Average the real pixels of each window.

    Returns:
        [N, H', W', C].
    """
    return _avg_pool(x, 2, window, stride, padding)


def avg_pool1d(
    x: jax.Array, window: int, stride: int | None = None, padding: Padding = 0
) -> jax.Array:
    """Average the real positions of each window.

    Returns:
        [N, L', C].
    """
    return _avg_pool(x, 1, window, stride, padding)


def global_max_pool(x: jax.Array) -> jax.Array:
    """Take the maximum over all spatial axes: [N, ..., C] → [N, C].

    Raises:
        ValueError: x has no spatial axis.
    """
    return jnp.max(x, axis=_spatial_axes(x))


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Average over all spatial axes: [N, ..., C] → [N, C], whatever the image size.

    Raises:
        ValueError: x has no spatial axis.

    Source: Lin, Chen, Yan, Network In Network (2014), §3.2,
        https://arxiv.org/abs/1312.4400
    """
    return jnp.mean(_floating(x), axis=_spatial_axes(x))


def adaptive_avg_pool2d(x: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Average images of any size down, or up, to a given size.

    Output row i averages the input rows ⌊i·H / H'⌋ … ⌈(i + 1)·H / H'⌉ − 1; columns
    likewise. Each axis is one product with a [H', H] matrix of averages.

    Args:
        size: H' and W'; one number or (rows, columns).

    Returns:
        [N, H', W', C].

    Raises:
        ValueError: x is not [N, H, W, C], or size is not positive.

    Source: torch.nn.AdaptiveAvgPool2d, the layer before the dense ones in
        torchvision's AlexNet (6) and VGG (7).
    """
    if x.ndim != 4:
        raise ValueError(f"x {list(x.shape)}: adaptive_avg_pool2d takes [N, H, W, C]")
    size = geometry.per_axis("size", size, 2)
    x = _floating(x)
    if x.shape[1:3] == size:
        return x
    rows = _averages(x.shape[1], size[0]).astype(x.dtype)
    columns = _averages(x.shape[2], size[1]).astype(x.dtype)
    precision = lax.Precision.HIGHEST
    return jnp.einsum("ih,jw,nhwc->nijc", rows, columns, x, precision=precision)


def _averages(length: int, size: int) -> jax.Array:
    """Return the [size, length] matrix whose row i averages the i-th part."""
    i, position = jnp.arange(size)[:, None], jnp.arange(length)[None, :]
    start, end = i * length // size, -(-(i + 1) * length // size)
    inside = (start <= position) & (position < end)
    return inside / (end - start)


def _avg_pool(x, axes, window, stride, padding) -> jax.Array:
    static = _resolve(x, axes, window, stride, padding)
    x = _floating(x)
    ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    counts = pooling_rules.window_sum(ones, *static)
    return pooling_rules.window_sum(x, *static) / counts


def _resolve(x, axes, window, stride, padding):
    if x.ndim != axes + 2:
        raise ValueError(
            f"x {list(x.shape)}: pooling in {axes}-D takes "
            + ("[N, L, C]" if axes == 1 else "[N, H, W, C]")
        )
    window = geometry.per_axis("window", window, axes)
    stride = geometry.per_axis("stride", window if stride is None else stride, axes)
    pairs = geometry.resolve_padding(padding, window, (1,) * axes)
    for size, pair in zip(window, pairs, strict=True):
        if max(pair) > size // 2:
            raise ValueError(
                f"padding={padding!r} is more than half the window {window}: "
                "some windows would hold no pixel"
            )
    for length, *numbers in zip(x.shape[1:-1], window, stride, pairs, strict=True):
        geometry.output_length(length, *numbers)
    return window, stride, pairs


def _spatial_axes(x: jax.Array) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ValueError(f"x {list(x.shape)}: global pooling takes [N, ..., C]")
    return tuple(range(1, x.ndim - 1))


def _floating(x: jax.Array) -> jax.Array:
    """Return integers as float32, anything else as it is."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
