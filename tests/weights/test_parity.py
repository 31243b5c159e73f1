"""Our models against PyTorch's, by the numbers in ../golden/parity.npz."""

from pathlib import Path

import numpy as np
import pytest

from tests.golden import ours

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "parity.npz")
NAMES = sorted({name.split("/")[0] for name in GOLDEN})
TRAINED = [name for name in NAMES if f"{name}/losses" in GOLDEN]
FAST_LOGITS = {"resnet20", "wrn_16_2", "resnet18", "squeezenet1_1", "lenet5"}
FAST_TRAINING = {"resnet20", "lenet5"}


def mark_slow(names, fast):
    slow = pytest.mark.slow
    return [n if n in fast else pytest.param(n, marks=slow) for n in names]


def compare(found, wanted):
    return np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))


@pytest.mark.parametrize("name", mark_slow(NAMES, FAST_LOGITS))
def test_logits_equal_pytorchs(name):
    assert compare(ours.compute_logits(name), GOLDEN[f"{name}/logits"]) < 1e-5


@pytest.mark.parametrize("name", mark_slow(TRAINED, FAST_TRAINING))
def test_training_equals_pytorchs(name):
    found = ours.train(name)
    wanted = {kind: GOLDEN[f"{name}/{kind}"] for kind in found}
    assert compare(found["train_logits"], wanted["train_logits"]) < 1e-4
    np.testing.assert_allclose(found["running"], wanted["running"], 1e-4)
    largest = wanted["gradients"].max()
    np.testing.assert_allclose(
        found["gradients"], wanted["gradients"], 5e-3, 1e-5 * largest
    )
    np.testing.assert_allclose(found["losses"], wanted["losses"], 1e-3)
