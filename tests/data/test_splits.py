import numpy as np
import pytest

from cnn.data import choose


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("taken", [5, 13, 50])
def test_stratified_split_equals_scikit_learn(seed, taken):
    from sklearn.model_selection import train_test_split

    labels = np.random.RandomState(seed).randint(0, 4, 101)
    expected = train_test_split(
        np.arange(101), test_size=taken, stratify=labels, random_state=seed
    )
    for ours, theirs in zip(
        choose.stratified_split(labels, taken, seed), expected, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_stratified_split_allows_single_examples():
    labels = np.array([0] * 10 + [1])
    rest, part = choose.stratified_split(labels, 3, 0)
    assert sorted([*rest, *part]) == list(range(11)) and len(part) == 3


def test_balanced_subset_shares_equally():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 4)
    chosen = choose.balanced_subset(labels, 24, seed=0)
    assert len(set(chosen)) == 24 and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [10, 10, 4])


def test_balanced_subset_is_nested_and_seeded():
    labels = np.arange(60) % 3
    small, large = (choose.balanced_subset(labels, size, 1) for size in (12, 30))
    assert set(small) < set(large)
    assert set(small) != set(choose.balanced_subset(labels, 12, 2))
