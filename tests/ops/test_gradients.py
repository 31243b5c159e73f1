"""The gradients as functions: against autodiff, and the lecture's formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnn.ops import convolution, gradients
from cnn.ops.cpu import convolution_rules

RULES = (
    gradients.convolution_input_gradient,
    gradients.convolution_kernel_gradient,
)
CASES = [
    {"padding": "valid"},
    {"padding": "same"},
    {"padding": 1, "stride": 2},
    {"padding": (1, 2), "dilation": 2, "groups": 2},
]


def make_arrays(axes, groups=1):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(5, *(7, 6)[:axes], 8))
    kernel = generator.normal(size=(*(3, 2)[:axes], 8 // groups, 4))
    return jnp.float32(x), jnp.float32(kernel)


def plain(x, kernel, padding, stride=1, dilation=1, groups=1):
    axes = x.ndim - 2
    reach = [(size - 1) * dilation for size in kernel.shape[:axes]]
    pairs = {
        "valid": [(0, 0)] * axes,
        "same": [(e // 2, e - e // 2) for e in reach],
        1: [(1, 1)] * axes,
        (1, 2): [(1, 2)] * axes,
    }[padding]
    letters = "HW"[:axes]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * axes,
        pairs,
        rhs_dilation=(dilation,) * axes,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("options", CASES)
def test_equal_autodiff_of_the_plain_convolution(options, axes):
    x, kernel = make_arrays(axes, options.get("groups", 1))
    y, pull = jax.vjp(lambda x, kernel: plain(x, kernel, **options), x, kernel)
    gradient = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
    to_x, to_kernel = pull(gradient)
    shapes = {"input_shape": x.shape}, {"kernel_shape": kernel.shape}
    of_input, of_kernel = (
        jax.jit(functools.partial(rule, **shape, **options))
        for rule, shape in zip(RULES, shapes, strict=True)
    )
    got = of_input(gradient, kernel)
    np.testing.assert_allclose(got, to_x, atol=1e-5)
    got = of_kernel(x, gradient)
    np.testing.assert_allclose(got, to_kernel, atol=1e-4)


def test_input_gradient_is_the_full_convolution_with_the_flipped_kernel():
    x, kernel = make_arrays(2)
    y = convolution.conv2d(x, kernel)
    got = gradients.convolution_input_gradient(y, kernel, x.shape)
    exchanged = kernel.swapaxes(2, 3)
    expected = convolution.true_convolution2d(y, exchanged, padding="full")
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(("images", "wide"), [(1, 256), (7, 256), (64, 256), (7, 8)])
def test_kernel_gradient_sums_every_image_once(images, wide, monkeypatch):
    monkeypatch.setattr("cnn.ops.cpu.convolution_rules._WIDE", wide)
    monkeypatch.setattr("cnn.ops.cpu.convolution_rules._CHUNK_BYTES", 60_000)
    generator = np.random.default_rng(0)
    x = jnp.float32(generator.normal(size=(images, 8, 8, 8)))
    kernel = jnp.zeros((3, 3, 8, 8))
    gradient = jnp.float32(generator.normal(size=x.shape))
    pull = jax.vjp(lambda kernel: plain(x, kernel, "same"), kernel)[1]
    got = gradients.convolution_kernel_gradient(
        x, gradient, kernel.shape, padding="same"
    )
    np.testing.assert_allclose(got, pull(gradient)[0], atol=1e-3)


def test_kernel_gradient_of_a_single_pixel_at_stride_2():
    x, gradient = jnp.arange(16.0).reshape(2, 1, 1, 8), jnp.ones((2, 1, 1, 4))
    shape, around = (3, 3, 8, 4), ((1, 1), (1, 1))
    got = gradients.convolution_kernel_gradient(
        x, gradient, shape, stride=2, padding=around
    )
    expected = np.zeros(shape)
    expected[1, 1] = np.asarray(x).sum((0, 1, 2))[:, None]
    np.testing.assert_allclose(got, expected)


def test_refuse_a_gradient_of_another_shape():
    x, kernel = make_arrays(2)
    wrong = jnp.ones((5, 7, 6, 4))
    with pytest.raises(ValueError, match=r"give an output of \[5, 5, 5, 4\]"):
        gradients.convolution_input_gradient(wrong, kernel, x.shape)
    with pytest.raises(ValueError, match=r"gradient \[5, 7, 6, 4\]"):
        gradients.convolution_kernel_gradient(x, wrong, kernel.shape)


@pytest.mark.parametrize(("stride", "dilation", "taps"), [(2, 1, 3), (4, 2, 5)])
def test_input_gradient_multiplies_no_zeros_between_pixels(stride, dilation, taps):
    def count(function, *arrays):
        return jax.jit(function).lower(*arrays).compile().cost_analysis()["flops"]

    static = {"stride": stride, "dilation": dilation, "padding": "same"}
    x, kernel = jnp.ones((2, 32, 32, 16)), jnp.ones((taps, taps, 16, 16))
    convolve = functools.partial(convolution.conv2d, formulation="plain", **static)
    gradient = convolve(x, kernel)
    rule = functools.partial(RULES[0], input_shape=x.shape, **static)
    assert count(rule, gradient, kernel) < 1.3 * count(convolve, x, kernel)


STATIC = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)


@pytest.mark.parametrize(
    ("size", "features", "is_read"), [(3, 18, True), (3, 17, False), (1, 4, True)]
)
def test_the_input_gradient_of_few_pixels_reads_the_kernel_as_it_lies(
    size, features, is_read
):
    """Up to as many pixels as outputs, and of 1×1; others exchange its channels."""
    kernel, gradient = (
        jnp.ones((size, size, 8, features)),
        jnp.ones((2, 3, 3, features)),
    )
    padding = ((size // 2,) * 2,) * 2
    traced = jax.make_jaxpr(
        lambda g, k: convolution_rules.input_gradient(
            g, k, (2, 3, 3, 8), (1, 1), padding, (1, 1), 1
        )
    )(gradient, kernel)
    assert ("transpose[" not in str(traced)) == is_read


@pytest.mark.parametrize(("features", "is_stacked"), [(256, True), (8, False)])
def test_the_kernel_gradient_of_many_features_is_not_transposed(features, is_stacked):
    x, gradient = jnp.ones((2, 3, 3, 8)), jnp.ones((2, 3, 3, features))
    traced = jax.make_jaxpr(
        lambda x, g: convolution_rules.kernel_gradient(
            x, g, (3, 3, 8, features), *STATIC
        )
    )(x, gradient)
    assert ("permutation=(2, 0, 1, 3)" not in str(traced)) == is_stacked
