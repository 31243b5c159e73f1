"""Which examples go where: stratified splits and class-balanced subsets.

Everything here is a function of labels, sizes and a seed alone, and uses numpy's
`RandomState`, whose stream is frozen, so that a split stays the same for ever.
"""

import numpy as np


def stratified_split(
    labels: np.ndarray, taken: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split positions in two, each class in proportion to its size.

    Equal, order included, to scikit-learn's `train_test_split(test_size=taken,
    stratify=labels, random_state=seed)`, whose import takes longer than the whole
    loading of the digits; classes of one example, which that refuses, are allowed.

    Args:
        labels: whole numbers [N].
        taken: examples of the second part, 0..N.
        seed: 0 or more.

    Returns:
        Positions of the rest [N - taken] and of the part taken [taken], shuffled.
    """
    _, indices, counts = np.unique(labels, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    members = np.split(np.argsort(indices, kind="stable"), ends[:-1])
    random = np.random.RandomState(seed)
    rest_counts = _apportion(counts, len(labels) - taken, random)
    taken_counts = _apportion(counts - rest_counts, taken, random)
    rest, part = [], []
    for member, n_rest, n_taken in zip(members, rest_counts, taken_counts, strict=True):
        shuffled = member[random.permutation(len(member))]
        rest.append(shuffled[:n_rest])
        part.append(shuffled[n_rest : n_rest + n_taken])
    return (
        random.permutation(np.concatenate(rest)),
        random.permutation(np.concatenate(part)),
    )


def balanced_subset(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Choose examples so that the classes are as equal in number as they can be.

    A class that is smaller than its share is taken whole and the others share what
    it lacks. With one seed, a smaller subset lies within a larger one.

    Args:
        labels: whole numbers [N].
        size: examples to choose, 1..N.
        seed: 0 or more.

    Returns:
        Positions [size], ascending.
    """
    random = np.random.RandomState(seed)
    order = random.permutation(len(labels))
    _, indices = np.unique(labels[order], return_inverse=True)
    rank = np.empty(len(labels), dtype=np.int64)
    for index in range(indices.max() + 1):
        (same,) = np.nonzero(indices == index)
        rank[same] = np.arange(len(same))
    chosen = np.lexsort((indices, rank))[:size]
    return np.sort(order[chosen])


def _apportion(
    counts: np.ndarray, total: int, random: np.random.RandomState
) -> np.ndarray:
    """Share `total` in proportion to `counts`; ties of remainders fall at random."""
    exact = counts / max(counts.sum(), 1) * total
    shares = np.floor(exact)
    missing = int(total - shares.sum())
    remainders = exact - shares
    for value in np.unique(remainders)[::-1]:
        if missing == 0:
            break
        (tied,) = np.nonzero(remainders == value)
        winners = random.choice(tied, size=min(len(tied), missing), replace=False)
        shares[winners] += 1
        missing -= len(winners)
    return shares.astype(np.int64)
