"""Group normalisation and standardised kernels, by their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import standardization


def make_arrays(shape):
    random = np.random.default_rng(5)
    x = random.normal(3, 2, shape)
    scale, bias = random.normal(size=(2, shape[-1]))
    return tuple(jnp.asarray(a, jnp.float32) for a in (x, scale, bias))


def normalise(x, scale, bias, groups):
    """Normalise as the definition says, an image and a group at a time, in float64."""
    x, scale, bias = (np.asarray(a, np.float64) for a in (x, scale, bias))
    y, size = np.empty_like(x), x.shape[-1] // groups
    for image in range(len(x)):
        for first in range(0, x.shape[-1], size):
            part = x[image, ..., first : first + size]
            centred = part - part.mean()
            y[image, ..., first : first + size] = centred / np.sqrt(part.var() + 1e-5)
    return y * scale + bias


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 7, 6), (1, 1, 1, 6), (4, 6)])
def test_group_norm_equals_the_definition(shape, groups):
    arrays = make_arrays(shape)
    found = standardization.group_norm(*arrays, groups, 1e-5)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, normalise(*arrays, groups), atol=2e-5)


def test_group_norm_equals_pytorch():
    torch = pytest.importorskip("torch")
    x, scale, bias = make_arrays((2, 5, 3, 8))
    found = standardization.group_norm(x, scale, bias, 4, 1e-5)
    x, scale, bias = (torch.from_numpy(np.array(a)) for a in (x, scale, bias))
    images = x.permute(0, 3, 1, 2)
    wanted = torch.nn.functional.group_norm(images, 4, scale, bias, 1e-5)
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_images_are_normalised_apart():
    x, scale, bias = make_arrays((2, 4, 4, 6))
    together = standardization.group_norm(x, scale, bias, 3, 1e-5)
    alone = standardization.group_norm(x[1:], scale, bias, 3, 1e-5)
    np.testing.assert_allclose(together[1:], alone, atol=1e-6)


def test_a_large_mean_costs_few_digits():
    x, scale, bias = make_arrays((2, 8, 8, 4))
    found = standardization.group_norm(1000 + x, scale, bias, 2, 1e-5)
    wanted = normalise(1000 + x, scale, bias, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_groups_divide_the_channels():
    with pytest.raises(ValueError, match="6 channels cannot be cut into 4 groups"):
        standardization.group_norm(*make_arrays((1, 2, 2, 6)), 4, 1e-5)


@pytest.mark.parametrize("shape", [(3, 3, 5, 4), (1, 1, 6, 2), (9, 3)])
def test_a_kernel_is_standardised_for_each_output(shape):
    kernel = 0.1 * make_arrays(shape)[0]
    found = np.asarray(standardization.standardize_kernel(kernel))
    axes = tuple(range(kernel.ndim - 1))
    np.testing.assert_allclose(found.mean(axes), 0, atol=1e-6)
    np.testing.assert_allclose(found.var(axes), 1, rtol=1e-5)
    exact = np.asarray(kernel, np.float64)
    exact = (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + 1e-10)
    np.testing.assert_allclose(found, exact, atol=1e-5)


def test_a_constant_kernel_becomes_zero():
    """Its gradient is finite too, where the variance is 0."""
    kernel = jnp.full((3, 3, 2, 4), 0.5)
    assert not np.any(standardization.standardize_kernel(kernel))
    gradient = jax.grad(lambda k: standardization.standardize_kernel(k)[0, 0, 0, 0])
    assert np.all(np.isfinite(gradient(kernel)))
