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

    found = [data(keys.initialisation_key(seed)) for seed in range(4)]
    for make in (keys.order_key, keys.dropout_key):
        found += [data(make(seed, number)) for seed in range(4) for number in range(4)]
    assert len(set(found)) == len(found)
    assert data(keys.dropout_key(1, 2)) == data(keys.dropout_key(1, np.int32(2)))
