import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.training import losses
from cnn.training.options import LossOptions

GOLDEN = json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())
LOGITS, LABELS = jnp.float32(GOLDEN["logits"]), jnp.int32(GOLDEN["labels"])


@pytest.mark.parametrize("smoothing, name", [(None, "plain"), (0.1, "smooth")])
def test_mean_and_gradient_equal_pytorch(smoothing, name):
    def compute(logits):
        targets = losses.make_targets(LABELS, 4, smoothing)
        return jnp.mean(losses.softmax(logits, targets))

    loss, gradient = jax.value_and_grad(compute)(LOGITS)
    np.testing.assert_allclose(loss, GOLDEN[name]["loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN[name]["gradient"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [None, np.float32(0.25)])
def test_targets_are_distributions(smoothing):
    targets = np.asarray(losses.make_targets(LABELS, 4, smoothing))
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    off, on = (0, 1) if smoothing is None else (0.0625, 0.8125)
    expected = np.where(np.eye(4)[GOLDEN["labels"]] == 1, on, off)
    np.testing.assert_allclose(targets, expected, rtol=1e-6)


def test_soft_targets():
    targets = jnp.float32([[0.5, 0.25, 0.25, 0.0]] * 6)
    logits = np.float64(GOLDEN["logits"])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(logs * np.float64([0.5, 0.25, 0.25, 0.0])).sum(axis=1)
    np.testing.assert_allclose(losses.softmax(LOGITS, targets), expected, 1e-5)


def test_extreme_logits_stay_finite():
    logits, targets = (
        jnp.float32([[1e4, -1e4], [-1e4, 1e4]]),
        jnp.eye(2)[jnp.zeros(2, int)],
    )
    found = losses.softmax(logits, targets)
    np.testing.assert_allclose(found, [0, 2e4])


def test_bfloat16_logits_are_computed_in_float32():
    logits = LOGITS.astype(jnp.bfloat16)
    targets = losses.make_targets(LABELS, 4, None)
    found = losses.softmax(logits, targets)
    assert found.dtype == jnp.float32
    exact = losses.softmax(logits.astype(jnp.float32), targets)
    np.testing.assert_array_equal(found, exact)


def test_class_weights_make_every_class_count_the_same():
    labels = np.int32([0] * 6 + [1] * 3 + [3])
    weights = losses.compute_class_weights(
        LossOptions(class_weights="balanced"), labels, 4
    )
    assert weights[2] == 0
    totals = np.bincount(labels, minlength=4) * weights
    np.testing.assert_allclose(totals[[0, 1, 3]], len(labels) / 3)
    assert losses.compute_class_weights(LossOptions(), labels, 4) == ()


def test_class_weights_of_full_classes_follow_the_documented_formula():
    labels = np.int32([0, 0, 0, 1])
    found = losses.compute_class_weights(
        LossOptions(class_weights="balanced"), labels, 2
    )
    np.testing.assert_allclose(found, [4 / (2 * 3), 4 / (2 * 1)])
