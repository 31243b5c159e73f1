"""Scores of a classifier equal scikit-learn's, and a plain loop where it has none."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from cnn.visualize.compute import mistakes

COUNT, CLASSES = 400, 5


@pytest.fixture(scope="module")
def case():
    random = np.random.default_rng(3)
    labels = random.integers(0, CLASSES, COUNT)
    logits = random.normal(size=(COUNT, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    log_probabilities = mistakes.compute_log_probabilities(logits.astype(np.float32))
    return labels, log_probabilities, np.exp(log_probabilities)


def test_probabilities_sum_to_one_even_of_large_logits(case):
    np.testing.assert_allclose(case[2].sum(axis=1), 1, atol=1e-12)
    found = mistakes.compute_log_probabilities(np.float32([[1e4, 0.0]]))
    np.testing.assert_allclose(found, [[0, -1e4]])


def test_confusion_precision_and_recall(case):
    labels, _, probabilities = case
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


def test_brier_and_nll(case):
    labels, log_probabilities, probabilities = case
    expected = metrics.brier_score_loss(labels, probabilities, scale_by_half=False)
    assert mistakes.compute_brier(probabilities, labels) == pytest.approx(expected)
    expected = metrics.log_loss(labels, probabilities)
    assert mistakes.compute_nll(log_probabilities, labels) == pytest.approx(expected)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_reliability_equals_a_loop(case, bins):
    labels, _, probabilities = case
    found = mistakes.compute_reliability(probabilities, labels, bins)
    error, total = 0.0, 0
    for place in range(bins):
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if place / bins < row.max() <= (place + 1) / bins
        ]
        assert found.counts[place] == len(inside)
        total += len(inside)
        if not inside:
            assert np.isnan(found.accuracy[place])
            continue
        confidence, accuracy = np.mean(inside, axis=0)
        assert found.confidence[place] == pytest.approx(confidence)
        assert found.accuracy[place] == pytest.approx(accuracy)
        error += len(inside) * abs(confidence - accuracy)
    assert total == COUNT
    assert found.calibration_error == pytest.approx(error / COUNT)


@pytest.mark.parametrize("hits, count", [(0, 1), (1, 1), (3, 8), (90, 100)])
def test_intervals_are_wilsons(hits, count):
    found = mistakes.compute_interval(np.array([hits / count]), np.array([count]))
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_an_empty_bin_has_no_interval(case):
    labels, _, probabilities = case
    found = mistakes.compute_reliability(probabilities, labels, 15)
    is_empty = found.counts == 0
    assert is_empty.any()
    np.testing.assert_array_equal(np.isnan(found.interval).all(axis=1), is_empty)
    np.testing.assert_array_equal(np.isnan(found.interval).any(axis=1), is_empty)


def test_a_certain_prediction_is_in_the_last_bin():
    found = mistakes.compute_reliability(np.eye(3), np.array([0, 1, 0]), 10)
    assert found.counts.tolist() == [0] * 9 + [3]
    assert found.calibration_error == pytest.approx(1 / 3)


def test_a_confidence_on_an_edge_is_in_the_lower_bin():
    found = mistakes.compute_reliability(np.array([[0.5, 0.5]]), np.array([0]), 2)
    assert found.counts.tolist() == [1, 0]


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
    probabilities = np.exp(mistakes.compute_log_probabilities(logits))
    assert (probabilities.max(axis=1) == 1).all()
    found = mistakes.find_confident_errors(probabilities, np.array([1, 1, 1]), 9)
    assert found.tolist() == [1, 2, 0]
    doubts = mistakes.compute_doubts(probabilities)
    np.testing.assert_allclose(doubts, (1 + np.e) / np.exp(logits[:, 0]), rtol=1e-9)
