"""Batch normalisation in training: values, gradients, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import batch_norm

EPSILON = 1e-5


def make_arrays(shape):
    """Return x, scale and bias of a shape [..., C]."""
    random = np.random.default_rng(3)
    x = random.normal(2, 3, shape)
    scale, bias = random.normal(size=(2, shape[-1]))
    return tuple(jnp.asarray(a, jnp.float32) for a in (x, scale, bias))


def plain(x, scale, bias):
    """Normalise as the definition says."""
    axes = tuple(range(x.ndim - 1))
    mean, var = jnp.mean(x, axes, keepdims=True), jnp.var(x, axes, keepdims=True)
    scale, bias = (jnp.expand_dims(a, axes) for a in (scale, bias))
    y = scale * (x - mean) / jnp.sqrt(var + EPSILON) + bias
    return y, mean.reshape(-1), var.reshape(-1)


@pytest.mark.parametrize("shape", [(4, 6, 6, 3), (3, 5, 7, 2), (2, 8, 4), (16, 3)])
def test_equals_the_definition_and_its_gradients(shape):
    """Every output's gradient is that of autodiff, the statistics' too."""
    arrays = make_arrays(shape)
    wanted, pull = jax.vjp(plain, *arrays)
    found, ours = jax.vjp(lambda *a: batch_norm.batch_norm(*a, EPSILON), *arrays)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    random = np.random.default_rng(4)
    gradients = tuple(
        jnp.asarray(random.normal(size=a.shape), jnp.float32) for a in wanted
    )
    for a, b in zip(ours(gradients), pull(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


FORMULATIONS = [batch_norm._moments, batch_norm._moments_at_once]  # CPU, others


@pytest.mark.parametrize("compute", FORMULATIONS)
@pytest.mark.parametrize("shape", [(64, 8, 8, 2), (64, 5, 2), (256, 2)])
def test_variance_of_a_large_mean_is_exact(compute, shape):
    """A mean a thousand times the deviation costs no digits."""
    x = 1000 + jnp.asarray(np.random.default_rng(0).normal(size=shape))
    x = x.astype(jnp.float32)
    mean, var = jax.jit(compute)(x)
    exact, axes = np.asarray(x, np.float64), tuple(range(x.ndim - 1))
    np.testing.assert_allclose(mean, exact.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(axes), rtol=1e-4)


@pytest.mark.parametrize("compute", FORMULATIONS)
def test_one_pixel_unlike_all_others_makes_no_negative_variance(compute):
    """Rounding is more than what remains of 4 million squares less their mean's."""
    values = jnp.asarray(np.random.default_rng(0).normal(size=4), jnp.float32)
    x = jnp.zeros((16384, 16, 16, 4)) + values[None, None, None]
    var = jax.jit(compute)(x.at[0, 8, 8].set(0.0))[1]
    assert np.all(np.asarray(var) >= 0)


@pytest.mark.parametrize("compute", FORMULATIONS)
def test_a_constant_channel_has_no_variance(compute):
    """Neither a negative one, of which the root would be no number."""
    x = jnp.full((8, 5, 5, 3), jnp.asarray([0.0, 0.1, -7.7]))
    mean, var = jax.jit(compute)(x)
    np.testing.assert_allclose(mean, [0.0, 0.1, -7.7], rtol=1e-6)
    np.testing.assert_allclose(var, 0, atol=1e-12)
    assert np.all(np.asarray(var) >= 0)


def test_bfloat16_is_summed_in_float32():
    """Statistics of bfloat16 activations are those of their float32 values."""
    x = make_arrays((8, 8, 8, 4))[0].astype(jnp.bfloat16)
    y, mean, var = batch_norm.batch_norm(x, jnp.ones(4), jnp.zeros(4), EPSILON)
    wanted = plain(x.astype(jnp.float32), jnp.ones(4), jnp.zeros(4))
    assert y.dtype == mean.dtype == var.dtype == jnp.float32
    np.testing.assert_allclose(mean, wanted[1], rtol=1e-6)
    np.testing.assert_allclose(var, wanted[2], rtol=1e-5)
