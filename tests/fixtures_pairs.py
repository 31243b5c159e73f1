"""Images of two digits side by side, and a small run that learns which occur."""

import runpy

import numpy as np
import pytest
from fixtures_runs import ROOT, train_run

SMALL = {
    "validation_fraction": 0.3,
    "train_examples": 0,
    "dropout_rate": 0.0,
    "learning_rate": 0.5,
    "epochs": 2,
}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Write 160 training and 90 test pairs of digits; returns the `--dataset`."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.npz"
    runpy.run_path(str(ROOT / "benchmarks/digit_pairs.py"))["write"](path, 160, 90)
    return f"npz:{path}"


@pytest.fixture(scope="session")
def pairs_run(pairs, tmp_path_factory):
    """Return a run on the pairs that has ended: its directory; not to be changed."""
    directory = tmp_path_factory.mktemp("pairs_run") / "run"
    train_run(directory, dataset=pairs, **SMALL)
    return directory


def make_answers(count=40, classes=5, seed=0):
    """Return logits with many ties, labels of every class, and losses."""
    random = np.random.default_rng(seed)
    logits = random.integers(-3, 4, (count, classes)).astype(np.float32)
    labels = (random.random((count, classes)) < 0.4).astype(np.uint8)
    return logits, labels, random.random(count).astype(np.float32)
