"""Image scaling: the lecture's numbers, channels, refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import scaling


def test_lecture_values():
    images = jnp.full((1, 1, 1, 1), 192, jnp.uint8)
    unit = scaling.scale_images(images, *scaling.UNIT)
    symmetric = scaling.scale_images(images, *scaling.SYMMETRIC)
    assert unit.dtype == jnp.float32
    assert unit.item() == pytest.approx(0.753, abs=5e-4)
    assert symmetric.item() == pytest.approx(0.506, abs=5e-4)


@pytest.mark.parametrize(
    ("constants", "low", "high"), [(scaling.UNIT, 0, 1), (scaling.SYMMETRIC, -1, 1)]
)
def test_ends_of_the_range(constants, low, high):
    images = jnp.array([0, 255], jnp.uint8).reshape(1, 1, 2, 1)
    got = scaling.scale_images(images, *constants)
    np.testing.assert_array_equal(got[0, 0, :, 0], [low, high])


def test_each_channel_has_its_own_mean_and_deviation():
    images = jnp.full((2, 3, 3, 2), 51, jnp.uint8)
    got = scaling.scale_images(images, (0.1, 0.3), jnp.array([0.5, 0.2]))
    np.testing.assert_allclose(got[1, 2, 2], [0.2, -0.5], rtol=1e-5)


def test_refuses_another_number_of_channels():
    with pytest.raises(ValueError, match="one for each channel"):
        scaling.scale_images(jnp.zeros((1, 2, 2, 3), jnp.uint8), (0.0, 0.0), 1.0)
