import jax
import numpy as np
import pytest

from cnn import keys
from cnn.data import order


@pytest.mark.parametrize("count, batch_size", [(20, 5), (23, 5), (7, 7), (9, 1)])
def test_epoch_sees_each_example_at_most_once(count, batch_size):
    found = order.make_epoch_order(0, 0, count, batch_size)
    assert found.shape == (count // batch_size, batch_size)
    assert found.dtype == np.int32
    seen = np.unique(found)
    assert len(seen) == found.size and seen.min() >= 0 and seen.max() < count


def test_order_depends_on_seed_and_epoch_alone():
    orders = [
        order.make_epoch_order(seed, epoch, 50, 10).ravel()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1), (2**31 - 1, 0))
    ]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.any(one != other)
    again = order.make_epoch_order(0, 0, 50, 5).ravel()
    np.testing.assert_array_equal(orders[0], again, "batches only cut the order")


def test_order_is_the_same_on_every_machine_and_version():
    found = order.make_epoch_order(3, 2, 10, 5).ravel()
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 1), 2)
    np.testing.assert_array_equal(found, jax.random.permutation(key, 10))


COUNTS = {0: 600, 1: 150, 3: 6}  # of class 2 there are none
LABELS = np.random.default_rng(0).permutation(
    np.repeat(list(COUNTS), list(COUNTS.values())).astype(np.int32)
)


def draw(sampling, seed=0, epoch=0, labels=LABELS, batch_size=7):
    return order.draw_epoch(seed, epoch, labels, batch_size, sampling)


def test_uniform_sampling_is_the_permutation():
    found = draw("uniform", 3, 2)
    assert list(found) == ["ids"]
    wanted = order.make_epoch_order(3, 2, len(LABELS), 7)
    np.testing.assert_array_equal(found["ids"], wanted)


@pytest.mark.parametrize(
    "sampling, wanted",
    [
        ("balanced", {0: 1 / 3, 1: 1 / 3, 3: 1 / 3}),
        ("sqrt", {0: 10 / 16, 1: 5 / 16, 3: 1 / 16}),
    ],
)
def test_classes_are_drawn_as_often_as_is_said(sampling, wanted):
    weights = order.make_weights(LABELS, sampling)
    weights /= weights.sum()
    for label, share in wanted.items():
        own = weights[LABELS == label]
        np.testing.assert_allclose(own, share / COUNTS[label], 1e-12)
    ids = np.stack([draw(sampling, epoch=n)["ids"] for n in range(40)]).ravel()
    assert len(ids) == 40 * 756
    drawn = np.bincount(LABELS[ids], minlength=4)
    expected = len(ids) * np.array([wanted.get(k, 0) for k in range(4)])
    present = expected > 0
    chi = (drawn[present] - expected[present]) ** 2 / expected[present]
    assert drawn[2] == 0 and chi.sum() < 13.8  # 2 degrees: one seed in a thousand
    # Within a class, each of its examples alike.
    of_largest = np.bincount(ids, minlength=len(LABELS))[LABELS == 0]
    mean = drawn[0] / 600
    assert ((of_largest - mean) ** 2 / mean).sum() < 599 + 4 * np.sqrt(2 * 599)


def test_what_is_drawn_depends_on_seed_epoch_and_position_alone():
    found = [draw("balanced", *x)["ids"].ravel() for x in ((0, 0), (0, 1), (1, 0))]
    assert np.any(found[0] != found[1]) and np.any(found[0] != found[2])
    again = draw("balanced", batch_size=64)["ids"].ravel()
    np.testing.assert_array_equal(found[0][: len(again)], again)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)
    high, low = np.asarray(jax.random.bits(key, (2, 2), np.uint32), int).T
    ends = np.cumsum(order.make_weights(LABELS, "balanced"))
    for i in range(2):  # by whole numbers of 53 bits
        share = ((int(high[i]) << 21) + (int(low[i]) >> 11)) / 2**53
        assert ends[found[0][i] - 1] <= share * ends[-1] < ends[found[0][i]]


def test_copies_count_what_the_epoch_has_drawn_before():
    found = draw("balanced")
    seen = {}
    assert found["copies"].dtype == found["ids"].dtype == np.int32
    for number, copy in zip(found["ids"].ravel(), found["copies"].ravel(), strict=True):
        assert copy == seen.get(number, 0)
        seen[number] = copy + 1
    assert max(seen.values()) > 20, "one of six examples of a third of the draws"


