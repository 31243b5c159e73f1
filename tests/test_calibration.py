"""Calibration equals scikit-learn's and scipy's, and loops where they have none."""

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn import metrics

from cnn.errors import UserError
from cnn.training import calibration

COUNT, CLASSES = 400, 5


@pytest.fixture(scope="module")
def case():
    """Return labels and float32 logits that are surer than they are right."""
    random = np.random.default_rng(3)
    labels = random.integers(0, CLASSES, COUNT)
    logits = random.normal(size=(COUNT, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    return labels, (2 * logits).astype(np.float32)


@pytest.fixture(params=[2**21, 7 * CLASSES])
def blocks(request, monkeypatch):
    """Compute with all rows at a time, and with seven."""
    monkeypatch.setattr(calibration, "_BLOCK", request.param)


def test_probabilities_sum_to_one_even_of_large_logits(case):
    found = np.exp(calibration.compute_log_probabilities(case[1], 1.7))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    expected = special.softmax(case[1].astype(np.float64) / 1.7, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    found = calibration.compute_log_probabilities(np.float32([[1e4, 0.0]]))
    np.testing.assert_allclose(found, [[0, -1e4]])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_scores_are_scikit_learns(case, blocks, temperature):
    labels, logits = case
    found = calibration.compute_scores(logits, labels, temperature)
    shares = special.softmax(logits.astype(np.float64) / temperature, axis=1)
    brier = metrics.brier_score_loss(labels, shares, scale_by_half=False)
    assert found.brier.mean() == pytest.approx(brier, rel=1e-12)
    assert found.nll.mean() == pytest.approx(metrics.log_loss(labels, shares), rel=1e-9)
    np.testing.assert_allclose(found.confidence, shares.max(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(found.hits, shares.argmax(axis=1) == labels)


def test_scores_of_two_classes_are_closed_forms():
    """Of p = 3/4: a hit and an error."""
    logits = np.log(np.array([[3.0, 1.0], [3.0, 1.0]]))
    found = calibration.compute_scores(logits, np.array([0, 1]))
    np.testing.assert_allclose(found.nll, [np.log(4 / 3), np.log(4)])
    np.testing.assert_allclose(found.brier, [2 / 16, 2 * 9 / 16])
    summary = calibration.summarise(found)
    assert summary["expected_calibration_error"]["value"] == pytest.approx(1 / 4)
    assert summary["bins"] == [
        {
            "low": pytest.approx(11 / 15),
            "high": pytest.approx(12 / 15),
            "count": 2,
            "confidence": pytest.approx(0.75),
            "accuracy": 0.5,
        }
    ]


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_reliability_equals_a_loop(case, bins):
    labels, logits = case
    scores = calibration.compute_scores(logits, labels)
    found = calibration.compute_reliability(scores.confidence, scores.hits, bins)
    error, total = 0.0, 0
    for place in range(bins):
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(
                special.softmax(logits.astype(np.float64), axis=1), labels, strict=True
            )
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
    is_empty = found.counts == 0
    assert is_empty.any() == (bins > 1)
    np.testing.assert_array_equal(np.isnan(found.interval).all(axis=1), is_empty)
    np.testing.assert_array_equal(np.isnan(found.interval).any(axis=1), is_empty)


@pytest.mark.parametrize("hits, count", [(0, 1), (1, 1), (3, 8), (90, 100)])
def test_intervals_are_wilsons(hits, count):
    found = calibration.compute_interval(np.array([hits / count]), np.array([count]))
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(found, [expected], atol=1e-6)


@pytest.mark.parametrize("confidence, place", [(1.0, 9), (0.5, 4), (0.51, 5), (0.0, 0)])
def test_an_edge_belongs_to_the_lower_bin(confidence, place):
    found = calibration.compute_reliability(
        np.array([confidence]), np.array([True]), 10
    )
    assert found.counts.tolist() == [k == place for k in range(10)]


def test_intervals_equal_a_bootstrap_of_another_make(case):
    labels, logits = case
    scores = calibration.compute_scores(logits, labels)
    found = calibration.summarise(scores)
    assert found == calibration.summarise(scores), "the draws are the same each time"

    def measure_error(positions):
        chosen = scores.confidence[positions], scores.hits[positions]
        return calibration.compute_reliability(*chosen).calibration_error

    measures = {
        "expected_calibration_error": measure_error,
        "negative_log_likelihood": lambda positions: scores.nll[positions].mean(),
        "brier_score": lambda positions: scores.brier[positions].mean(),
    }
    for name, measure in measures.items():
        expected = stats.bootstrap(
            (np.arange(COUNT),),
            measure,
            vectorized=False,
            n_resamples=1000,
            method="percentile",
            rng=np.random.default_rng(1),
        )
        low, high = expected.confidence_interval
        width = high - low
        np.testing.assert_allclose(
            found[name]["interval"], [low, high], atol=0.06 * width, err_msg=name
        )
    hits = int(scores.hits.sum())
    interval = stats.binomtest(hits, COUNT).proportion_ci(method="wilson")
    np.testing.assert_allclose(found["accuracy"]["interval"], interval, atol=1e-6)
    assert found["accuracy"]["value"] == hits / COUNT and found["resamples"] == 1000


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 40.0])
def test_the_temperature_is_scipys(case, blocks, scale):
    labels, logits = case
    logits = scale * logits.astype(np.float64)

    def measure(log_temperature):
        logs = special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return -logs[np.arange(COUNT), labels].mean()

    options = {"bounds": np.log(scale) + np.array([-4, 4]), "options": {"xatol": 1e-12}}
    expected = np.exp(optimize.minimize_scalar(measure, method="bounded", **options).x)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_temperature_that_is_known_is_found():
    """Two classes, right 3 of 4 times at a logit of 1: T = 1 / log 3."""
    logits, labels = np.tile([1.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(1 / np.log(3), rel=1e-12)
    found = calibration.fit_temperature(logits + 1e3, labels)
    assert found == pytest.approx(1 / np.log(3), rel=1e-12)


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        ([[1, 0], [0, 2]], [0, 1], "all 2 validation images are right"),
        ([[1, 0], [0, 2]], [1, 0], "no better than chance"),
        ([[1, 1], [1, 1]], [0, 1], "all 2 validation images are right"),
    ],
)
def test_a_temperature_that_is_nowhere_is_refused(logits, labels, message):
    with pytest.raises(UserError, match=message):
        calibration.fit_temperature(np.float32(logits), np.array(labels))
