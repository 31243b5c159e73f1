"""Where a classifier errs.

Probabilities are float64 [N, K], rows of sum 1; labels whole numbers [N] in 0..K-1.
A prediction is the class of the largest probability, its confidence that probability.
"""

import numpy as np

from cnn.training.calibration import divide


def count_confusion(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
    """Count examples by true class (row) and predicted class (column): int [K, K]."""
    pairs = np.asarray(labels, np.int64) * num_classes + predictions
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def compute_rates(confusion: np.ndarray) -> np.ndarray:
    """Divide each row of a confusion matrix by its sum; rows of no example are NaN."""
    return divide(confusion, confusion.sum(axis=1, keepdims=True))


def compute_precision(confusion: np.ndarray) -> np.ndarray:
    """Compute, by class, the share of its predictions that is right: [K].

    A class that is never predicted has NaN.
    """
    return divide(confusion.diagonal(), confusion.sum(axis=0))


def compute_recall(confusion: np.ndarray) -> np.ndarray:
    """Compute, by class, the share of its examples that is found: [K].

    A class without examples has NaN.
    """
    return divide(confusion.diagonal(), confusion.sum(axis=1))


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


def find_label_errors(
    probabilities: np.ndarray, chosen: np.ndarray, there: np.ndarray, count: int
) -> np.ndarray:
    """Find images with missing or added labels, the surest first.

    Args:
        probabilities: of each class by itself, [N, K].
        chosen: which classes are taken for labels, bool [N, K].
        there: which are labels.
        count: the most that are found.

    Returns:
        Positions, int64 [n]: by the largest distance of a wrong label's probability
        from the truth.
    """
    errors = np.where(chosen != there, np.abs(probabilities - there), -1.0).max(axis=1)
    order = np.argsort(-errors, kind="stable")[:count]
    return order[errors[order] >= 0]