def test_repeats_stand_in_their_batch_apart_from_each_other():
    found = order.draw_epoch(0, 0, LABELS, 8, repeats=3)
    ids, copies = found["ids"], found["copies"]
    plain = order.make_epoch_order(0, 0, len(LABELS), 8)
    assert ids.shape == plain.shape
    assert np.all(ids != np.roll(ids, 1, axis=1)), "what an image is mixed with"
    for number, batch in enumerate(ids):
        first = plain.ravel()[3 * number : 3 * number + 3]
        np.testing.assert_array_equal(np.bincount(batch)[first], [3, 3, 2])
    np.testing.assert_array_equal(copies[5], [0, 0, 0, 1, 1, 1, 2, 2])
    drawn = order.draw_epoch(0, 0, LABELS, 8, "balanced", repeats=2)
    once = order.draw_epoch(0, 0, LABELS, 8, "balanced")["ids"].ravel()
    np.testing.assert_array_equal(drawn["ids"][1, :4], once[4:8])
    np.testing.assert_array_equal(drawn["ids"][1, 4:], once[4:8])


def test_an_example_of_several_labels_weighs_as_its_rarest():
    labels = np.int32([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]])
    balanced = order.make_weights(labels, "balanced")
    mean = (3 / 4 + 1) / 4
    np.testing.assert_allclose(balanced, [1 / 4, 1, 1 / 4, mean, 1 / 4])
    root = order.make_weights(labels, "sqrt")
    np.testing.assert_allclose(root[:3], [1 / 2, 1, 1 / 2])
    one_each = np.eye(4, dtype=np.int32)[LABELS]
    for name in ("balanced", "sqrt"):
        wanted = order.make_weights(LABELS, name)
        np.testing.assert_allclose(order.make_weights(one_each, name), wanted)
        nothing = order.make_weights(np.zeros((3, 2), np.int32), name)
        np.testing.assert_array_equal(nothing, 1)


def test_examples_of_a_large_set_are_told_apart(monkeypatch):
    """Steps of float32 near 1 are 6e-8, more than an example's share may be."""
    bits = np.uint32([[2**32 - 1, k << 29] for k in range(8)] + [[2**32 - 1] * 2])
    monkeypatch.setattr(keys, "draw_bits", lambda key, count: bits.reshape(-1))
    weights = np.array([1 - 2.0**-32] + [2.0**-35] * 8)
    found = order._draw(keys.order_key(0, 0), weights, 9)
    np.testing.assert_array_equal(found, [1, 2, 3, 4, 5, 6, 7, 8, 8])


@pytest.mark.parametrize(
    "count, batch_size, steps", [(10, 5, 2), (11, 5, 3), (1, 64, 1), (0, 4, 0)]
)
def test_evaluation_sees_everything_once(count, batch_size, steps):
    positions, mask = order.make_eval_order(count, batch_size)
    assert positions.shape == mask.shape == (steps, batch_size)
    assert positions.dtype == np.int32 and mask.dtype == bool
    np.testing.assert_array_equal(positions[mask], np.arange(count))
    assert np.all(positions[~mask] == 0)


def test_streams_of_randomness_share_nothing():
    def data(key):
        return tuple(np.asarray(jax.random.key_data(key)).tolist())

    numbers = [(seed, number) for seed in range(4) for number in range(4)]
    found = [data(keys.initialisation_key(seed)) for seed in range(4)]
    found += [data(keys.dropout_key(*x)) for x in numbers]
    found += [tuple(keys.order_key(*x).tolist()) for x in numbers]
    assert len(set(found)) == len(found)
    assert data(keys.dropout_key(1, 2)) == data(keys.dropout_key(1, np.int32(2)))


@pytest.mark.parametrize("seed, epoch", [(0, 0), (2**31 - 1, 1000)])
@pytest.mark.parametrize("count", [1, 2, 1293, 5000])  # a sort or two
def test_the_host_draws_what_jax_draws(seed, epoch, count):
    stream = jax.random.fold_in(jax.random.key(seed), 1)
    theirs, ours = jax.random.fold_in(stream, epoch), keys.order_key(seed, epoch)
    np.testing.assert_array_equal(jax.random.key_data(theirs), ours)
    bits = jax.random.bits(theirs, (count,), np.uint32)
    np.testing.assert_array_equal(bits, keys.draw_bits(ours, count))
    order = jax.random.permutation(theirs, np.arange(count, dtype=np.int32))
    np.testing.assert_array_equal(order, keys.permute(ours, count))
    assert keys.permute(ours, count).dtype == np.int32
