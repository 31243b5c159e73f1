"""Locally connected layers: a loop over positions, and the convolution they extend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import convolution, local

GENERATOR = np.random.default_rng(0)
X = jnp.float32(GENERATOR.normal(size=(2, 6, 5, 3)))
KERNEL = jnp.float32(GENERATOR.normal(size=(3, 3, 3, 2, 3, 4)))


def test_equals_a_loop_over_positions():
    got = jax.jit(
        lambda x, k: local.locally_connected2d(x, k, stride=2, padding=((1, 0), (0, 1)))
    )(X, KERNEL)
    padded = np.pad(X, ((0, 0), (1, 0), (0, 1), (0, 0)))
    for i in range(3):
        for j in range(3):
            window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2]
            expected = np.einsum("nabc,abco->no", window, KERNEL[i, j])
            np.testing.assert_allclose(got[:, i, j], expected, atol=1e-5)


def test_with_one_kernel_everywhere_it_is_the_convolution():
    shared = KERNEL[0, 0]
    expected = convolution.conv2d(X, shared, padding="same")
    everywhere = jnp.broadcast_to(shared, (6, 5, *shared.shape))
    got = local.locally_connected2d(X, everywhere, padding="same")
    np.testing.assert_allclose(got, expected, atol=1e-5)
    shared = KERNEL[0, 0, :, 0]
    expected = convolution.conv1d(X[:, 0], shared)
    everywhere = jnp.broadcast_to(shared, (3, *shared.shape))
    got = local.locally_connected1d(X[:, 0], everywhere)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_refuses_another_number_of_positions():
    with pytest.raises(ValueError, match=r"\[3, 3\] positions"):
        local.locally_connected2d(X, KERNEL)
    with pytest.raises(ValueError, match="N, L, C"):
        local.locally_connected1d(X, KERNEL)
