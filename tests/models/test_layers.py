import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.errors import UserError
from cnn.models import layers

TESTS = Path(__file__).parent.parent
GOLDEN = json.loads((TESTS / "golden" / "batch_norm.json").read_text())
X, COTANGENT = jnp.float32(GOLDEN["x"]), jnp.float32(GOLDEN["cotangent"])
PARAMS = {"scale": jnp.float32(GOLDEN["scale"]), "bias": jnp.float32(GOLDEN["bias"])}


def apply(norm, variables, x):
    return norm.apply(variables, x, True, mutable=["batch_stats"])


def test_batch_norm_equals_pytorch():
    norm = layers.BatchNorm(unbiased=True)
    stats = norm.init(jax.random.key(0), X, True)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], [0, 0])
    np.testing.assert_array_equal(stats["var"], [1, 1])

    def compute(params, x):
        y, updated = apply(norm, {"params": params, "batch_stats": stats}, x)
        return jnp.sum(y * COTANGENT), (y, updated)

    gradients, (y, updated) = jax.grad(compute, (0, 1), has_aux=True)(PARAMS, X)
    np.testing.assert_allclose(y, GOLDEN["y"], rtol=1e-4, atol=1e-5)
    for name, gradient in (gradients[0] | {"x": gradients[1]}).items():
        golden = GOLDEN[f"{name}_gradient"]
        np.testing.assert_allclose(gradient, golden, rtol=1e-4, atol=1e-5)
    _, updated = apply(norm, {"params": PARAMS, **updated}, X * 3 - 1)
    for name in ("mean", "var"):
        found = updated["batch_stats"][name]
        np.testing.assert_allclose(found, GOLDEN[name], rtol=1e-5)
    evaluated = norm.apply({"params": PARAMS, **updated}, X, False)
    np.testing.assert_allclose(evaluated, GOLDEN["evaluated"], rtol=1e-4, atol=1e-5)


def test_biased_running_variance():
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), X, True)
    stats = apply(norm, variables, X)[1]["batch_stats"]
    flat = np.float64(X).reshape(-1, 2)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(axis=0), rtol=1e-5)


def test_batch_norm_of_bfloat16_keeps_float32_statistics():
    norm = layers.BatchNorm(dtype=jnp.bfloat16)
    x = (X * 0.01 + 100).astype(jnp.bfloat16)
    y, updated = apply(norm, norm.init(jax.random.key(0), x, True), x)
    assert y.dtype == jnp.bfloat16
    mean = np.float32(x).reshape(-1, 2).mean(axis=0)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)


def test_batch_norm_of_a_constant_is_its_bias():
    norm = layers.BatchNorm()
    x = jnp.full((2, 3, 3, 2), 7.0)
    variables = {
        "params": PARAMS,
        "batch_stats": {"mean": X[0, 0, 0], "var": X[0, 0, 0]},
    }
    y, _ = apply(norm, variables, x)
    np.testing.assert_allclose(y, jnp.broadcast_to(PARAMS["bias"], x.shape), atol=1e-5)


@pytest.mark.parametrize("groups, stride, padding", [(1, 1, "same"), (2, 2, 1)])
def test_conv_adds_its_bias_to_every_place(groups, stride, padding):
    conv = layers.Conv(6, 3, stride=stride, padding=padding, groups=groups)
    x = jnp.ones((2, 5, 5, 4))
    params = conv.init(jax.random.key(0), x)["params"]
    assert params["kernel"].shape == (3, 3, 4 // groups, 6)
    bias = jnp.arange(6.0)
    y = conv.apply({"params": params | {"bias": bias}}, x)
    plain = conv.apply({"params": params | {"bias": bias * 0}}, x)
    side = 5 if stride == 1 else 3
    assert y.shape == (2, side, side, 6)
    expected = np.broadcast_to(bias, y.shape)
    np.testing.assert_allclose(y - plain, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 1, 1, 4), (3, 4)])
def test_group_norm_of_a_single_value_is_refused(shape):
    x = jnp.ones(shape)
    with pytest.raises(UserError, match="single value in each of 4 groups"):
        layers.GroupNorm(groups=4).init(jax.random.key(0), x, True)
    layers.GroupNorm(groups=2).init(jax.random.key(0), x, True)
    layers.GroupNorm(groups=4).init(jax.random.key(0), jnp.ones((1, 1, 2, 4)), True)
