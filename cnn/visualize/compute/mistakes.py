"""Where a classifier errs, and whether its confidence can be believed.

Probabilities are float64 [N, K], rows of sum 1; labels whole numbers [N] in 0..K-1.
A prediction is the class of the largest probability, its confidence that probability.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, in bins of equal width.

    Attributes:
        edges: [B + 1], from 0 to 1.
        counts: int [B], predictions whose confidence lies in (low, high].
        confidence: [B], their mean confidence; NaN for an empty bin.
        accuracy: [B], the share that is right; NaN for an empty bin.
        interval: [B, 2], the ends of the accuracy's 95 % interval; NaN for an empty
            bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    interval: np.ndarray

    @property
    def calibration_error(self) -> float:
        """Return the mean distance of accuracy and confidence over predictions."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def compute_log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Normalise logits [N, K] to log-probabilities, float64 [N, K]."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def count_confusion(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
    """Count examples by true class (row) and predicted class (column): int [K, K]."""
    pairs = np.asarray(labels, np.int64) * num_classes + predictions
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def compute_rates(confusion: np.ndarray) -> np.ndarray:
    """Divide each row of a confusion matrix by its sum; rows of no example are NaN."""
    return _divide(confusion, confusion.sum(axis=1, keepdims=True))


def compute_precision(confusion: np.ndarray) -> np.ndarray:
    """Compute, by class, the share of its predictions that is right: [K].

    A class that is never predicted has NaN.
    """
    return _divide(confusion.diagonal(), confusion.sum(axis=0))


def compute_recall(confusion: np.ndarray) -> np.ndarray:
    """Compute, by class, the share of its examples that is found: [K].

    A class without examples has NaN.
    """
    return _divide(confusion.diagonal(), confusion.sum(axis=1))


def find_confused_pairs(confusion: np.ndarray, count: int) -> np.ndarray:
    """Find the pairs of classes that are confused most often.

    Args:
        confusion: int [K, K], of `count_confusion`.
        count: how many at most.

    Returns:
        int [n, 2], true and predicted class, the most images first; pairs that are
        never confused are left out.
    """
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = np.stack(np.unravel_index(order, wrong.shape), axis=1)
    return pairs[wrong[pairs[:, 0], pairs[:, 1]] > 0]


def find_confused_classes(confusion: np.ndarray, count: int) -> np.ndarray:
    """Find the classes with most mistakes, as the true or as the predicted one.

    Args:
        confusion: int [K, K], of `count_confusion`.
        count: how many at most.

    Returns:
        int [n], rising.
    """
    wrong = confusion - np.diag(confusion.diagonal())
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    return np.sort(np.argsort(-mistakes, kind="stable")[:count])


def compute_reliability(
    probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15
) -> Reliability:
    """Compare confidence with accuracy.

    Args:
        probabilities: [N, K].
        labels: [N].
        num_bins: B, of equal width.

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks
        (2017), section 2, https://arxiv.org/abs/1706.04599
    """
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, "left") - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    accuracy = _divide(np.bincount(bins, hits, num_bins), counts)
    return Reliability(
        edges=edges,
        counts=counts,
        confidence=_divide(np.bincount(bins, confidence, num_bins), counts),
        accuracy=accuracy,
        interval=compute_interval(accuracy, counts),
    )


def compute_interval(shares: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute 95 % intervals of shares, which stay within 0..1 even of one example.

    Args:
        shares: [B], 0 to 1.
        counts: [B], of how many each is a share; where 0, the interval is NaN.

    Returns:
        [B, 2], lower and upper ends.

    Source: Wilson, Probable inference, the law of succession, and statistical
        inference (1927), https://doi.org/10.1080/01621459.1927.10502953
    """
    square = 1.959964**2  # of the normal distribution's 97.5th percentile
    centre = _divide(shares * counts + square / 2, counts + square)
    spread = np.sqrt(square * (shares * (1 - shares) * counts + square / 4))
    spread = spread / (counts + square)
    return np.stack([centre - spread, centre + spread], axis=1)


def compute_brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean squared distance of probabilities from the truth, 0 to 2.

    Source: Brier, Verification of forecasts expressed in terms of probability (1950),
        https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    own = _take_own(probabilities, labels)
    return float(((probabilities**2).sum(axis=1) - 2 * own + 1).mean())


def compute_nll(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean negative log-probability of the true class, in nats."""
    return float(-_take_own(log_probabilities, labels).mean())


def compute_doubts(probabilities: np.ndarray) -> np.ndarray:
    """Add up the probabilities of all classes but the predicted one: [N].

    It is 1 less the confidence, and differs even where the confidence rounds to 1.
    """
    return np.sort(probabilities, axis=1)[:, :-1].sum(axis=1)


def find_confident_errors(
    probabilities: np.ndarray, labels: np.ndarray, count: int
) -> np.ndarray:
    """Find the wrong predictions of highest confidence: positions, highest first."""
    (wrong,) = np.nonzero(probabilities.argmax(axis=1) != labels)
    doubts = compute_doubts(probabilities[wrong])
    return wrong[np.argsort(doubts, kind="stable")][:count]


def find_doubtful_hits(
    probabilities: np.ndarray, labels: np.ndarray, count: int
) -> np.ndarray:
    """Find the right predictions of lowest confidence: positions, lowest first."""
    confidence = probabilities.max(axis=1)
    (right,) = np.nonzero(probabilities.argmax(axis=1) == labels)
    return right[np.argsort(confidence[right], kind="stable")][:count]


def _take_own(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what each row of [N, K] holds of its own class: [N]."""
    return np.take_along_axis(values, np.asarray(labels)[:, None], axis=1)[:, 0]


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; NaN where the denominator is 0."""
    numerator = np.asarray(numerator, np.float64)
    some = np.broadcast_to(denominator, numerator.shape)
    nothing = np.full(numerator.shape, np.nan)
    return np.divide(numerator, some, out=nothing, where=some > 0)
