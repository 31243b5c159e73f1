"""In which order images are seen: pure functions of seed and epoch.

Labels are int32 [N], each of one class, or [N, K] of 0 and 1, each of any classes.
"""

import numpy as np

from cnn import keys
from cnn.data.labels import count_classes

# By the name of --sampling: a class of n examples is drawn as often as n to this.
_POWERS = {"balanced": 0.0, "sqrt": 0.5}


def draw_epoch(
    seed: int,
    epoch: int,
    labels: np.ndarray,
    batch_size: int,
    sampling: str = "uniform",
    repeats: int = 1,
) -> dict[str, np.ndarray]:
    """Draw the examples of one training epoch.

    Args:
        labels: of the training set.
        sampling: `uniform`, each example at most once, or a name of `_POWERS`, with
            replacement.
        repeats: times that each example stands in its batch; there are the fewer of
            them in an epoch.

    Returns:
        `ids` int32 [N // B, B], positions in the training set. With replacement or
        repeats also `copies` int32 [N // B, B], how often the epoch has an example
        before, so that each time it is varied on its own.

    Source: Hoffer et al. 2019, https://arxiv.org/abs/1901.09335 (repeats), as the
        samplers of torchvision's references and timm draw them
    """
    if sampling == "uniform":
        ids = make_epoch_order(seed, epoch, len(labels), batch_size)
        if repeats == 1:
            return {"ids": ids}
    else:
        count = len(labels) // batch_size * batch_size
        ids = _draw(keys.order_key(seed, epoch), make_weights(labels, sampling), count)
    ids = _repeat(ids.reshape(-1, batch_size), repeats)
    return {"ids": ids, "copies": _count_copies(ids.reshape(-1)).reshape(ids.shape)}


def make_weights(labels: np.ndarray, sampling: str) -> np.ndarray:
    """Make the weights by which examples are drawn.

    An example weighs what its class is drawn by / the examples of its class: 1 / n for
    `balanced`, as one would give `torch.utils.data.WeightedRandomSampler`, 1 / sqrt(n)
    for `sqrt`. One of several labels weighs as its rarest one, and one without labels
    as the mean of the others.

    Returns:
        float64 [N], above 0.
    """
    counts = count_classes(labels, 0)
    of_class = np.maximum(counts, 1.0) ** (_POWERS[sampling] - 1)
    if labels.ndim == 1:
        return of_class[labels]
    weights = np.max(np.where(labels > 0, of_class, 0.0), axis=1)
    has_labels = weights > 0
    if not has_labels.any():
        return np.ones(len(labels))
    return np.where(has_labels, weights, weights[has_labels].mean())


def make_epoch_order(
    seed: int, epoch: int, num_examples: int, batch_size: int
) -> np.ndarray:
    """Draw the order of one training epoch that sees each example at most once.

    Args:
        epoch: from 0; every epoch has its own order.
        num_examples: N, the size of the training set.
        batch_size: B; the N % B examples of the last partial batch are left out.

    Returns:
        int32 [N // B, B]: positions in the training set, each at most once.
    """
    steps = num_examples // batch_size
    order = keys.permute(keys.order_key(seed, epoch), num_examples)
    return order[: steps * batch_size].reshape(steps, batch_size)


def make_eval_order(
    num_examples: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the order of a set for evaluation, with the last batch padded.

    Returns:
        Positions int32 [S, B], and the mask bool [S, B], False for padding.
    """
    steps = -(-num_examples // batch_size)
    positions = np.arange(steps * batch_size, dtype=np.int32)
    mask = positions < num_examples
    positions = np.where(mask, positions, 0)
    shape = (steps, batch_size)
    return positions.reshape(shape), mask.reshape(shape)


def _draw(key: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Draw positions int32 [count], each on its own, by weights float64 [N]."""
    # float32 has too few digits to tell the examples of a large set from each other.
    high, low = keys.draw_bits(key, 2 * count).reshape(count, 2).T.astype(np.float64)
    shares = high * 2.0**-32 + np.floor(low * 2.0**-11) * 2.0**-53
    ends = np.cumsum(weights)
    return np.searchsorted(ends / ends[-1], shares, "right").astype(np.int32)


def _repeat(ids: np.ndarray, repeats: int) -> np.ndarray:
    """Fill batches [S, B] with their first examples, all of them again and again.

    So that the neighbour with which an image is mixed is another one.
    """
    steps, batch_size = ids.shape
    few = -(-batch_size // repeats)
    firsts = ids.reshape(-1)[: steps * few].reshape(steps, few)
    return np.tile(firsts, (1, repeats))[:, :batch_size]


def _count_copies(ids: np.ndarray) -> np.ndarray:
    """Count for each place of ids [n] the equal ones before it, int32 [n]."""
    by_id = np.argsort(ids, kind="stable")
    ordered, places = ids[by_id], np.arange(len(ids))
    is_first = np.append(True, ordered[1:] != ordered[:-1])
    copies = np.empty(len(ids), np.int32)
    copies[by_id] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return copies
