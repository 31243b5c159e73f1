"""Rearrangements: the same numbers in another order, nothing computed."""

import math

import jax
import jax.numpy as jnp


def space_to_depth(x: jax.Array, block_size: int) -> jax.Array:
    """Move each block of pixels into the channels; the lecture's "pixel shuffle".

    y[n, i, j, (a·b + d)·C + c] = x[n, i·b + a, j·b + d, c] for block size b: the
    channels of the block's pixels, row by row. (torch's PixelUnshuffle puts the
    input channel before the pixel: c·b² + a·b + d.)

    Args:
        block_size: b, dividing H and W.

    Returns:
        [N, H / b, W / b, b²·C].

    Raises:
        ValueError: H or W is not a multiple of the block size.
    """
    count, height, width, channels = _images(x, "space_to_depth")
    if block_size < 1 or height % block_size or width % block_size:
        raise ValueError(
            f"block_size={block_size} does not divide images of {height}×{width}"
        )
    rows, columns = height // block_size, width // block_size
    x = x.reshape(count, rows, block_size, columns, block_size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(count, rows, columns, block_size**2 * channels)


def depth_to_space(x: jax.Array, block_size: int) -> jax.Array:
    """Spread channels over blocks of pixels: the inverse of `space_to_depth`.

    Args:
        block_size: b, whose square divides C.

    Returns:
        [N, b·H, b·W, C / b²].

    Raises:
        ValueError: C is not a multiple of the block size squared.
    """
    count, height, width, channels = _images(x, "depth_to_space")
    if block_size < 1 or channels % block_size**2:
        raise ValueError(
            f"block_size={block_size}: its square does not divide {channels} channels"
        )
    depth = channels // block_size**2
    x = x.reshape(count, height, width, block_size, block_size, depth)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(count, height * block_size, width * block_size, depth)


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Deal the channels of each group out in turn, so that groups exchange them.

    y[…, j·g + i] = x[…, i·C/g + j] for g groups: two groups are interleaved. The
    inverse, and the gradient, is the shuffle with C/g groups.

    Args:
        x: [N, L, C] or [N, H, W, C].
        groups: g, dividing C.

    Returns:
        Of the same shape.

    Raises:
        ValueError: x has other axes, or C is not a multiple of the groups.

    Source: Zhang et al. 2018, section 3.1, https://arxiv.org/abs/1707.01083
    """
    if x.ndim not in (3, 4):
        raise ValueError(
            f"x {list(x.shape)}: channel_shuffle takes [N, L, C] or [N, H, W, C]"
        )
    if groups < 1 or x.shape[-1] % groups:
        raise ValueError(f"groups={groups} does not divide {x.shape[-1]} channels")
    # Of two groups that were just joined, XLA on CPU writes the result at once; by a
    # transpose it takes two to nine times as long (32 images of 28x28x116: 9 ms, 1 ms).
    parts = [part[..., None] for part in jnp.split(x, groups, axis=-1)]
    return jnp.concatenate(parts, axis=-1).reshape(x.shape)


def flatten(x: jax.Array) -> jax.Array:
    """Lay each example out as one row, [N, ...] → [N, H·W·C], channels fastest.

    Raises:
        ValueError: x has no axis of examples.
    """
    if x.ndim < 1:
        raise ValueError("x is a scalar: flatten takes [N, ...]")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def nhwc_to_nchw(x: jax.Array) -> jax.Array:
    """Put channels first, as torch does: [N, H, W, C] → [N, C, H, W].

    Raises:
        ValueError: x has not four axes.
    """
    _images(x, "nhwc_to_nchw")
    return x.transpose(0, 3, 1, 2)


def nchw_to_nhwc(x: jax.Array) -> jax.Array:
    """Put channels last, as everything here does: [N, C, H, W] → [N, H, W, C].

    Raises:
        ValueError: x has not four axes.
    """
    _images(x, "nchw_to_nhwc")
    return x.transpose(0, 2, 3, 1)


def _images(x: jax.Array, name: str) -> tuple[int, ...]:
    if x.ndim != 4:
        raise ValueError(f"x {list(x.shape)}: {name} takes an array of four axes")
    return x.shape
