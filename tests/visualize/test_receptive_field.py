"""Receptive fields equal the closed form of each architecture."""

import jax
import jax.numpy as jnp
import pytest
from receptive_forms import FORMS, make_function, sum_form

from cnn import models
from cnn.visualize import features
from cnn.visualize.reach import Reach
from cnn.visualize.receptive_field import compute_fields

# From the models' papers and https://distill.pub/2019/computing-receptive-fields/,
# whose ResNets stride elsewhere in a block; the rest is arithmetic.
PUBLISHED = {
    ("vgg16", "stage5"): 196,  # 212 after the last pooling
    ("alexnet", "stage5"): 163,  # 195 after the last pooling
    ("resnet18", "stage4"): 435,
    ("resnet50", "stage4"): 427,
    ("mobilenet_v2", "stage7"): 491,
}
QUICK = ["logistic_regression", "mlp", "simple_cnn", "sliding_regression"]
QUICK += ["locally_connected", "alexnet", "vgg11_bn", "resnet18", "resnet20"]
QUICK += ["wrn_16_4", "squeezenet1_1", "mobilenet_v2"]


def list_fields(name, size, channels, **changes):
    function, _ = make_function(name, (size, size, channels), **changes)
    stages = features.list_stages(function, (size, size, channels))
    return {stage.name: stage.field for stage in stages}


def test_every_model_has_a_form():
    names = {name.replace("wrn_D_K", "wrn_16_4") for name in models.MODELS}
    assert set(FORMS) == names and set(QUICK) <= names


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FORMS],
)
def test_fields_are_the_closed_form(name):
    size, channels, _ = models.get_published_input(name)
    expected = sum_form(FORMS[name])
    fields = list_fields(name, size, channels)
    assert list(fields) == list(expected), "stages, in the order of computation"
    for stage, form in expected.items():
        for reach in fields[stage]:
            found = reach and (reach.size, reach.stride)
            assert found == form, (stage, reach)
        if (name, stage) in PUBLISHED:
            assert form[0] == PUBLISHED[name, stage]


def test_a_place_is_located():
    reach = Reach(axis=1, stride=4, first=-3, last=6)
    assert reach.size == 10
    assert reach.locate(2) == (5, 15)


def test_an_unknown_operation_is_refused():
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    with pytest.raises(NotImplementedError, match="cumsum"):
        compute_fields(lambda x: jnp.cumsum(x, axis=1), images)


def test_what_is_flattened_sees_everything():
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    fields = compute_fields(lambda x: x.reshape(2, 64) @ jnp.ones((64, 3)), images)
    assert fields == (None, None)
