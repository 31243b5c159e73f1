"""Receptive fields equal the closed form of each architecture."""

import jax
import jax.numpy as jnp
import pytest
from receptive_forms import FORMS, make_function, sum_form

from cnn import models
from cnn.visualize.compute import features
from cnn.visualize.compute.receptive_field import Field, Reach, compute_fields

# From the models' papers and https://distill.pub/2019/computing-receptive-fields/,
# whose ResNets stride elsewhere in a block; the rest is arithmetic.
PUBLISHED = {
    ("vgg16", "stage5"): 196,  # 212 after the last pooling
    ("alexnet", "stage5"): 163,  # 195 after the last pooling
    ("resnet18", "stage4"): 435,
    ("resnet50", "stage4"): 427,
    ("mobilenet_v2", "stage7"): 491,
}
FAST = ["logistic_regression", "mlp", "simple_cnn", "sliding_regression"]
FAST += ["locally_connected", "alexnet", "vgg11_bn", "resnet18", "resnet20"]
FAST += ["wrn_16_4", "squeezenet1_1", "mobilenet_v2", "lenet5", "nin"]


def list_fields(name, size, channels, **changes):
    function, _ = make_function(name, (size, size, channels), **changes)
    stages = features.list_stages(function, (size, size, channels))
    return {stage.name: stage.field for stage in stages}


NAMES = models.list_names()
LARGE = set(NAMES) - set(FAST)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in NAMES],
)
def test_fields_are_the_closed_form(name):
    """A model whose form nobody has written down has fields all the same."""
    size, channels, _ = models.get_published_input(name)
    fields = list_fields(name, size, channels)
    assert not any(field.unknown for field in fields.values())
    expected = sum_form(FORMS.get(name, {}))
    if name in FORMS:
        assert list(fields) == list(expected), "stages, in the order of computation"
    for stage, form in expected.items():
        for reach in fields[stage].axes:
            found = reach and (reach.size, reach.stride)
            assert found == form, (stage, reach)
        if (name, stage) in PUBLISHED:
            assert form[0] == PUBLISHED[name, stage]


def test_a_place_is_located():
    reach = Reach(axis=1, stride=4, first=-3, last=6)
    assert reach.size == 10
    assert reach.locate(2) == (5, 15)


def convolve(x, **options):
    kernel = jnp.ones((3, 3, x.shape[3], 2))
    options = {"window_strides": (1, 1), "padding": "VALID"} | options
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=layout, **options)


ROWS, COLUMNS = Reach(1, 1, 0, 2), Reach(2, 1, 0, 2)
SOFT = {
    "flip": (lambda x: jnp.flip(x, 1), {"rev"}, None),
    "roll": (lambda x: jnp.roll(x, 2, 1), {"concatenate"}, COLUMNS),
    "resize": (
        lambda x: jax.image.resize(x, (2, 9, 9, 1), "nearest"),
        {"gather"},
        None,
    ),
    "reflect": (
        lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
        {"rev"},
        None,
    ),
    "loop": (
        lambda x: jax.lax.scan(
            lambda total, image: (total + image, total), 0 * x[0], x
        )[1],
        {"scan"},
        None,
    ),
    "transposed convolution": (
        lambda x: convolve(x, lhs_dilation=(2, 2), padding=[(0, 0), (0, 0)]),
        {"conv_general_dilated"},
        None,
    ),
    "sort": (lambda x: jnp.sort(x, axis=1), {"sort"}, None),
}


@pytest.mark.parametrize("name", SOFT)
def test_after_an_unknown_operation_the_whole_image_is_seen(name):
    change, unknown, columns = SOFT[name]
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    before, after = compute_fields(lambda x: (convolve(x), convolve(change(x))), images)
    assert before == Field((ROWS, COLUMNS))
    assert after == Field((None, columns), frozenset(unknown))
    assert after.describe() == "the whole image"


def test_what_sees_everything_anyway_names_no_operation():
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)

    def spread(x):
        return jnp.cumsum(x + jnp.mean(x, (1, 2), keepdims=True), 1)

    assert compute_fields(spread, images) == Field()


def test_operations_along_channels_are_known():
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)

    def make_both(x):
        return jnp.split(jnp.concatenate([x, jnp.sin(x)], -1), 2, -1)

    for field in compute_fields(lambda x: [convolve(y) for y in make_both(x)], images):
        assert field == Field((ROWS, COLUMNS))


def test_a_checkpointed_block_is_looked_into():
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    assert compute_fields(jax.checkpoint(convolve), images) == Field((ROWS, COLUMNS))


def test_what_is_flattened_sees_everything():
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    fields = compute_fields(lambda x: x.reshape(2, 64) @ jnp.ones((64, 3)), images)
    assert fields == Field()
