"""`--classes` keeps some classes and numbers them anew."""

import numpy as np
import pytest

from cnn.data import load_dataset
from cnn.data.options import DataOptions
from cnn.errors import UserError


def test_labels_follow_the_order_of_the_flag():
    everything = load_dataset(DataOptions())
    chosen = load_dataset(DataOptions(classes=(7, 2)))
    assert chosen.class_names == ("7", "2")
    for name in ("train", "test"):
        whole, part = getattr(everything, name), getattr(chosen, name)
        kept = np.flatnonzero(np.isin(whole.labels, (7, 2)))
        assert len(part) == len(kept) and part.labels.dtype == np.int32
        np.testing.assert_array_equal(whole.labels[kept], np.array([7, 2])[part.labels])
        positions = np.arange(len(part))
        np.testing.assert_array_equal(part.read(positions), whole.read(kept))


def test_subsets_and_validation_are_of_the_chosen_classes():
    options = DataOptions(classes=(0, 1, 2), validation_fraction=0.1, train_examples=30)
    found = load_dataset(options)
    np.testing.assert_array_equal(np.bincount(found.train.labels), [10, 10, 10])
    assert set(found.validation.labels) == {0, 1, 2}


@pytest.mark.parametrize("classes", [(1, 1), (10,)])
def test_classes_that_there_are_not(classes):
    with pytest.raises(UserError, match="give labels from 0 to 9, each once"):
        load_dataset(DataOptions(classes=classes))


def test_one_class_alone_is_no_classification():
    with pytest.raises(UserError, match="training images are of one class, 7"):
        load_dataset(DataOptions(classes=(7,)))
