import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.training import metrics

COUNT, CLASSES = 41, 7
COMPUTE = jax.jit(metrics.compute_sums)


@pytest.fixture
def examples():
    """Return logits with many ties, labels, losses and a mask."""
    random = np.random.default_rng(0)
    return (
        random.integers(0, 4, (COUNT, CLASSES)).astype(np.float32),
        random.integers(0, CLASSES, COUNT).astype(np.int32),
        random.integers(0, 64, COUNT).astype(np.float32) / 16,
        random.random(COUNT) < 0.8,
    )


def count_plainly(logits, labels, losses, mask):
    """Compute the sums with loops."""
    sums = {"loss": 0.0, "correct": 0, "top5": 0, "count": 0}
    confusion = np.zeros((CLASSES, CLASSES), int)
    for row, label, loss, counted in zip(logits, labels, losses, mask, strict=True):
        if counted:
            order = sorted(range(CLASSES), key=lambda k: (-row[k], k))
            sums["loss"] += loss
            sums["correct"] += order[0] == label
            sums["top5"] += label in order[:5]
            sums["count"] += 1
            confusion[label, order[0]] += 1
    return sums | {"confusion": confusion}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_sums_equal_plain_loops(examples):
    found = COMPUTE(*map(jnp.asarray, examples))
    expected = count_plainly(*examples)
    assert_equal(found, expected)
    assert 0 < expected["correct"] < expected["top5"] < expected["count"] < COUNT


@pytest.mark.parametrize("size", [1, 3, 16, 41])
def test_any_split_adds_up(examples, size):
    total = metrics.create_sums(CLASSES)
    for start in range(0, COUNT, size):
        part = (jnp.asarray(x[start : start + size]) for x in examples)
        total = metrics.add_sums(total, COMPUTE(*part))
    assert_equal(total, count_plainly(*examples))


def test_padding_counts_nowhere(examples):
    logits, labels, losses, mask = examples
    losses = np.where(mask, losses, np.inf)
    found = COMPUTE(*map(jnp.asarray, (logits, labels, losses, mask)))
    kept = [x[mask] for x in examples]
    assert_equal(found, count_plainly(*kept))


@pytest.mark.parametrize("label, inside", [(0, 1), (4, 1), (5, 0)])
def test_equal_logits_rank_by_index(label, inside):
    found = COMPUTE(
        jnp.zeros((1, CLASSES)),
        jnp.int32([label]),
        jnp.ones(1),
        jnp.ones(1, bool),
    )
    assert found["top5"] == inside and found["correct"] == (label == 0)


def test_up_to_five_classes_are_all_in_the_top_five():
    logits, labels = jnp.eye(3), jnp.int32([2, 0, 1])
    found = COMPUTE(logits, labels, jnp.ones(3), jnp.ones(3, bool))
    assert found["top5"] == 3 and found["correct"] == 0


def test_sums_start_at_zero_with_their_types(examples):
    start = metrics.create_sums(CLASSES)
    some = COMPUTE(*map(jnp.asarray, examples))
    assert {n: (x.shape, x.dtype) for n, x in start.items()} == {
        n: (x.shape, x.dtype) for n, x in some.items()
    }
    assert not any(np.any(x) for x in start.values())


def test_summary_equals_plain_numpy(examples):
    sums = count_plainly(*examples)
    found = metrics.summarise(COMPUTE(*map(jnp.asarray, examples)))
    logits, labels, losses, mask = examples
    labels, right = labels[mask], (logits.argmax(axis=1) == labels)[mask]
    recalls = [right[labels == k].mean() for k in np.unique(labels)]
    assert found["accuracy"] == right.mean()
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["loss"] == pytest.approx(losses[mask].mean())
    assert found["top5"] == sums["top5"] / mask.sum()
    assert (found["correct"], found["count"]) == (right.sum(), mask.sum())
    assert found["confusion"] == sums["confusion"].tolist()
    for k, row in enumerate(found["per_class"]):
        own = right[labels == k]
        assert (row["count"], row["correct"]) == (len(own), own.sum())
        assert row["accuracy"] == (own.mean() if len(own) else 0)


def test_classes_that_do_not_occur_do_not_count_in_balanced_accuracy():
    sums = metrics.create_sums(3)
    confusion = jnp.int32([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    sums |= {"confusion": confusion, "count": jnp.int32(6), "correct": jnp.int32(4)}
    found = metrics.summarise(sums)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["per_class"][1] == {"count": 0, "correct": 0, "accuracy": 0.0}


def test_no_examples():
    found = metrics.summarise(metrics.create_sums(2))
    assert (found["loss"], found["accuracy"], found["balanced_accuracy"]) == (0, 0, 0)
