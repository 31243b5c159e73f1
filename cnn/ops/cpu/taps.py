"""What each tap of a sliding kernel meets: strided slices of the padded image.

Images x are [N, H, W, C], outputs [N, H', W', O]; `stride`, `padding`, `dilation` as in
`convolution_rules`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn.ops import geometry
from cnn.ops.geometry import Pairs


def list_taps(
    x: jax.Array,
    output_shape: Sequence[int],
    kernel_shape: Sequence[int],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
) -> list[jax.Array]:
    """List, for every tap (a, b) in row order, the pixels that it meets.

    Args:
        kernel_shape: its first two axes are those of the taps.

    Returns:
        Sh · Sw arrays [N, H', W', C]: x[:, i·s + a·d − low, j·s + b·d − low].
    """
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = []
    for offset in np.ndindex(*kernel_shape[:2]):
        low = [o * d for o, d in zip(offset, dilation, strict=True)]
        taps.append(geometry.slice_tap(padded, low, output_shape[1:3], stride))
    return taps


def stack_taps(
    x: jax.Array,
    output_shape: Sequence[int],
    kernel_shape: Sequence[int],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
) -> jax.Array:
    """Stack what `list_taps` lists: [N, H', W', Sh, Sw, C].

    A kernel's columns are stacked first, and those once for each of its rows: so more
    than one pixel is copied at a time, by fewer operations.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    for axis in (2, 1):
        step, apart = stride[axis - 1], dilation[axis - 1]
        reach = geometry.extent(output_shape[axis], step)
        starts = [tap * apart for tap in range(kernel_shape[axis - 1])]
        cuts = [lax.slice_in_dim(x, s, s + reach, step, axis) for s in starts]
        x = jnp.stack(cuts, axis=3)
    return x


def sum_dtype(x: jax.Array) -> jnp.dtype:
    """Return the type in which products of x are summed: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)
