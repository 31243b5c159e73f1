"""Metrics as sums over examples, divided once at the end.

Sums of any batches, in any grouping, add up to the sums of all their examples:
this is what makes evaluation equal for every batch size and device count.
"""

import jax
import jax.numpy as jnp
import numpy as np


def create_sums(num_classes: int) -> dict[str, np.ndarray]:
    """Create the sums over no examples, for K classes.

    Returns:
        Of the host, so that nothing is compiled for them:
        `loss` float32 []; `correct`, `top5`, `count` int32 []; `confusion`
        int32 [K, K], true class by predicted class.
    """
    zero = np.zeros((), np.int32)
    return {
        "loss": np.zeros((), np.float32),
        "correct": zero,
        "top5": zero,
        "count": zero,
        "confusion": np.zeros((num_classes, num_classes), np.int32),
    }


def compute_sums(
    logits: jax.Array, labels: jax.Array, losses: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
    """Sum the metrics of one batch.

    Args:
        logits: float32 [N, K].
        labels: int32 [N]; the class in which accuracy counts.
        losses: float32 [N].
        mask: bool [N]; False for padding, which counts nowhere.

    Returns:
        Sums as of `create_sums`. An example is in the top 5 when fewer than five
        classes come before its own, equal logits in the order of their index.
    """
    num_classes = logits.shape[-1]
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    earlier = jnp.arange(num_classes)[None, :] < labels[:, None]
    rank = jnp.sum((logits > own) | ((logits == own) & earlier), axis=-1)
    predictions = jnp.argmax(logits, axis=-1)
    counted = mask.astype(jnp.int32)
    confusion = jnp.zeros((num_classes, num_classes), jnp.int32)
    return {
        "loss": jnp.sum(jnp.where(mask, losses, 0.0)),
        "correct": jnp.sum((predictions == labels) & mask, dtype=jnp.int32),
        "top5": jnp.sum((rank < 5) & mask, dtype=jnp.int32),
        "count": jnp.sum(counted),
        "confusion": confusion.at[labels, predictions].add(counted),
    }


def add_sums(a: dict[str, jax.Array], b: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Add two sets of sums."""
    return jax.tree.map(jnp.add, a, b)


def summarise(sums: dict[str, jax.Array]) -> dict[str, float | int | list]:
    """Divide sums once.

    Returns:
        `loss` (mean, nats), `accuracy`, `balanced_accuracy` (mean recall over the
        classes that occur), `top5` (shares in [0, 1]), `correct`, `count`,
        `per_class` (a dict for each class: `count`, `correct`, `accuracy`) and
        `confusion` (K rows of K counts, true class by predicted class).
    """
    confusion = np.asarray(sums["confusion"])
    count, correct = int(sums["count"]), int(sums["correct"])
    totals, hits = confusion.sum(axis=1), confusion.diagonal()
    recalls = hits[totals > 0] / totals[totals > 0]
    return {
        "loss": float(sums["loss"]) / max(count, 1),
        "accuracy": correct / max(count, 1),
        "balanced_accuracy": float(recalls.mean()) if len(recalls) else 0.0,
        "top5": int(sums["top5"]) / max(count, 1),
        "correct": correct,
        "count": count,
        "per_class": [
            {"count": int(n), "correct": int(hit), "accuracy": float(hit / max(n, 1))}
            for n, hit in zip(totals, hits, strict=True)
        ],
        "confusion": confusion.tolist(),
    }
