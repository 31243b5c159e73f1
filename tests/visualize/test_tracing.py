"""Models evaluated again with one thing changed, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.visualize.compute import tracing

RANDOM = np.random.default_rng(3)
FIRST, SECOND = (RANDOM.normal(size=s).astype(np.float32) for s in ((12, 5), (5, 4)))
IMAGES = RANDOM.normal(size=(3, 2, 2, 3)).astype(np.float32)


def compute(images, activate=jax.nn.relu):
    """A net of two dense layers, each followed by an activation."""
    hidden = activate(images.reshape(len(images), -1) @ FIRST)
    logits = jax.jit(lambda x: activate(x @ SECOND))(hidden)  # inside a call
    return logits, {"hidden": hidden}


def test_guided_gradient_is_that_of_numpy():
    before = IMAGES.reshape(3, -1) @ FIRST
    after = np.maximum(before, 0) @ SECOND
    back = np.where(after > 0, 1.0, 0) @ SECOND.T
    back = np.where(before > 0, np.maximum(back, 0), 0)
    expected = (back @ FIRST.T).reshape(IMAGES.shape)
    guided = tracing.guide(compute)
    found = jax.grad(lambda x: jnp.sum(guided(x)[0]))(jnp.asarray(IMAGES))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    plain = jax.grad(lambda x: jnp.sum(compute(x)[0]))(jnp.asarray(IMAGES))
    assert np.abs(np.asarray(plain) - expected).max() > 0.1
    np.testing.assert_allclose(guided(IMAGES)[0], compute(IMAGES)[0], rtol=1e-6)


def test_relu6_is_guided_too():
    x = jnp.array([-1.0, 3.0, 7.0, 3.0]).reshape(1, 2, 2, 1)
    signs = jnp.array([1.0, 1.0, 1.0, -1.0]).reshape(1, 2, 2, 1)
    guided = tracing.guide(lambda x: (jax.nn.relu6(x), {}))
    np.testing.assert_array_equal(guided(x)[0].ravel(), [0, 3, 6, 3])
    found = jax.grad(lambda x: jnp.sum(signs * guided(x)[0]))(x)
    np.testing.assert_array_equal(found.ravel(), [0, 1, 0, 0])


@pytest.mark.parametrize("function", [jax.nn.hard_swish, jax.nn.hard_sigmoid])
def test_what_is_made_of_a_relu6_is_not_guided(function):
    x, signs = jnp.array([-2.0, -1.0, 1.0, 5.0]), jnp.array([1.0, -1.0, -1.0, -1.0])
    guided = tracing.guide(lambda x: (function(x), {}))
    found = jax.grad(lambda x: jnp.sum(signs * guided(x)[0]))(x)
    expected = jax.grad(lambda x: jnp.sum(signs * function(x)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_other_activations_keep_their_gradient():
    function = lambda x: compute(x, jax.nn.silu)  # noqa: E731
    one, other = (
        jax.grad(lambda x, f=f: jnp.sum(f(x)[0]))(jnp.asarray(IMAGES))
        for f in (function, tracing.guide(function))
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_an_addition_changes_what_follows():
    addition = RANDOM.normal(size=(3, 5)).astype(np.float32)
    logits, features = tracing.perturb(compute)(IMAGES, {"hidden": addition})
    expected = np.asarray(compute(IMAGES)[1]["hidden"]) + addition
    np.testing.assert_allclose(features["hidden"], expected, rtol=1e-6)
    expected = np.maximum(expected @ SECOND, 0)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_what_enters_a_relu_is_exposed():
    _, features = tracing.expose(compute)(IMAGES)
    expected = IMAGES.reshape(3, -1) @ FIRST
    np.testing.assert_allclose(features["hidden"], expected, rtol=1e-5, atol=1e-6)
    assert np.asarray(features["hidden"]).min() < 0


@pytest.mark.parametrize("activate, ends", [(jax.nn.relu, True), (jax.nn.silu, False)])
def test_thresholded_stages_are_found(activate, ends):
    function = lambda x: compute(x, activate)  # noqa: E731
    assert tracing.find_thresholded(function, IMAGES) == ("hidden",) * ends


def test_everything_compiles():
    for changed in (tracing.guide(compute), tracing.expose(compute)):
        np.testing.assert_allclose(
            jax.jit(changed)(IMAGES)[0], changed(IMAGES)[0], rtol=1e-5, atol=1e-6
        )


def test_loops_are_evaluated_as_they_are():
    def repeat(images):
        hidden = jax.nn.relu(images.reshape(len(images), -1) @ FIRST)
        total, _ = jax.lax.scan(lambda t, x: (t + x, None), jnp.zeros(5), hidden)
        return total, {"hidden": hidden}

    for changed in (tracing.guide(repeat), tracing.expose(repeat)):
        np.testing.assert_allclose(changed(IMAGES)[0], repeat(IMAGES)[0], rtol=1e-6)
