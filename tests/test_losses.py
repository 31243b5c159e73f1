import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.errors import UserError
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


def test_class_weights_of_several_labels_count_each():
    labels = np.int32([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    options = LossOptions(class_weights="balanced")
    found = losses.compute_class_weights(options, labels, 3)
    np.testing.assert_allclose(found, [4 / (2 * 3), 4 / (2 * 1), 0])


@pytest.mark.parametrize("name", losses.LOSSES)
def test_extreme_logits_have_finite_losses_and_gradients(name):
    """At gamma below 1 the power is infinitely steep where all is right."""
    logits = jnp.float32([[1e4, -1e4], [-1e4, 1e4], [150.0, -150.0]])
    targets = jnp.eye(2)[jnp.zeros(3, int)]
    focus = {"gamma": jnp.float32(0.5), "alpha": jnp.float32(0.25)}
    focus = focus if name == "focal" else {}

    def compute(logits):
        return jnp.sum(losses.make_loss(name, "mean")(logits, targets, **focus))

    loss, gradient = jax.value_and_grad(compute)(logits)
    assert np.isfinite(loss) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_is_computed_in_float32(name):
    logits, targets = LOGITS.astype(jnp.bfloat16), losses.make_targets(LABELS, 4, None)
    found = losses.LOSSES[name](logits, targets)
    assert found.dtype == jnp.float32
    exact = losses.LOSSES[name](logits.astype(jnp.float32), targets)
    np.testing.assert_array_equal(found, exact)


def test_the_sum_is_as_many_means_as_there_are_classes():
    targets = losses.make_targets(LABELS, 4, np.float32(0.1))
    for name in losses.LOSSES:
        mean, total = (losses.make_loss(name, x) for x in ("mean", "sum"))
        factor = 1 if name == "softmax" else 4
        np.testing.assert_allclose(
            total(LOGITS, targets), factor * mean(LOGITS, targets), 1e-6
        )


def test_evaluation_sees_focal_as_cross_entropy():
    targets = losses.make_targets(LABELS, 4, None)
    found = [losses.make_loss(x, "mean")(LOGITS, targets) for x in ("focal", "bce")]
    np.testing.assert_allclose(*found, 1e-6)


@pytest.mark.parametrize(
    "threshold, smoothing, fits",
    [(0.0, 0.5, True), (0.2, 0.1, True), (0.024, 0.1, False), (0.926, 0.1, False)],
)
def test_a_threshold_lies_between_the_targets(threshold, smoothing, fits):
    options = LossOptions("bce", bce_threshold=threshold, label_smoothing=smoothing)
    if fits:
        losses.check(options, 4, are_several=False)
        return
    with pytest.raises(UserError, match="^--bce_threshold=.* 0.025 and 0.925"):
        losses.check(options, 4, are_several=False)


def test_of_several_labels_a_threshold_lies_between_their_targets():
    options = LossOptions("bce", bce_threshold=0.04, label_smoothing=0.1)
    losses.check(options, 4, are_several=False)
    with pytest.raises(UserError, match="^--bce_threshold=.* 0.05 and 0.95"):
        losses.check(options, 4, are_several=True)
