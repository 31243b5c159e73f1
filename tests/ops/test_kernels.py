"""The classic kernels: their numbers, their directions, scipy as reference."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cnn.ops import kernels


def test_lecture_box_blurs():
    np.testing.assert_allclose(kernels.box_blur(3), np.full((3, 3), 1 / 9), rtol=1e-6)
    np.testing.assert_allclose(kernels.box_blur(5), np.full((5, 5), 0.04), rtol=1e-6)


def test_gaussian_equals_scipy():
    impulse = np.zeros((7, 7))
    impulse[3, 3] = 1
    expected = scipy.ndimage.gaussian_filter(impulse, 0.8, radius=3)
    np.testing.assert_allclose(kernels.gaussian(7, 0.8), expected, atol=1e-6)
    assert kernels.gaussian(4, 1.0).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("SOBEL_VERTICAL", 0, 1),
        ("SOBEL_HORIZONTAL", 1, 0),
        ("SOBEL_DIAGONAL", 1, 1),
        ("SOBEL_ANTIDIAGONAL", 1, -1),
    ],
)
def test_sobel_answers_to_its_own_direction_only(name, rows, columns):
    i, j = np.mgrid[:5, :5].astype(np.float32)

    def answer(ramp):
        kernel = getattr(kernels, name)
        return kernels.apply_per_channel(jnp.asarray(ramp[None, ..., None]), kernel)

    assert answer(rows * i + columns * j)[0, 2, 2, 0] > 0
    assert answer(columns * i - rows * j)[0, 2, 2, 0] == 0
    assert np.sum(getattr(kernels, name)) == 0


def test_sharpen_keeps_flat_regions():
    flat = jnp.full((1, 5, 5, 1), 3.0)
    assert kernels.apply_per_channel(flat, kernels.SHARPEN)[0, 2, 2, 0] == 3


def test_apply_per_channel_keeps_channels_apart():
    images = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    got = kernels.apply_per_channel(jnp.asarray(images), kernel)
    expected = scipy.ndimage.correlate(
        images, kernel[None, :, :, None], mode="constant"
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="size=0"):
        kernels.box_blur(0)
    with pytest.raises(ValueError, match="sigma=0"):
        kernels.gaussian(3, 0)
    with pytest.raises(ValueError, match="matrix"):
        kernels.apply_per_channel(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1)))
    with pytest.raises(ValueError, match="give"):
        kernels.apply_per_channel(jnp.ones((4, 4, 1)), kernels.SHARPEN)
