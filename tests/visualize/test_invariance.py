"""Changes of fixed strength, and what a prediction does under them."""

import numpy as np
import pytest

from cnn.visualize.compute import invariance

RANDOM = np.random.default_rng(4)
IMAGES = RANDOM.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
IDS = np.arange(8, dtype=np.int32)


def change(name, strength, **options):
    strength = np.float32(strength)
    return np.asarray(invariance.change_images(name, IMAGES, IDS, strength, **options))


@pytest.mark.parametrize("name", invariance.CHANGES)
def test_the_strength_of_nothing_changes_nothing(name):
    found = invariance.CHANGES[name]
    assert found.nothing in found.strengths
    np.testing.assert_allclose(change(name, found.nothing).astype(int), IMAGES, atol=1)


@pytest.mark.parametrize("name", invariance.CHANGES)
def test_every_other_strength_changes_something(name):
    found = invariance.CHANGES[name]
    for strength in found.strengths:
        if strength not in (found.nothing, 0.02, 0.05, 0.1):
            assert (change(name, strength) != IMAGES).any(), strength


def test_images_move_by_whole_pixels_in_four_directions():
    moved = change("shift", 2)
    np.testing.assert_array_equal(moved[0][:, 2:], IMAGES[0][:, :-2])
    np.testing.assert_array_equal(moved[1][:, :-2], IMAGES[1][:, 2:])
    np.testing.assert_array_equal(moved[2][2:], IMAGES[2][:-2])
    np.testing.assert_array_equal(moved[3][:-2], IMAGES[3][2:])
    np.testing.assert_array_equal(moved[0][:, :2], 0)
    filled = change("shift", 2, fill=0.2)
    np.testing.assert_array_equal(filled[0][:, :2], 51)


def test_a_quarter_turn_is_exact():
    turned = change("rotation", 90)
    for image, found, sign in zip(IMAGES, turned, [-1, 1] * 4, strict=True):
        np.testing.assert_allclose(
            found.astype(int), np.rot90(image, sign).astype(int), atol=1
        )


def test_a_square_of_the_stated_side_is_covered():
    covered = change("occlusion", 0.5)
    differs = (covered != IMAGES).any(axis=-1)
    for one in differs:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        assert np.ptp(rows) == np.ptp(columns) == 2
    assert len({tuple(np.argwhere(one)[0]) for one in differs}) > 1


def test_noise_has_the_stated_deviation():
    grey = np.full((8, 20, 20, 3), 128, np.uint8)
    noisy = invariance.change_images("noise", grey, IDS, np.float32(0.1))
    assert abs(np.asarray(noisy).astype(float).std() / 255 - 0.1) < 0.01


def test_strengths_fit_the_images():
    assert invariance.choose_strengths("hue", (8, 8, 1)) == ()
    assert max(invariance.choose_strengths("shift", (8, 8, 1))) == 4
    assert max(invariance.choose_strengths("shift", (32, 32, 3))) == 8


def test_accuracy_and_agreement_are_counted():
    """A model that knows whether the left half is brighter, by hand."""
    images = np.zeros((4, 6, 6, 1), np.uint8)
    images[:2, :, :1] = 200
    images[2:, :, 5:] = 200
    labels = np.array([0, 1, 1, 1])  # the second is wrong

    def predict(images):
        halves = images[..., 0].astype(float)
        return np.stack(
            [halves[:, :, :3].sum((1, 2)), halves[:, :, 3:].sum((1, 2)) + 1], axis=1
        )

    found = invariance.measure(predict, images, labels, {"shift": (0, 4)})["shift"]
    assert found["strength"] == [0, 4]
    assert found["accuracy"][0] == 0.75 and found["agreement"][0] == 1.0
    after = np.argmax(
        predict(
            np.asarray(
                invariance.change_images(
                    "shift", images, np.arange(4, dtype=np.int32), np.float32(4)
                )
            )
        ),
        axis=1,
    )
    assert found["accuracy"][1] == np.mean(after == labels)
    assert found["agreement"][1] == np.mean(after == [0, 0, 1, 1])
    assert found["agreement"][1] < 1


def test_the_unchanged_images_are_predicted_once():
    seen = []

    def predict(images):
        seen.append(images)
        return np.zeros((len(images), 2))

    changes = {"shift": (0, 1), "scale": (0.5, 1), "noise": (0, 0.1)}
    found = invariance.measure(predict, IMAGES, np.zeros(len(IMAGES)), changes)
    assert len(seen) == 1 + 3
    assert found["scale"]["agreement"] == [1.0, 1.0]
