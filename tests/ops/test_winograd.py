"""Broad 3×3 convolutions: what plain ones give, for fewer multiplications."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import convolution, gradients
from cnn.ops.cpu import convolution_rules, winograd

ONCE = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
# x [N, H, W, C], output channels, padding
CASES = {
    "same": ((64, 8, 8, 64), 64, "same"),
    "tiles beyond the border": ((37, 13, 9, 64), 65, "same"),
    "valid": ((9, 18, 17, 70), 64, "valid"),
    "full": ((33, 7, 7, 64), 64, "full"),
    "on one side": ((40, 8, 6, 64), 64, ((2, 0), (0, 3))),
}


def make_arrays(name, dtype):
    """Make x, a kernel and a gradient of a case."""
    shape, features, padding = CASES[name]
    random = np.random.default_rng(len(name))
    x = random.normal(size=shape)
    kernel = random.normal(size=(3, 3, shape[-1], features))
    y = convolution.conv2d(jnp.float32(x), jnp.float32(kernel), padding=padding)
    arrays = x, kernel, random.normal(size=y.shape)
    return [jnp.asarray(a, dtype) for a in arrays], padding


def compute(formulation, arrays, padding):
    """Compute the convolution and both gradients."""
    rule = functools.partial(
        convolution.conv2d, padding=padding, formulation=formulation
    )

    @jax.jit
    def compute_all(x, kernel, gradient):
        y, pull = jax.vjp(rule, x, kernel)
        return y, *pull(gradient)

    return compute_all(*arrays)


def find_worst(found, expected):
    """Return for each array the largest difference by its largest number."""
    return [
        float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
        for a, b in zip(found, expected, strict=True)
    ]


@pytest.fixture(params=[100_000_000, 1])
def chunk_bytes(request, monkeypatch):
    """Set how much makes a chunk, which what was traced before does not know."""

    def forget():
        winograd.convolve.clear_cache()
        winograd.kernel_gradient.clear_cache()

    monkeypatch.setattr("cnn.ops.cpu.winograd._CHUNK_BYTES", request.param)
    forget()
    yield
    forget()


@pytest.mark.usefixtures("chunk_bytes")
@pytest.mark.parametrize("name", CASES)
def test_equals_the_plain_convolution(name):
    """In float64 but for rounding, so the formulas are right; whole and in chunks."""
    with jax.enable_x64(True):
        arrays, padding = make_arrays(name, jnp.float64)
        results = (compute(f, arrays, padding) for f in convolution.FORMULATIONS)
        assert max(find_worst(*results)) < 1e-13


@pytest.mark.parametrize("name", CASES)
def test_rounding_in_float32(name):
    """Far within 1e-5 for results and 1e-4 for gradients."""
    arrays, padding = make_arrays(name, jnp.float32)
    results = [compute(f, arrays, padding) for f in convolution.FORMULATIONS]
    result, to_x, to_kernel = find_worst(*results)
    assert 0 < result < 5e-6
    assert max(to_x, to_kernel) < 1e-5


def test_multiplies_less():
    """36 products for 16 results of 144, in the convolution and in both gradients."""
    arrays, padding = make_arrays("same", jnp.float32)

    def count(formulation):
        function = functools.partial(compute, formulation, padding=padding)
        return jax.jit(function).lower(arrays).compile().cost_analysis()["flops"]

    # A plain kernel gradient is counted without what it multiplies by zeros.
    assert count("auto") < 0.4 * count("plain")


@pytest.mark.parametrize(("channels", "less"), [(16, True), (15, False)])
def test_kernel_gradients_multiply_less_from_16_channels(channels, less):
    x = jnp.ones((64, 8, 8, channels))
    rule = functools.partial(
        gradients.convolution_kernel_gradient,
        kernel_shape=(3, 3, channels, 16),
        padding="same",
    )
    counted = jax.jit(rule).lower(x, jnp.ones((64, 8, 8, 16))).compile()
    products = 2 * 9 * channels * 16 * 64 * 8 * 8
    assert (counted.cost_analysis()["flops"] < products) == less


@pytest.mark.parametrize(
    ("shape", "kernel", "static"),
    [
        ((64, 8, 8, 32), (3, 3, 32, 64), ONCE),  # few channels
        ((64, 8, 8, 64), (3, 3, 64, 32), ONCE),
        ((7, 16, 16, 64), (3, 3, 64, 64), ONCE),  # few tiles
        ((512, 2, 2, 64), (3, 3, 64, 64), ONCE),  # tiles that are mostly border
        ((64, 9, 5, 64), (3, 3, 64, 64), ONCE),
        ((64, 8, 8, 64), (5, 5, 64, 64), ONCE),
        ((64, 8, 8, 64), (3, 1, 64, 64), ONCE),
        ((64, 16, 16, 64), (3, 3, 64, 64), ((2, 2), *ONCE[1:])),
        ((64, 8, 8, 64), (3, 3, 64, 64), (*ONCE[:2], (2, 2), 1)),
        ((64, 8, 8, 128), (3, 3, 64, 128), (*ONCE[:3], 2)),
    ],
)
def test_where_it_does_not_pay(shape, kernel, static):
    assert not winograd.pays(shape, kernel, static, 64)
    assert winograd.pays((64, 8, 8, 64), (3, 3, 64, 64), ONCE, 64)


def test_half_precision_is_convolved_plainly():
    """The transformed numbers are larger than the pixels, and round more."""
    kernel = jnp.ones((3, 3, 64, 64))
    for dtype, plain in ((jnp.bfloat16, True), (jnp.float32, False)):
        x = jnp.ones((64, 8, 8, 64), dtype)
        assert convolution_rules.is_plain(x, kernel, *ONCE) == plain


def test_an_unknown_number_of_images():
    """A program that is exported for every batch size has no chunks."""
    (images,) = jax.export.symbolic_shape("images")
    x = jax.ShapeDtypeStruct((images, 8, 8, 64), jnp.float32)
    kernel = jnp.ones((3, 3, 64, 64))
    rule = jax.jit(functools.partial(convolution.conv2d, padding="same"))
    exported = jax.export.export(rule)(x, kernel)
    assert exported.call(jnp.ones((2, 8, 8, 64)), kernel).shape == (2, 8, 8, 64)
