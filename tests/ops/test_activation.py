"""The ReLU of residual blocks: its values, its gradient, and what that keeps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn.ops import activation

X = jnp.float32([[-2.0, -0.0, 0.0], [1e-30, 3.0, 7.0]])


def test_equals_relu_and_its_gradient():
    gradient = jnp.float32([[1, 2, 3], [4, 5, 6]])
    results = [jax.vjp(f, X) for f in (nn.relu, activation.relu)]
    (expected, pull), (got, own_pull) = results
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(own_pull(gradient)[0], pull(gradient)[0])


def test_gradient_needs_the_result_alone():
    y, pull = jax.vjp(activation.relu, X)
    (kept,) = jax.tree.leaves(pull)
    np.testing.assert_array_equal(kept, y)


def test_reader_does_not_compute_it_again():
    twice = jax.jit(lambda x: activation.relu(jnp.sin(x)) + 1)
    assert "opt-barrier" in twice.lower(X).as_text("hlo")


def test_relu6_and_its_gradient_are_those_of_pytorch():
    """`torch.nn.functional.relu6` passes the gradient for 0 < x < 6 alone."""
    x = jnp.float32([-1, 0, 1e-30, 3, 6, 7])
    y, pull = jax.vjp(activation.relu6, x)
    np.testing.assert_array_equal(y, jax.nn.relu6(x))
    np.testing.assert_array_equal(pull(jnp.ones(6))[0], [0, 0, 1, 1, 0, 0])


def test_gradient_of_relu6_needs_the_result_alone():
    y, pull = jax.vjp(activation.relu6, X)
    (kept,) = jax.tree.leaves(pull)
    np.testing.assert_array_equal(kept, y)
