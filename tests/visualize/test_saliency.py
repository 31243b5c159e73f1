"""Saliency maps against small references in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from cnn.visualize.compute import features, saliency

RANDOM = np.random.default_rng(5)
CHANNELS, CLASSES = 4, 3
KERNEL = RANDOM.normal(size=(2, CHANNELS)).astype(np.float32)
HEAD = RANDOM.normal(size=(CHANNELS, CLASSES)).astype(np.float32)
IMAGES = RANDOM.normal(size=(2, 6, 5, 2)).astype(np.float32)
ANSWERS = np.array([2, 0], np.int32)


def compute(weights, images):
    """A 1x1 convolution, a ReLU, the mean of all places, a dense layer."""
    maps = jax.nn.relu(images @ weights["kernel"])
    return jnp.mean(maps, axis=(1, 2)) @ weights["head"], {"stage": maps}


FUNCTION = Partial(compute, {"kernel": KERNEL, "head": HEAD})


def compute_numpy(images):
    maps = np.maximum(images @ KERNEL, 0)
    return maps.mean(axis=(1, 2)) @ HEAD, maps


def test_gradient_is_that_of_numpy():
    _, maps = compute_numpy(IMAGES)
    slopes = (maps > 0) * HEAD.T[ANSWERS][:, None, None] / 30
    expected = slopes @ KERNEL.T
    found = saliency.gradient(FUNCTION, jnp.asarray(IMAGES), ANSWERS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_grad_cam_is_that_of_numpy():
    _, maps = compute_numpy(IMAGES)
    # The slope of a logit to each value is its head's weight over all places.
    weights = HEAD.T[ANSWERS][:, None, None] / 30
    expected = np.maximum((weights * maps).sum(-1), 0)
    found = saliency.grad_cam(FUNCTION, jnp.asarray(IMAGES), ANSWERS, "stage")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert expected.max() > 0.01


@pytest.mark.parametrize("size, stride, fill", [(2, 1, 0.0), (3, 2, 0.7), (1, 1, 0.0)])
def test_occlusion_is_that_of_numpy(size, stride, fill):
    whole = compute_numpy(IMAGES)[0][[0, 1], ANSWERS]
    tops, lefts = range(0, 7 - size, stride), range(0, 6 - size, stride)
    expected = np.zeros((2, len(tops), len(lefts)))
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            covered = IMAGES.copy()
            covered[:, top : top + size, left : left + size] = fill
            expected[:, i, j] = whole - compute_numpy(covered)[0][[0, 1], ANSWERS]
    found = saliency.occlusion(FUNCTION, IMAGES, ANSWERS, size, stride, fill)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_integrated_gradients_are_those_of_numpy():
    baseline = np.full((1, 1, 1, 2), 0.25, np.float32)
    expected, path = np.zeros_like(IMAGES, np.float64), IMAGES - baseline
    for step in range(2000):
        maps = compute_numpy(baseline + (step + 0.5) / 2000 * path)[1]
        slopes = (maps > 0) * HEAD.T[ANSWERS][:, None, None] / 30
        expected += slopes @ KERNEL.T / 2000
    expected *= path
    shares, _ = saliency.integrated_gradients(
        FUNCTION, jnp.asarray(IMAGES), ANSWERS, baseline, tolerance=1e-4
    )
    np.testing.assert_allclose(shares, expected, atol=2e-3)
    assert np.abs(expected).max() > 0.02


def test_integrated_gradients_add_up():
    black = jnp.full((1, 1, 1, 2), -2.0)
    images = jnp.asarray(IMAGES)
    shares, error = saliency.integrated_gradients(FUNCTION, images, ANSWERS, black)
    rise = compute_numpy(IMAGES)[0] - compute_numpy(np.full_like(IMAGES, -2))[0]
    rise = rise[[0, 1], ANSWERS]
    total = shares.sum(axis=(1, 2, 3))
    assert np.all(np.abs(total - rise) <= 0.01 * np.abs(rise))
    assert np.all(error <= 0.01)


def test_steps_end():
    images = jnp.asarray(IMAGES)
    _, error = saliency.integrated_gradients(
        FUNCTION, images, ANSWERS, images * 0, tolerance=0.0, most_steps=64
    )
    assert error.shape == (2,)


def test_an_image_whose_shares_add_up_takes_no_more_steps(monkeypatch):
    """Logits x for the first image, x⁴ for the second, which 32 steps miss by 5e-4."""
    counts, sum_gradients = [], saliency._sum_gradients

    def count(*given):
        counts.append(np.bincount(given[4], minlength=2).tolist())
        return sum_gradients(*given)

    monkeypatch.setattr(saliency, "_sum_gradients", count)
    images = jnp.ones((2, 1, 1, 1))
    shares, error = saliency.integrated_gradients(
        Partial(compute_powers, jnp.ones(())),
        images,
        np.array([0, 1]),
        images * 0,
        tolerance=3e-4,
    )
    assert counts == [[32, 32], [0, 64]]  # a third of the 96 were there
    np.testing.assert_allclose(shares.ravel(), [1, 1], atol=3e-4)
    assert error.max() < 3e-4


def compute_powers(weight, images):
    x = weight * images.reshape(-1, 1)
    return jnp.concatenate([x, x**4], axis=1), {}


def test_few_images_and_many_share_a_program():
    program = features.compile_with(features._compute_logits, ())
    program.clear_cache()
    for count in (1, 2, 700):
        images = np.zeros((count, 5, 6, 2), np.float32)
        saliency._score(FUNCTION, images, np.zeros(count, int))
    assert program._cache_size() == 1


def test_a_rise_near_nothing_takes_no_more_steps(monkeypatch):
    """x⁴ for the class and 0.999 x against it: 32 steps miss half of the rise."""
    counts, sum_gradients = [], saliency._sum_gradients

    def count(*given):
        counts.append(len(given[4]))
        return sum_gradients(*given)

    monkeypatch.setattr(saliency, "_sum_gradients", count)
    image = jnp.ones((1, 1, 2, 1))
    function = Partial(compute_difference, jnp.ones(()))
    shares, error = saliency.integrated_gradients(function, image, [0], image * 0)
    assert counts == [32] and 1e-4 < error.max() < 1e-3
    np.testing.assert_allclose(shares.ravel(), [1, -0.999], atol=1e-3)


def compute_difference(weight, images):
    x = weight * images.reshape(-1, 2)
    return x[:, :1] ** 4 - 0.999 * x[:, 1:], {}


def test_batches_of_gradients_are_smaller():
    sizes = [features.choose_batch_size(32 * 32, is_one) for is_one in (False, True)]
    assert sizes == [64, 32]
