import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn import keys
from cnn.augment import mixing

RANDOM = np.random.default_rng(2)
IMAGES = RANDOM.normal(size=(6, 8, 9, 3)).astype(np.float32)
TARGETS = np.eye(6, dtype=np.float32)


def make_keys(count, operation="mixing"):
    return keys.example_keys(0, 0, jnp.arange(count), operation)


@pytest.mark.parametrize("size", [0, 1, 4, 20])
def test_cutout_sets_a_square_about_a_pixel(size):
    found = np.asarray(mixing.cut_out(make_keys(6), IMAGES, size, 7.0))
    for image, out in zip(IMAGES, found, strict=True):
        cut = np.all(out == 7.0, axis=-1)
        np.testing.assert_array_equal(out[~cut], image[~cut])
        rows, columns = np.nonzero(cut.any(1))[0], np.nonzero(cut.any(0))[0]
        assert cut.sum() == len(rows) * len(columns)
        assert len(rows) <= size and len(columns) <= size
        if 0 < size < 8:
            assert len(rows) >= size // 2 and len(columns) >= size // 2
    assert size != 4 or len({(out == 7).tobytes() for out in found}) > 3


def test_cutout_centres_are_uniform():
    plain = np.ones((10_000, 5, 5, 1), np.float32)
    found = np.asarray(mixing.cut_out(make_keys(10_000), plain, 1))
    counts = (found == 0).sum(axis=(0, 3)).ravel()
    assert counts.sum() == 10_000
    assert ((counts - 400) ** 2 / 400).sum() < 51.2, "chi-squared, 24 degrees, p 0.001"


@pytest.mark.parametrize("mode", ["constant", "noise"])
def test_erasing_obeys_probability_and_area(mode):
    plain = np.full((4000, 20, 20, 1), 5.0, np.float32)
    found = np.asarray(mixing.erase(make_keys(4000), plain, 0.4, mode))
    erased = np.any(found != 5.0, axis=(1, 2, 3))
    assert erased.mean() == pytest.approx(0.4, abs=0.03)
    area = (found != 5.0).mean(axis=(1, 2, 3))[erased]
    assert area.min() >= 0.01 and area.max() <= 0.36
    assert area.mean() == pytest.approx(0.175, abs=0.01)
    values = found[found != 5.0]
    assert values.std() == pytest.approx(float(mode == "noise"), abs=0.02)
    never = mixing.erase(make_keys(6), IMAGES, 0.0, mode)
    np.testing.assert_array_equal(never, IMAGES)
    tiny = mixing.erase(make_keys(3), np.ones((3, 1, 1, 1), np.float32), 1.0)
    assert np.isfinite(tiny).all()


@pytest.mark.parametrize("scope", ["batch", "example"])
def test_mixup_mixes_images_and_labels_alike(scope):
    share = mixing.draw_share(make_keys(6), 0.7, 1.0, scope)
    images, targets = mixing.mix_up(IMAGES, TARGETS, share)
    own = np.float64(share)
    assert (len(np.unique(own)) == 1) == (scope == "batch")
    for i in range(6):
        mixed = own[i] * IMAGES[i] + (1 - own[i]) * IMAGES[i - 1]
        np.testing.assert_allclose(images[i], mixed, atol=1e-6)
        label = own[i] * TARGETS[i] + (1 - own[i]) * TARGETS[i - 1]
        np.testing.assert_allclose(targets[i], label, atol=1e-6)


@pytest.mark.parametrize("scope", ["batch", "example"])
def test_cutmix_labels_are_the_areas_that_were_pasted(scope):
    key = make_keys(6)
    share = mixing.draw_share(key, 1.0, 1.0, scope)
    images, targets = map(
        np.asarray, mixing.cut_mix(key, IMAGES, TARGETS, share, scope)
    )
    for i in range(6):
        pasted = np.all(images[i] == IMAGES[i - 1], axis=-1)
        kept = np.all(images[i] == IMAGES[i], axis=-1)
        assert np.all(pasted ^ kept)
        assert targets[i, i - 1] == pytest.approx(pasted.mean(), abs=1e-6)
        assert targets[i, i] == pytest.approx(kept.mean(), abs=1e-6)
        rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
        assert pasted.sum() == rows * columns
    whole, same = mixing.cut_mix(key, IMAGES, TARGETS, jnp.ones(6), scope)
    np.testing.assert_array_equal(whole, IMAGES)
    np.testing.assert_array_equal(same, TARGETS)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta(alpha):
    share = np.float64(mixing.draw_share(make_keys(10_000), alpha, scope="example"))
    # Of Beta(0.2, 0.2), 2 % rounds to 1 in float32.
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).statistic < 0.03
    rare = mixing.draw_share(make_keys(10_000), alpha, 0.25, "example")
    assert np.mean(np.asarray(rare) < 1) == pytest.approx(0.25, abs=0.02)
    tiny = mixing.draw_share(make_keys(200), 1e-4, scope="example")
    assert np.isfinite(tiny).all()


def test_jit_equals_eager_and_gradients_flow():
    def mix(images):
        key = make_keys(6)
        images = mixing.cut_out(key, images, 3)
        images = mixing.erase(key, images, 0.5)
        share = mixing.draw_share(key, 0.4, scope="example")
        images, targets = mixing.mix_up(images, TARGETS, share)
        return mixing.cut_mix(key, images, targets, share, "example")

    eager, jitted = mix(IMAGES), jax.jit(mix)(IMAGES)
    for one, other in zip(eager, jitted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    gradient = jax.grad(lambda x: mix(x)[0].sum())(IMAGES)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
