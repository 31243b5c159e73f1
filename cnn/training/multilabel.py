"""Metrics of images that may have several labels, from the logits of all of them.

Logits are float32 [N, K], labels 0 and 1 [N, K]. They are ranked on the host, so that
metrics are the same for every batch size and number of devices. A class is taken for a
label where its probability is at least its threshold.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

THRESHOLD = 0.5  # where none was tuned


def compute_probabilities(logits: np.ndarray) -> np.ndarray:
    """Compute each class's probability, the logistic function; float32 [N, K]."""
    power = np.exp(-np.abs(logits.astype(np.float64)))
    return (np.where(logits >= 0, 1, power) / (1 + power)).astype(np.float32)


def compute_log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Compute logarithms of what each class is, and is not: float64 [N, K, 2]."""
    logits = np.asarray(logits, np.float64)
    return -np.logaddexp(0, np.stack([-logits, logits], axis=-1))


def compute_average_precision(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Compute the mean precision over the ranks of what is there.

    Examples of equal scores share a rank, as in scikit-learn's
    `average_precision_score`.

    Args:
        scores: [N], the higher the surer.
        labels: 0 and 1 [N].

    Returns:
        In [0, 1]; None where nothing is there.
    """
    if not labels.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ends, hits = _find_ends(scores[order]), np.cumsum(labels[order], dtype=np.int64)
    gains = np.diff(hits[ends], prepend=0)
    return float(np.sum(gains * hits[ends] / (ends + 1)) / hits[-1])


def tune_thresholds(logits: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Choose each class's threshold that makes its F1 the highest.

    It lies in the middle between two neighbouring probabilities; of thresholds with
    equal F1 it is the highest. A class that no image has gets `THRESHOLD`.

    Returns:
        K numbers in (0, 1].
    """
    found = []
    for own, is_there in zip(compute_probabilities(logits).T, labels.T, strict=True):
        if not is_there.any():
            found.append(THRESHOLD)
            continue
        order = np.argsort(-own, kind="stable")
        ranked = own[order].astype(np.float64)
        ends = _find_ends(ranked)
        hits = np.cumsum(is_there[order], dtype=np.int64)
        f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
        last = ends[f1.argmax()]
        below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
        found.append(float((ranked[last] + below) / 2))
    return tuple(found)


def choose_labels(
    probabilities: np.ndarray, thresholds: Sequence[float] | None
) -> np.ndarray:
    """Return which classes are taken for labels, bool [N, K].

    Args:
        thresholds: K of them; None: `THRESHOLD` for all.
    """
    return probabilities >= np.float64(THRESHOLD if thresholds is None else thresholds)


def summarise(
    logits: np.ndarray,
    labels: np.ndarray,
    losses: np.ndarray,
    thresholds: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Compute all metrics.

    Args:
        losses: float32 [N].
        thresholds: as of `choose_labels`.

    Returns:
        `loss` (mean, nats); `mean_average_precision` and `f1`, means over the classes
        that occur; `micro_average_precision` and `micro_f1`, over all pairs of image
        and class; `exact_match`, the share of images with just the right labels;
        `count`; `per_class`, a dict for each class: `count` of its images,
        `average_precision` (None where there are none), `precision`, `recall`, `f1`
        and `threshold`.
    """
    chosen, there = choose_labels(compute_probabilities(logits), thresholds), labels > 0
    hits, taken = (chosen & there).sum(axis=0), chosen.sum(axis=0)
    totals, num_classes = there.sum(axis=0), labels.shape[1]
    precisions = [
        compute_average_precision(logits[:, k], labels[:, k])
        for k in range(num_classes)
    ]
    precision, recall = hits / np.maximum(taken, 1), hits / np.maximum(totals, 1)
    f1 = compute_f1(hits, taken, totals)
    occurring = totals > 0
    whole = np.broadcast_to(
        THRESHOLD if thresholds is None else thresholds, totals.shape
    )
    per_class = zip(totals, precisions, precision, recall, f1, whole, strict=True)
    names = ("count", "average_precision", "precision", "recall", "f1", "threshold")
    return {
        "loss": float(losses.mean(dtype=np.float64)),
        "mean_average_precision": _average([x for x in precisions if x is not None]),
        "f1": _average(f1[occurring]),
        "micro_average_precision": compute_average_precision(
            logits.reshape(-1), labels.reshape(-1)
        )
        or 0.0,
        "micro_f1": float(compute_f1(hits.sum(), taken.sum(), totals.sum())),
        "exact_match": float((chosen == there).all(axis=1).mean()),
        "count": len(labels),
        "per_class": [
            dict(zip(names, _to_json(values), strict=True)) for values in per_class
        ],
    }


def compute_f1(hits: np.ndarray, taken: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Compute F1 from counts of right, chosen and true labels; 0 where none are."""
    return 2 * hits / np.maximum(taken + totals, 1)


def average_f1(hits: Any, taken: Any, totals: Any) -> float:
    """Average F1 over the classes that occur, from counts [K]; 0 where none does."""
    hits, taken, totals = (np.asarray(x, np.int64) for x in (hits, taken, totals))
    return _average(compute_f1(hits, taken, totals)[totals > 0])


def _find_ends(ranked: np.ndarray) -> np.ndarray:
    """Return the last position of each group of equal scores in a sorted row."""
    return np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))


def _average(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _to_json(values: tuple) -> list:
    count, *rest = values
    return [int(count), *(None if x is None else float(x) for x in rest)]
