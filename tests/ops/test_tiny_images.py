"""3×3 convolutions of tiny images: what plain ones give, for fewer products."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import convolution, geometry
from cnn.ops.cpu import tiny_images

SAME = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
SIDES = list(itertools.product((2, 4), (2, 4)))


def make_arrays(sides, dtype=jnp.float32, channels=17, features=16):
    """Make x, a kernel and a gradient."""
    random = np.random.default_rng(sum(sides))
    shapes = [(9, *sides, channels), (3, 3, channels, features), (9, *sides, features)]
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


@functools.partial(jax.jit, static_argnames=("formulation", "padding"))
def compute(x, kernel, gradient, formulation, padding="same"):
    """Compute the convolution and both gradients."""
    rule = functools.partial(
        convolution.conv2d, padding=padding, formulation=formulation
    )
    y, pull = jax.vjp(rule, x, kernel)
    return y, *pull(gradient)


def find_worst(found, expected):
    """Return the largest difference by the largest number of its array."""
    return max(
        float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("sides", SIDES)
def test_equals_the_plain_convolution(sides):
    """In float64 but for rounding: the formulas are right; to 5e-6 in float32."""
    with jax.enable_x64(True):
        arrays = make_arrays(sides, jnp.float64)
        tiny, plain = (compute(*arrays, name) for name in ("auto", "plain"))
        assert find_worst(tiny, plain) < 1e-13
    arrays = make_arrays(sides)
    tiny, plain = (compute(*arrays, name) for name in ("auto", "plain"))
    assert find_worst(tiny, plain) < 5e-6


@pytest.mark.parametrize(("sides", "products"), [((4, 4), 36), ((2, 2), 9)])
def test_multiplies_less(sides, products):
    """One product a point, in the convolution and in both gradients.

    With the changes of place, which are counted too, it is less than twice as much; a
    sliding kernel's would be four times.
    """
    arrays = make_arrays(sides, channels=256, features=256)
    lowered = compute.lower(*arrays, "auto")
    least = 3 * 2 * products * 9 * 256 * 256
    assert 1 <= lowered.compile().cost_analysis()["flops"] / least < 2


@pytest.mark.parametrize(
    "case", ["three pixels", "few channels", "no padding", "two bytes"]
)
def test_what_does_not_fit_is_computed_otherwise(case):
    x, kernel, _ = make_arrays((4, 4))
    padding = "valid" if case == "no padding" else "same"
    if case == "three pixels":
        x = x[:, :3]
    if case == "few channels":
        x, kernel = x[..., :15], kernel[:, :, :15]
    if case == "two bytes":
        x = x.astype(jnp.bfloat16)
    static = geometry.resolve_convolution(x.shape, kernel.shape, 1, padding, 1, 1)
    assert not tiny_images.fits(x, kernel.shape, static)
    assert tiny_images.fits(make_arrays((4, 4))[0], (3, 3, 17, 16), SAME)
