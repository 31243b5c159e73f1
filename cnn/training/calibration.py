"""Whether a classifier's probabilities can be believed: measured, and mended.

All is numpy in float64, on the host. Logits are [N, K] of any float type; labels whole
numbers [N] in 0..K-1. What an evaluation reports of probabilities is made of
`compute_log_probabilities` of logits, which may themselves be log-probabilities. A
prediction is the class of the largest logit, the first of equal ones; its confidence is
its probability.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cnn.errors import UserError

NUM_BINS = 15
RESAMPLES = 1000
_SEED, _MOST_STEPS = 0, 200
_BLOCK = 2**21  # numbers of float64 that are computed with at a time
_NORMAL = 1.959964  # the normal distribution's 97.5th percentile


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


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is measured of each image.

    Attributes:
        nll: [N], negative log-probability of the true class, in nats.
        brier: [N], squared distance of the probabilities from the truth, 0 to 2.
        confidence: [N].
        hits: bool [N], whether the prediction is right.
    """

    nll: np.ndarray
    brier: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray


def compute_log_probabilities(
    logits: np.ndarray, temperature: float = 1.0
) -> np.ndarray:
    """Normalise logits [N, K], divided by a temperature, to log-probabilities."""
    logits = np.asarray(logits, np.float64) / temperature
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def compute_scores(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> Scores:
    """Compute what is measured of each image; some at a time, so as to be small.

    Source: Brier, Verification of forecasts expressed in terms of probability (1950),
        https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    found = [(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, bool))]
    for rows in _divide_rows(logits.shape):
        logs = compute_log_probabilities(logits[rows], temperature)
        own, powers = _take_own(logs, labels[rows]), np.exp(logs)
        squares = (powers**2).sum(axis=1) - 2 * np.exp(own) + 1
        hits = logits[rows].argmax(axis=1) == labels[rows]
        found.append((-own, squares, powers.max(axis=1), hits))
    return Scores(*map(np.concatenate, zip(*found, strict=True)))


def compute_reliability(
    confidence: np.ndarray, hits: np.ndarray, num_bins: int = NUM_BINS
) -> Reliability:
    """Compare confidence with accuracy.

    Args:
        confidence: [N], of the predictions.
        hits: bool [N], whether they are right.
        num_bins: B, of equal width.

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks
        (2017), section 2, https://arxiv.org/abs/1706.04599
    """
    bins, counts = _find_bins(confidence, num_bins)
    accuracy = divide(np.bincount(bins, hits, num_bins), counts)
    return Reliability(
        edges=np.linspace(0, 1, num_bins + 1),
        counts=counts,
        confidence=divide(np.bincount(bins, confidence, num_bins), counts),
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
    square = _NORMAL**2
    centre = divide(shares * counts + square / 2, counts + square)
    spread = np.sqrt(square * (shares * (1 - shares) * counts + square / 4))
    spread = spread / (counts + square)
    return np.stack([centre - spread, centre + spread], axis=1)


def summarise(scores: Scores) -> dict[str, Any]:
    """Average scores, each with its 95 % interval.

    Returns:
        `accuracy`, `expected_calibration_error`, `negative_log_likelihood` (nats) and
        `brier_score` (0 to 2), each a dict of `value` and `interval` [low, high]:
        Wilson's of the accuracy, of the others the percentiles of `resamples` means
        over as many images drawn with replacement; and `bins`, of the confidence,
        those that are not empty: `low`, `high`, `count`, `confidence`, `accuracy`.
    """
    count = len(scores.hits)
    reliability = compute_reliability(scores.confidence, scores.hits)
    accuracy = np.array([scores.hits.mean()])
    values = {
        "expected_calibration_error": reliability.calibration_error,
        "negative_log_likelihood": scores.nll.mean(),
        "brier_score": scores.brier.mean(),
    }
    intervals = np.percentile(_resample(scores), [2.5, 97.5], axis=0).T
    columns = (
        reliability.edges[:-1],
        reliability.edges[1:],
        reliability.counts,
        reliability.confidence,
        reliability.accuracy,
    )
    names = ("low", "high", "count", "confidence", "accuracy")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    interval = compute_interval(accuracy, np.array([count]))[0]
    return {
        "accuracy": _describe(accuracy[0], interval),
        **{
            name: _describe(value, interval)
            for (name, value), interval in zip(values.items(), intervals, strict=True)
        },
        "resamples": RESAMPLES,
        "bins": [dict(zip(names, row, strict=True)) for row in rows if row[2]],
    }


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature of the least mean negative log-likelihood.

    In 1 / T it is convex: Newton's method, or a bisection where that leaves the bracket
    of the minimum, until a step is at most 1e-10 of 1 / T.

    Raises:
        UserError: there is no such temperature: each true class has the largest logit,
            or they are right no more often than by chance.

    Source: Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599
    """
    if all(
        (_take_own(logits[rows], labels[rows]) == logits[rows].max(axis=1)).all()
        for rows in _divide_rows(logits.shape)
    ):
        raise UserError(
            f"--calibrate: all {len(labels)} validation images are right, so that the "
            "likelihood has no greatest value: the surer, the better. Set more images "
            "aside for validation (--validation_fraction)"
        )
    if _differentiate(logits, labels, 0.0)[0] >= 0:
        raise UserError(
            f"--calibrate: on the {len(labels)} validation images the logits tell the "
            "true class no better than chance, and no temperature helps"
        )
    low, high, inverse = 0.0, math.inf, 1.0
    for _ in range(_MOST_STEPS):
        slope, curvature = _differentiate(logits, labels, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        new = inverse - slope / curvature if curvature > 0 else math.inf
        if not low < new < high or new > 4 * inverse:
            new = min((low + high) / 2, 4 * inverse)
        inverse, moved = new, abs(new - inverse)
        if moved <= 1e-10 * inverse:
            break
    return 1 / inverse


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; NaN where the denominator is 0."""
    numerator = np.asarray(numerator, np.float64)
    some = np.broadcast_to(denominator, numerator.shape)
    nothing = np.full(numerator.shape, np.nan)
    return np.divide(numerator, some, out=nothing, where=some > 0)


def _differentiate(
    logits: np.ndarray, labels: np.ndarray, inverse: float
) -> tuple[float, float]:
    """Differentiate the mean negative log-likelihood by 1 / T, once and twice."""
    slope = curvature = 0.0
    for rows in _divide_rows(logits.shape):
        some = np.asarray(logits[rows], np.float64)
        ahead = some - _take_own(some, labels[rows])[:, None]
        shares = np.exp(inverse * (some - some.max(axis=1, keepdims=True)))
        shares /= shares.sum(axis=1, keepdims=True)
        mean = (shares * ahead).sum(axis=1)
        slope += mean.sum()
        curvature += (shares * (ahead - mean[:, None]) ** 2).sum()
    return slope / len(labels), curvature / len(labels)


def _resample(scores: Scores) -> np.ndarray:
    """Draw as many images with replacement, again and again.

    Returns:
        [RESAMPLES, 3], the mean calibration error, nll and brier score of each draw.
    """
    count, random = len(scores.hits), np.random.default_rng(_SEED)
    bins, sizes = _find_bins(scores.confidence, NUM_BINS)
    order = np.argsort(bins, kind="stable")
    # Of a bin only the sum of hits less confidence counts.
    gaps = (scores.hits - scores.confidence)[order]
    starts = (np.cumsum(sizes) - sizes)[sizes > 0]
    means = np.stack([scores.nll[order], scores.brier[order]])
    found = np.empty((RESAMPLES, 3))
    for row in found:
        drawn = np.bincount(random.integers(count, size=count), minlength=count)
        row[0] = np.abs(np.add.reduceat(gaps * drawn, starts)).sum()
        row[1:] = means @ drawn.astype(np.float64)
    return found / count


def _find_bins(confidence: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the bin (low, high] of each confidence [N], and how many are in each [B]."""
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, "left") - 1, 0, num_bins - 1)
    return bins, np.bincount(bins, minlength=num_bins)


def _divide_rows(shape: tuple[int, int]) -> Iterator[slice]:
    """Divide the rows of an array [N, K] into blocks."""
    size = max(1, _BLOCK // shape[1])
    for start in range(0, shape[0], size):
        yield slice(start, start + size)


def _take_own(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what each row of [N, K] holds of its own class: [N]."""
    return np.take_along_axis(values, np.asarray(labels)[:, None], axis=1)[:, 0]


def _describe(value: float, interval: np.ndarray) -> dict[str, Any]:
    return {"value": float(value), "interval": interval.tolist()}
