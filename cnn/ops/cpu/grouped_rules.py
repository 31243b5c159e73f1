"""Grouped and depthwise convolutions in formulations that are fast on CPU.

XLA's CPU backend computes them a few channels at a time. A depthwise convolution is
one product a tap, with all channels side by side (16 images 32x32x96, 3x3: 1.2 ms
against 37 on one core); other groups are merged into blocks of at least 16 channels,
each an ordinary convolution of a kernel that is zero between groups (32 groups of
16: 2.5 ms against 6.7).

Arrays: x [N, H, W, C], kernel [Sh, Sw, C / groups, O], result and its gradient [N, H',
W', O]; `stride`, `padding`, `dilation` as in `convolution_rules`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cnn.ops import geometry
from cnn.ops.cpu.taps import list_taps, sum_dtype
from cnn.ops.geometry import Pairs

_BLOCK_CHANNELS = 16
_MOST_BLOCKS = 32  # each is an operation of its own, which compilation feels
_SUMS_BYTES = 500_000  # half of a small L2 cache
_COLUMNS = 8  # at most, whose products are added up before a sum is read and written


def is_depthwise(kernel_shape: tuple[int, ...], groups: int) -> bool:
    """Say whether every channel has kernels of its own."""
    return groups > 1 and kernel_shape[2] == 1


def is_onednns(x: jax.Array, kernel_shape: tuple[int, ...], static: tuple) -> bool:
    """Say whether oneDNN, if the program calls it, is faster than one product a tap.

    On 2 cores of an EPYC with AVX-512, CPU time of 32 images: 32x32x96, 3x3, 3.4
    against 2.3 ms; 4x4x672, 5x5, 0.85 against 0.29.

    Args:
        static: (stride, padding, dilation, groups) of the convolution.
    """
    is_each = static[3] == x.shape[-1] == kernel_shape[-1]
    is_single = x.dtype == jnp.float32 and static[2] == (1, 1)
    return is_each and is_single and is_depthwise(kernel_shape, static[3])


def convolve_depthwise(
    x: jax.Array,
    kernel: jax.Array,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
) -> jax.Array:
    """Compute a depthwise convolution as a sum of one product a tap.

    Args:
        kernel: [Sh, Sw, 1, O], O a multiple of C.
    """
    wide = jnp.repeat(x, shape[-1] // x.shape[-1], -1).astype(sum_dtype(x))
    taps = list_taps(wide, shape, kernel.shape, stride, padding, dilation)
    weights = kernel.reshape(-1, 1, 1, 1, shape[-1])
    return sum(t * w for t, w in zip(taps, weights, strict=True)).astype(x.dtype)


def depthwise_kernel_gradient(
    x: jax.Array,
    gradient: jax.Array,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
) -> jax.Array:
    """Compute the kernel gradient of a depthwise convolution.

    A loop over rows adds to sums that stay in the cache, one a tap and some columns,
    which are added up first; as one reduction it is not vectorised and takes 12 times
    as long. With a sum for each column reading and writing sums takes the time (32
    images 32x32x96, 3x3: 5.6 instead of 3.9 ms; 8x8x240, 5x5: 1.9 instead of 1.2).

    Args:
        shape: of the kernel, [Sh, Sw, 1, O].
    """
    height, width, _, features = shape
    images, rows, columns, _ = gradient.shape
    kind = sum_dtype(x)
    parts = next(n for n in range(_COLUMNS, 0, -1) if columns % n == 0)
    row_bytes = columns // parts * features * width * kind.itemsize
    fitting = max(2, _SUMS_BYTES // row_bytes)
    size = min(images, 1 << (fitting.bit_length() - 1))
    chunks = -(-images // size)
    missing = ((0, chunks * size - images), (0, 0), (0, 0), (0, 0))
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    x = jnp.repeat(x, features // x.shape[-1], -1)
    # Chunk i holds images i, i + chunks, …: a batch sharded over devices stays so.
    x, gradient = (
        jnp.pad(a, missing).reshape(size, chunks, *a.shape[1:]) for a in (x, gradient)
    )
    reach = geometry.extent(columns, stride[1])

    def add_up(row: jax.Array) -> jax.Array:
        return functools.reduce(jnp.add, jnp.split(row, parts, axis=1))

    def sum_row_of_taps(top: int) -> jax.Array:
        def add(i: jax.Array, sums: tuple) -> tuple:
            chunk, row = i // rows, i % rows
            g = gradient[:, chunk, row].astype(kind)
            pixels = x[:, chunk, row * stride[0] + top].astype(kind)
            starts = [b * dilation[1] for b in range(width)]
            met = [pixels[:, b : b + reach : stride[1]] for b in starts]
            return tuple(s + add_up(g * m) for s, m in zip(sums, met, strict=True))

        zero = jnp.zeros((size, columns // parts, features), kind)
        sums = lax.fori_loop(0, chunks * rows, add, (zero,) * width)
        return jnp.stack([jnp.sum(s, (0, 1)) for s in sums])

    tops = range(0, height * dilation[0], dilation[0])
    found = jnp.stack([sum_row_of_taps(top) for top in tops])
    return found.reshape(shape).astype(x.dtype)


def count_blocks(channels: int, groups: int) -> int:
    """Return into how many blocks the groups of a convolution are merged."""
    depth = channels // groups
    least = max(-(-_BLOCK_CHANNELS // depth), -(-groups // _MOST_BLOCKS))
    sizes = (size for size in range(1, groups + 1) if groups % size == 0)
    return groups // next((size for size in sizes if size >= least), groups)


def merge_groups(kernel: jax.Array, groups: int, blocks: int) -> list[jax.Array]:
    """Make each block's kernel [Sh, Sw, C / blocks, O / blocks], zero across groups."""
    height, width, depth, features = kernel.shape
    size = groups // blocks
    split = kernel.reshape(height, width, depth, blocks, size, features // groups)
    own = jnp.eye(size, dtype=kernel.dtype)
    merged = jnp.einsum("hwcbgo,kg->bhwkcgo", split, own)
    return list(merged.reshape(blocks, height, width, size * depth, features // blocks))


def take_groups(merged: list[jax.Array], shape: tuple[int, ...], groups: int):
    """Undo `merge_groups`: the kernel [Sh, Sw, C / groups, O] out of its blocks'."""
    height, width, depth, features = shape
    size = groups // len(merged)
    split = jnp.stack(merged, axis=2).reshape(
        height, width, len(merged), size, depth, size, features // groups
    )
    return jnp.einsum("hwbgcgo->hwcbgo", split).reshape(shape)
