"""No loop of a compiled program holds a convolution that XLA's CPU backend is slow at.

It is fast for those spelled NHWC, HWIO → NHWC, without groups and without zeros
between the pixels of the input, and for no others when they stand in a loop.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import convolution
from cnn.training import epoch, steps

SLOW = re.compile(
    r"dim_labels=(?!b01f_01io->b01f)|lhs_dilate|rhs_reversal|feature_group_count"
    r"|batch_group_count"
)
CASES = {
    "3x3": ((6, 6, 8), (3, 3, 8, 8), {"padding": 1}),
    "stride 2": ((8, 8, 8), (3, 3, 8, 12), {"padding": 1, "stride": 2}),
    "1x1, stride 2": ((8, 8, 8), (1, 1, 8, 12), {"stride": 2}),
    "few channels": ((8, 8, 3), (3, 3, 3, 8), {"padding": 1}),
    "dilated": ((8, 8, 8), (3, 3, 8, 8), {"padding": 2, "dilation": 2}),
    "groups": ((8, 8, 16), (3, 3, 4, 16), {"padding": 1, "groups": 4}),
    "depthwise": ((8, 8, 16), (3, 3, 1, 16), {"padding": 1, "groups": 16}),
    "many channels": ((24, 24, 64), (3, 3, 64, 64), {"padding": 1}),
    "larger than the image": ((2, 2, 8), (3, 3, 8, 8), {"padding": 1}),
}


def list_slow(compiled):
    """Return the lines of a compiled program with a convolution in a slow spelling."""
    lines = compiled.as_text().splitlines()
    return [line for line in lines if " convolution(" in line and SLOW.search(line)]


def compile_loop(shape, kernel_shape, formulation, options):
    """Compile a loop that takes gradient steps on a convolution's input and kernel."""
    x = jnp.ones((4, *shape))
    kernel = jnp.ones(kernel_shape)

    def loss(pair):
        y = convolution.conv2d(*pair, formulation=formulation, **options)
        return jnp.sum(jnp.square(y))

    def descend(i, pair):
        del i
        return jax.tree.map(lambda a, g: a - 0.1 * g, pair, jax.grad(loss)(pair))

    def run(last, x, kernel):
        return jax.lax.fori_loop(0, last, descend, (x, kernel))

    return jax.jit(run).lower(3, x, kernel).compile()


@pytest.mark.parametrize("name", CASES)
def test_convolutions_and_their_gradients(name):
    """Ours hold none, whatever the shape."""
    shape, kernel_shape, options = CASES[name]
    assert not list_slow(compile_loop(shape, kernel_shape, "auto", options))


def test_plain_convolutions_do_hold_some():
    """The search finds what JAX derives, so that the test above can fail."""
    shape, kernel_shape, options = CASES["3x3"]
    assert list_slow(compile_loop(shape, kernel_shape, "plain", options))


@pytest.mark.parametrize("downsampling", ["stride", "max_pool"])
def test_an_epoch(make_structure, make_numbers, make_batch, start, downsampling):
    """The compiled chunk of an epoch holds none."""
    changes = {"model": "simple_cnn", "downsampling": downsampling, "widths": (8, 8)}
    structure, numbers = make_structure(**changes), make_numbers(**changes)
    batch = make_batch(8)
    chunk = {name: np.stack([values] * 2) for name, values in batch.items()}
    arguments = (start(structure, numbers), steps.create_train_sums(), chunk, numbers)
    program = epoch.make_train_chunk(structure).lower(
        *arguments, epoch.make_bounds(0, 2)
    )
    assert not list_slow(program.compile())
