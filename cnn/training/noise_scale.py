"""The gradient noise scale: from which batch size on larger batches pay less.

It is tr(S) / |G|², where G is the gradient over all images and S the covariance of one
image's: at this batch size noise and gradient are equally long. Both are estimated at
each step by comparing the gradients of a batch's pieces with that of the whole.

Source: McCandlish et al. 2018, appendix A.1, https://arxiv.org/abs/1812.06162
"""

from typing import Any

import jax
import optax

NAMES = ("gradient_square", "gradient_variance")


def estimate(
    of_pieces: jax.Array, gradients: Any, batch_size: int, pieces: int
) -> dict[str, jax.Array]:
    """Estimate |G|² and tr(S) without bias, as far as images are drawn independently.

    Args:
        of_pieces: mean of the squared norms of the pieces' mean gradients, float32 [].
        gradients: mean over the whole batch.
        batch_size: images of the whole batch.
        pieces: at least 2, of equal size.

    Returns:
        `gradient_square`, |G|², and `gradient_variance`, tr(S), float32 []; noisy
        enough that the first may be negative.
    """
    of_batch = optax.tree.norm(gradients, squared=True)
    difference = of_pieces - of_batch
    return {
        "gradient_square": of_batch - difference / (pieces - 1),
        "gradient_variance": difference * batch_size / (pieces - 1),
    }


def divide(square: float, variance: float) -> float | None:
    """Return the noise scale in images; None where no gradient stands out of the noise.

    Args:
        square: mean or sum of `gradient_square` over some steps.
        variance: that of `gradient_variance`.
    """
    return max(variance, 0.0) / square if square > 0 else None
