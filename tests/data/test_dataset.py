import numpy as np
import pytest

from cnn import data, option
from cnn.data import images
from cnn.errors import UserError


def load(**changes):
    return data.load_dataset(data.DataOptions(**changes))


def read(part):
    return part.read(np.arange(len(part)))


def test_defaults_are_within_their_ranges():
    option.check(data.DataOptions())


def test_take_composes_and_reads_from_the_first_set():
    pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    part = images.from_array(pixels, np.arange(10)).take([9, 8, 7, 6]).take([3, 1])
    assert part.read(np.array([1, 0, 0])).ravel().tolist() == [8, 6, 6]
    assert part.labels.tolist() == [6, 8]


def test_in_memory_reads_once(monkeypatch):
    monkeypatch.setattr(images, "_CHUNK", 4)
    calls = []

    def read_counted(positions):
        calls.append(len(positions))
        return np.asarray(positions, np.uint8).reshape(-1, 1, 1, 1)

    lazy = images.Images(np.arange(10, dtype=np.int32), (1, 1, 1), read_counted)
    part = lazy.in_memory()
    assert calls == [4, 4, 2] and part.decoded
    assert read(part).ravel().tolist() == list(range(10)) and len(calls) == 3


def test_validation_is_carved_stratified_and_disjoint():
    whole, carved = load(), load(validation_fraction=0.1)
    assert len(carved.train) == 1293 and len(carved.validation) == 144
    counts = np.bincount(carved.validation.labels)
    assert counts.min() >= 14 and counts.max() <= 15
    left = iter(map(bytes, read(whole.train)))
    assert all(image in left for image in map(bytes, read(carved.train)))
    together = np.concatenate([read(carved.train), read(carved.validation)])
    assert sorted(map(bytes, together)) == sorted(map(bytes, read(whole.train)))
    np.testing.assert_array_equal(read(carved.test), read(whole.test))


def test_carving_depends_on_the_split_seed_alone():
    labels = [
        load(validation_fraction=0.1, split_seed=seed).validation.labels
        for seed in (0, 0, 1)
    ]
    assert (labels[0] == labels[1]).all() and (labels[0] != labels[2]).any()


def test_train_examples_come_from_what_is_left():
    carved = load(validation_fraction=0.1)
    few = load(validation_fraction=0.1, train_examples=50)
    assert np.bincount(few.train.labels).tolist() == [5] * 10
    np.testing.assert_array_equal(read(few.validation), read(carved.validation))
    assert set(map(bytes, read(few.train))) <= set(map(bytes, read(carved.train)))


def test_shuffled_pixels_are_one_permutation():
    plain, shuffled = load(), load(shuffle_pixels=True)
    before = np.concatenate([read(plain.train), read(plain.test)]).reshape(-1, 64)
    after = np.concatenate([read(shuffled.train), read(shuffled.test)]).reshape(-1, 64)
    order = np.random.RandomState(0).permutation(64)
    np.testing.assert_array_equal(after, before[:, order])
    assert (after != before).any()
    other = load(shuffle_pixels=True, split_seed=3)
    assert (read(other.train) != read(shuffled.train)).any()


def test_more_classes_are_padded_by_number():
    names = load(num_classes=12).class_names
    assert names == (*"0123456789", "10", "11")


BAD = [
    ({"dataset": "digit"}, "did you mean digits"),
    ({"dataset": "npz"}, "npz:"),
    ({"num_classes": 9}, "example .* has label 9, outside 0..8"),
    ({"train_examples": 1438}, "more than the 1437"),
    ({"validation_fraction": 0.0001}, "0 for validation"),
    ({"channels": 2}, "--channels=2"),
    ({"resize_size": 10}, "--resize_size=10"),
    ({"resize_size": 10, "image_size": 12}, "at most 10"),
    ({"resize_size": 10, "image_size": 8, "resize_mode": "pad"}, "resize_mode=crop"),
    ({"storage_size": 10}, "--image_size"),
    ({"storage_size": 10, "image_size": 12}, "from 1 to 10"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_options(changes, message):
    with pytest.raises(UserError, match=message):
        load(**changes)


def test_storage_size_is_what_images_are_stored_at():
    assert load(storage_size=10, image_size=8).train.shape == (10, 10, 1)


def test_fewer_classes_than_names_is_refused(tmp_path):
    from PIL import Image

    for part, name in [("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")]:
        (tmp_path / part / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / part / name / "1.png")
    with pytest.raises(UserError, match="outside 0..0"):
        load(dataset=f"folder:{tmp_path}", num_classes=1)


def test_what_does_not_fit_in_memory_is_said(monkeypatch):
    def load(rest, options):
        raise MemoryError("Unable to allocate 377 TiB")

    monkeypatch.setitem(data.LOADERS, "digits", load)
    with pytest.raises(UserError, match="--dataset=digits does not fit .*377 TiB"):
        data.load_dataset(data.DataOptions())
