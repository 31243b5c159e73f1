"""Receptive fields are where the centre of a stage has a gradient in the image."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from receptive_forms import FORMS, make_function, sum_form

from cnn import models
from cnn.visualize.compute import features

# What is computed once is compiled for speed of compiling.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def make_positive(shapes):
    """Make weights that cannot cancel, and that carry a corner of a field to its end.

    Kernels are positive and add up to one. The corners of a window hold nearly all of
    that, so that an edge of the field still has a gradient of about 2^-73 after the 73
    convolutions of two stages of resnet110; even weights would leave it 3^-73 in a tall
    image and 9^-73 in its corner, which is 0 in float32.
    """
    noise = np.random.default_rng(0).uniform(0.9, 1.1, 9973)

    def draw(path, x):
        kind = jax.tree_util.keystr(path)
        if "kernel" not in kind:
            return np.full(x.shape, float("scale" in kind or "var" in kind), x.dtype)
        if x.size > 2e7:  # a head's, which no stage sees
            return np.broadcast_to(np.zeros((), x.dtype), x.shape)
        weights = np.resize(noise.astype(x.dtype), x.shape) / x.shape[-2]
        if len(x.shape) < 4:
            return weights
        share = np.full(x.shape[-4:-2], 0.02 / np.prod(x.shape[-4:-2]), x.dtype)
        for row, column in itertools.product((0, -1), repeat=2):
            share[row, column] += 0.245
        return weights * share[:, :, None, None]

    return jax.tree_util.tree_map_with_path(draw, shapes)


def measure_extents(function, variables, stages, images):
    """Find where the centre of each stage has a gradient, by one compiled program.

    Returns:
        For each stage, along rows and along columns, the first and the last pixel.
    """

    def pick(images, variables):
        found = function(images, variables)[1]
        centres = [found[s.name][:, s.shape[0] // 2, s.shape[1] // 2] for s in stages]
        return jnp.stack([jnp.sum(centre) for centre in centres])

    compute = jax.jit(jax.jacrev(pick), compiler_options=FAST_COMPILE)
    touched = np.any(np.asarray(compute(images, variables)) != 0, axis=(1, 4))
    return [
        [np.flatnonzero(one.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
        for one in touched
    ]


def make_ramps(height, width, channels):
    """Make images that rise and fall towards a corner: a maximum picks first or last.

    They are dim, so that no ReLU6 saturates.
    """
    ramp = np.add.outer(np.arange(height), np.arange(width)) / (height + width) + 0.1
    images = 0.01 * np.stack([ramp, ramp[::-1, ::-1]])[..., None]
    return jnp.asarray(images.repeat(channels, axis=-1), jnp.float32)


def list_small_stages(name, shape, only=None, **changes):
    """List the stages whose field has at most 300 pixels, and their model."""
    function, shapes = make_function(name, shape, **changes)
    stages = [
        stage
        for stage in features.list_stages(function, shape)
        if None not in stage.field.axes
        and max(reach.size for reach in stage.field.axes) <= 300
    ]
    return [s for s in stages if not only or s.name in only], function, shapes


def check_by_gradients(name, shape, axes=(0, 1), only=None, **changes):
    """Compare fields along some axes with where the gradient is not zero."""
    stages, function, shapes = list_small_stages(name, shape, only, **changes)
    variables, images = make_positive(shapes), make_ramps(*shape)
    extents = measure_extents(function, variables, stages, images)
    for stage, extent in zip(stages, extents, strict=True):
        for axis in axes:
            low, high = stage.field.axes[axis].locate(stage.shape[axis] // 2)
            # The sliding regression's weights are as large as the image.
            is_inside = 0 < low and high < shape[axis]
            assert is_inside or name == "sliding_regression", "give a larger image"
            first, last = extent[axis]
            expected = max(low, 0), min(high, shape[axis])
            assert (first, last + 1) == expected, (stage.name, axis)
    return len(stages)


@pytest.mark.parametrize("downsampling", ["stride", "max_pool", "space_to_depth"])
def test_fields_are_where_gradients_are(downsampling):
    changes = {"widths": (2, 2, 2), "downsampling": downsampling}
    assert check_by_gradients("simple_cnn", (40, 40, 1), **changes) == 3


def test_fields_without_sharing_are_where_gradients_are():
    changes = {"local_widths": (2, 2)}
    assert check_by_gradients("locally_connected", (15, 15, 1), **changes) == 2


def test_fields_of_residual_blocks_are_where_gradients_are():
    stages = ("stem", "stage2")
    assert check_by_gradients("resnet20", (48, 48, 3), only=stages) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FORMS if any(sum_form(FORMS[n]).values())])
def test_small_fields_are_where_gradients_are(name):
    """Along rows in a tall image, then along columns in a wide one: both are small."""
    channels = models.get_published_input(name)[1]
    small = [x for x in sum_form(FORMS[name]).values() if x and x[0] <= 300]
    length = 32 * (max(size + 2 * stride for size, stride in small) // 32 + 1)
    width = 96 if name == "alexnet_2012" else 64  # which takes no less than 67
    for axis, shape in enumerate([(length, width), (width, length)]):
        shape = (*shape, channels)
        assert check_by_gradients(name, shape, axes=(axis,)) == len(small)
