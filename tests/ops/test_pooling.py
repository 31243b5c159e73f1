"""Pooling: the lecture's numbers, numpy references, gradients, real pixels only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_convolution import INPUT, image

from cnn.ops import pooling, pooling_rules

WINDOWS = [
    (2, None, 0),
    (3, 2, 1),
    ((3, 2), (1, 2), ((1, 1), (0, 1))),
    (2, 3, 0),
    (5, 2, "same"),
]


def make_images(dtype=jnp.float32):
    values = np.random.default_rng(0).permutation(2 * 9 * 8 * 3)
    return jnp.asarray(values.reshape(2, 9, 8, 3) - 200, dtype)


def reference(x, window, stride, padding, reduce):
    """Reduce the real pixels of each window, one window at a time."""
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    window = pair(window)
    stride = window if stride is None else pair(stride)
    if padding == "same":
        padding = tuple(((k - 1) // 2, k // 2) for k in window)
    elif isinstance(padding, int):
        padding = ((padding, padding),) * 2
    spans = []
    for axis in (0, 1):
        low, high = padding[axis]
        starts = range(-low, x.shape[1 + axis] + high - window[axis] + 1, stride[axis])
        spans.append([slice(max(s, 0), s + window[axis]) for s in starts])
    rows = [[reduce(x[:, r, c], axis=(1, 2)) for c in spans[1]] for r in spans[0]]
    return np.moveaxis(np.array(rows), 2, 0)


def test_lecture_windows():
    x = jnp.float32([1, 4, 7]).reshape(1, 3, 1)
    assert pooling.max_pool1d(x, 3).item() == 7
    window = image([[1, 1, 7], [2, 1, -2], [5, 4, -2]])
    assert pooling.max_pool2d(window, 3).item() == 7
    y = pooling.max_pool2d(image(INPUT), 3, 2)[0, :, :, 0]
    np.testing.assert_array_equal(y, [[9, 9, 7], [7, 5, 4], [7, 6, 6]])


@pytest.mark.parametrize(("window", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
def test_equal_a_loop_over_windows(window, stride, padding, dtype):
    x = make_images(dtype)
    arguments = (window, stride, padding)
    got = pooling.max_pool2d(x, *arguments)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, reference(np.array(x), *arguments, np.max))
    got = pooling.avg_pool2d(x, *arguments)
    assert got.dtype == jnp.float32
    expected = reference(np.array(x), *arguments, np.mean)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("window", "stride", "padding"), WINDOWS)
def test_gradients_equal_those_of_xla(window, stride, padding):
    x = make_images()
    size, steps, pairs = pooling._resolve(x, 2, window, stride, padding)
    shape = ((1, *size, 1), (1, *steps, 1), ((0, 0), *pairs, (0, 0)))

    def plain_max(x):
        return lax.reduce_window(x, -np.inf, lax.max, *shape)

    def plain_average(x):
        total, counts = (
            lax.reduce_window(a, 0.0, lax.add, *shape) for a in (x, jnp.ones_like(x))
        )
        return total / counts

    for ours, plain in (
        (pooling.max_pool2d, plain_max),
        (pooling.avg_pool2d, plain_average),
    ):
        y, pull = jax.vjp(plain, x)
        gradient = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        rule = jax.vjp(lambda x, o=ours: o(x, window, stride, padding), x)[1]
        got = jax.jit(rule)(gradient)[0]
        np.testing.assert_allclose(got, pull(gradient)[0], atol=1e-5)


def test_ties_have_a_single_winner_the_first():
    gradient = jax.grad(lambda x: jnp.sum(pooling.max_pool2d(x, 2)))
    got = gradient(jnp.zeros((1, 2, 4, 1)))[0, :, :, 0]
    np.testing.assert_array_equal(got, [[1, 0, 1, 0], [0, 0, 0, 0]])


def test_vmap_equals_a_loop():
    x = jnp.stack([make_images(), -make_images()])
    loss = lambda x: jnp.sum(jnp.square(pooling.max_pool2d(x, 3, 2, 1)))  # noqa: E731
    gradient = jax.jit(jax.grad(loss))
    got = jax.jit(jax.vmap(gradient))(x)
    np.testing.assert_allclose(got, jnp.stack([gradient(part) for part in x]))


def test_one_dimension_equals_two_of_height_one():
    x = make_images()[:, 0]
    for in_1d, in_2d in (
        (pooling.max_pool1d, pooling.max_pool2d),
        (pooling.avg_pool1d, pooling.avg_pool2d),
    ):
        got = in_1d(x, 3, 2, 1)
        expected = in_2d(x[:, None], (1, 3), (1, 2), ((0, 0), (1, 1)))[:, 0]
        np.testing.assert_array_equal(got, expected)
        assert got.shape == (2, 4, 3)


@pytest.mark.parametrize("size", [4, 9])
def test_global_pooling_takes_any_size(size):
    x = jnp.arange(2.0 * size * size * 3).reshape(2, size, size, 3)
    np.testing.assert_allclose(
        pooling.global_avg_pool(x), np.array(x).mean((1, 2)), rtol=1e-6
    )
    np.testing.assert_array_equal(pooling.global_max_pool(x), x[:, -1, -1])
    assert pooling.global_avg_pool(x.astype(jnp.uint8)).dtype == jnp.float32


@pytest.mark.parametrize("size", [6, 7, (3, 8), (9, 8), (12, 5)])
def test_adaptive_average(size):
    x = np.array(make_images())
    rows, columns = size if isinstance(size, tuple) else (size, size)
    expected = np.zeros((2, rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            part = x[:, i * 9 // rows : -((i + 1) * -9 // rows)]
            part = part[:, :, j * 8 // columns : -((j + 1) * -8 // columns)]
            expected[:, i, j] = part.mean((1, 2))
    got = pooling.adaptive_avg_pool2d(jnp.asarray(x), size)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_refuse_what_does_not_fit():
    x = make_images()
    with pytest.raises(ValueError, match="more than half"):
        pooling.max_pool2d(x, 2, padding=2)
    with pytest.raises(ValueError, match="reaches 10 pixels"):
        pooling.avg_pool2d(x, 10)
    with pytest.raises(ValueError, match="window=0"):
        pooling.max_pool2d(x, 0)
    with pytest.raises(ValueError, match="1-D takes"):
        pooling.max_pool1d(x, 2)
    with pytest.raises(ValueError, match="global pooling"):
        pooling.global_avg_pool(x[0, 0])
    with pytest.raises(ValueError, match="size="):
        pooling.adaptive_avg_pool2d(x, (1, 2, 3))


@pytest.mark.parametrize("shape", [(2, 8, 8, 32), (9, 9, 12, 5), (20, 2, 8, 32)])
def test_two_by_two_sums_are_those_of_windows(shape):
    """They are slices that are added; no window is reduced on CPU."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    static = (2, 2), (2, 2), ((0, 0), (0, 0))
    compute = jax.jit(pooling_rules.window_sum, static_argnums=(1, 2, 3))
    sizes = (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    expected = lax.reduce_window(x, np.float32(0), lax.add, *sizes)
    np.testing.assert_allclose(compute(x, *static), expected, rtol=1e-6, atol=1e-6)
    assert "reduce-window" not in compute.lower(x, *static).as_text("hlo")
