"""Confusion and shares equal scikit-learn's; the surest errors come first."""

import numpy as np
import pytest
from sklearn import metrics

from cnn.training.calibration import compute_log_probabilities
from cnn.visualize.compute import mistakes

COUNT, CLASSES = 400, 5


@pytest.fixture(scope="module")
def case():
    random = np.random.default_rng(3)
    labels = random.integers(0, CLASSES, COUNT)
    logits = random.normal(size=(COUNT, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    return labels, np.exp(compute_log_probabilities(logits.astype(np.float32)))


def test_confusion_precision_and_recall(case):
    labels, probabilities = case
    predictions = probabilities.argmax(axis=1)
    confusion = mistakes.count_confusion(labels, predictions, CLASSES)
    expected = metrics.confusion_matrix(labels, predictions)
    np.testing.assert_array_equal(confusion, expected)
    normalised = metrics.confusion_matrix(labels, predictions, normalize="true")
    np.testing.assert_allclose(mistakes.compute_rates(confusion), normalised)
    for name in ("precision", "recall"):
        found = getattr(mistakes, f"compute_{name}")(confusion)
        score = getattr(metrics, f"{name}_score")
        np.testing.assert_allclose(found, score(labels, predictions, average=None))


def test_classes_that_never_occur_have_no_share():
    confusion = mistakes.count_confusion(np.array([0, 0, 2]), np.array([0, 2, 2]), 4)
    np.testing.assert_array_equal(
        confusion, [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    )
    nan = np.nan
    np.testing.assert_array_equal(
        mistakes.compute_precision(confusion), [1, nan, 0.5, nan]
    )
    np.testing.assert_array_equal(
        mistakes.compute_recall(confusion), [0.5, nan, 1, nan]
    )
    assert np.isnan(mistakes.compute_rates(confusion)[1]).all()


def test_the_most_confused(case):
    confusion = np.array([[9, 5, 0], [2, 9, 0], [5, 0, 9]])
    pairs = mistakes.find_confused_pairs(confusion, 9)
    assert pairs.tolist() == [[0, 1], [2, 0], [1, 0]], "most first, none without any"
    assert mistakes.find_confused_pairs(confusion, 1).tolist() == [[0, 1]]
    assert mistakes.find_confused_pairs(np.diag([1, 2]), 9).tolist() == []
    # In 12, 7 and 5 mistakes.
    assert mistakes.find_confused_classes(confusion, 2).tolist() == [0, 1]
    assert mistakes.find_confused_classes(confusion[::-1, ::-1], 2).tolist() == [1, 2]


def test_surest_errors_and_least_sure_hits():
    probabilities = np.array(
        [[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.3, 0.7]]
    )
    labels = np.array([1, 1, 1, 1, 0])
    errors = mistakes.find_confident_errors(probabilities, labels, 2)
    assert errors.tolist() == [1, 4]
    assert mistakes.find_confident_errors(probabilities, labels, 9).tolist() == [
        1,
        4,
        0,
    ]
    assert mistakes.find_doubtful_hits(probabilities, labels, 9).tolist() == [3, 2]


def test_errors_whose_confidence_rounds_to_one_are_ordered():
    logits = np.array([[50.0, 0, 1], [60, 0, 1], [55, 0, 1]])
    probabilities = np.exp(compute_log_probabilities(logits))
    assert (probabilities.max(axis=1) == 1).all()
    found = mistakes.find_confident_errors(probabilities, np.array([1, 1, 1]), 9)
    assert found.tolist() == [1, 2, 0]
    doubts = mistakes.compute_doubts(probabilities)
    np.testing.assert_allclose(doubts, (1 + np.e) / np.exp(logits[:, 0]), rtol=1e-9)
