"""DropBlock: squares of feature maps are dropped, the same in all channels.

Where a square lies is a seed; the operator is a pure function of given seeds.

Source: Ghiasi et al. 2018, https://arxiv.org/abs/1810.12890; what remains is scaled by
    what share of the whole batch remains, and even sizes lie as in timm's
    `drop_block_2d`.
"""

import jax
import jax.numpy as jnp


def compute_seed_rate(
    rate: jax.Array | float, size: int, height: int, width: int
) -> jax.Array | float:
    """Compute the probability of a seed that drops about a share `rate` of a map.

    Args:
        rate: share of the activations, in [0, 1).
        size: side of the squares, in pixels; a smaller map limits it.
        height: of the map, in pixels.
        width: of the map, in pixels.
    """
    rows, columns = min(size, height), min(size, width)
    places = (height - rows + 1) * (width - columns + 1)
    return rate * height * width / (rows * columns) / places


def drop_block(x: jax.Array, seeds: jax.Array, size: int) -> jax.Array:
    """Zero the squares around seeds, and scale the rest up to the same expected sum.

    Args:
        x: [N, H, W, C].
        seeds: bool [N, H, W, 1], centres of squares; those of an even size reach one
            pixel further up and left.
        size: side of the squares, in pixels; a smaller map limits it.

    Returns:
        [N, H, W, C] in the type of `x`.
    """
    sides = [min(size, n) for n in x.shape[1:3]]
    # A pixel is dropped by any seed whose square covers it.
    padding = [(0, 0), *(((n - 1) // 2, n // 2) for n in sides), (0, 0)]
    dropped = jax.lax.reduce_window(
        seeds.astype(jnp.float32), 0.0, jax.lax.max, (1, *sides, 1), (1,) * 4, padding
    )
    kept = 1 - dropped
    scale = kept.size / (jnp.sum(kept) + 1e-7)
    return x * (kept * scale).astype(x.dtype)
