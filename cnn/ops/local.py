"""Locally connected layers: a convolution whose kernel differs at every position.

With the same kernel everywhere they equal the convolution; what they give up is the
sharing of weights, not the smallness of the windows. Stride and padding are as in
`convolution`; shapes or numbers that do not fit together raise ValueError.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cnn.ops import geometry
from cnn.ops.geometry import Padding


def locally_connected2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
) -> jax.Array:
    """Meet every window of the image with weights of its own.

    y[n, i, j, o] = Σ_abc x[n, i·s + a − low, j·s + b − low, c] · k[i, j, a, b, c, o].

    Args:
        kernel: float array [H', W', Sh, Sw, C, O]; cast to x's dtype.

    Returns:
        [N, H', W', O] in x's dtype.

    Source: LeCun, Generalization and network design strategies (1989), §5,
        http://yann.lecun.com/exdb/publis/pdf/lecun-89.pdf
    """
    return _locally_connected(x, kernel, 2, stride, padding)


def locally_connected1d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: Padding = "valid"
) -> jax.Array:
    """Meet every window of the sequence with weights of its own.

    y[n, i, o] = Σ_ac x[n, i·stride + a − low, c] kernel[i, a, c, o].

    Args:
        kernel: float array [L', S, C, O]; cast to x's dtype.

    Returns:
        [N, L', O] in x's dtype.
    """
    return _locally_connected(x, kernel, 1, stride, padding)


def _locally_connected(x, kernel, axes, stride, padding) -> jax.Array:
    if x.ndim != axes + 2 or kernel.ndim != 2 * axes + 2:
        raise ValueError(
            f"x {list(x.shape)} and kernel {list(kernel.shape)}: give "
            + ("[N, L, C] with [L', S, C, O]" if axes == 1 else "")
            + ("[N, H, W, C] with [H', W', Sh, Sw, C, O]" if axes == 2 else "")
        )
    shared = kernel.shape[axes:]
    static = geometry.resolve_convolution(x.shape, shared, stride, padding, 1, 1)
    shape = geometry.convolution_shape(x.shape, shared, static)
    if kernel.shape[:axes] != shape[1:-1]:
        raise ValueError(
            f"kernel {list(kernel.shape)} has {list(kernel.shape[:axes])} positions, "
            f"but x {list(x.shape)} has {list(shape[1:-1])} windows"
        )
    steps, pairs = static[:2]
    padded = jnp.pad(x, ((0, 0), *pairs, (0, 0)))
    total = jnp.zeros(shape, jnp.promote_types(x.dtype, jnp.float32))
    letters = "hw"[:axes]
    for offset in np.ndindex(*shared[:axes]):
        total = total + jnp.einsum(
            f"n{letters}c,{letters}co->n{letters}o",
            geometry.slice_tap(padded, offset, shape[1:-1], steps),
            kernel[(slice(None),) * axes + offset].astype(x.dtype),
            preferred_element_type=total.dtype,
        )
    return total.astype(x.dtype)
