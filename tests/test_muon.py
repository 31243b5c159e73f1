"""Muon with SGD beside a loop in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.optim import muon
from tests.test_optimizer import follow

KERNEL = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
HEAD = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


def orthogonalise(matrix):
    x = matrix / np.linalg.norm(matrix)
    for _ in range(3):
        a = x.T @ x
        x = 3.4445 * x + x @ (-4.7750 * a + 2.0315 * a @ a)
    return x


@pytest.mark.parametrize("shape", [(12, 4), (4, 12), (5, 5)])
def test_singular_values_come_near_one(shape):
    matrix = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    found = jax.jit(muon.orthogonalise)(matrix)
    np.testing.assert_allclose(found, orthogonalise(matrix), rtol=1e-3, atol=1e-4)
    values = np.linalg.svd(found, compute_uv=False)
    assert 0.3 < values.min() and values.max() < 1.3


def test_muon_sgd_equals_a_loop():
    flat = {
        "optimizer": "muon_sgd",
        "decoupled_rates": True,
        "learning_rate": 0.05,
        "momentum": 0.8,
        "weight_decay": 0.02,
        "muon_learning_rate": 0.1,
        "muon_momentum": 0.6,
    }
    params = {"conv": {"kernel": jnp.asarray(KERNEL)}, "head": jnp.asarray(HEAD)}
    found = follow(flat, lambda p: jax.tree.map(lambda x: x**2 - 1, p), params)
    w, buffer = np.float64(KERNEL), 0
    for step in range(5):
        gradient = w**2 - 1
        buffer = 0.6 * buffer + gradient
        direction = (gradient + 0.6 * buffer).reshape(12, 4)
        w = w * 2 / np.linalg.norm(w) - 0.1 * orthogonalise(direction).reshape(w.shape)
        np.testing.assert_allclose(
            found[step]["conv"]["kernel"], w, rtol=1e-3, atol=1e-4
        )
    w, buffer = np.float64(HEAD), 0
    for step in range(5):
        gradient = w**2 - 1 + 0.02 / 0.05 * w
        buffer = 0.8 * buffer + gradient
        w = w - 0.05 * (gradient + 0.8 * buffer)
        np.testing.assert_allclose(found[step]["head"], w, rtol=1e-4, atol=1e-5)


def test_muon_steps_a_matrix_at_each_place():
    """Each place of a locally connected layer is trained as a layer of its own."""
    kernel = np.random.default_rng(3).normal(size=(2, 1, 2, 2, 3, 4)).astype("f")
    flat = {"optimizer": "muon", "momentum": 0.9, "weight_decay": 0.1}

    def gradient(params):
        return jax.tree.map(lambda x: x**2 - 1, params)

    together = {"local1_kernel": jnp.asarray(kernel)}
    apart = {f"place{i}": {"kernel": jnp.asarray(kernel[i, 0])} for i in range(2)}
    *_, together = follow(flat, gradient, together)
    *_, apart = follow(flat, gradient, apart)
    for i in range(2):
        found = together["local1_kernel"][i, 0]
        np.testing.assert_allclose(found, apart[f"place{i}"]["kernel"], rtol=1e-5)
