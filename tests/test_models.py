import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import models
from cnn.errors import UserError
from cnn.models import layers
from cnn.models.options import ModelOptions
from cnn.models.variables import count_parameters, create_variables
from cnn.ops import convolution

# The small models, and the names of their features in order.
FEATURES = {
    "logistic_regression": [],
    "mlp": ["dense1_out", "dense2_out"],
    "simple_cnn": ["stage1_out", "stage2_out"],
    "sliding_regression": ["alignments_out"],
    "locally_connected": ["local1_out", "local2_out"],
}
IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype(np.float32)
CHOICES = {
    "kernel_size": (1, 2, 5),
    "padding": ("same", "valid"),
    "downsampling": ("stride", "max_pool", "avg_pool", "space_to_depth", "none"),
    "head": ("flatten", "global_average"),
    "batch_norm": (True, False),
    "dense_widths": ((), (5, 6)),
    "activation": tuple(layers.ACTIVATIONS),
    "widths": ((3,), (3, 4, 5)),
}


def create(model="simple_cnn", dtype=jnp.float32, shape=(8, 8, 2), **choices):
    small = {"widths": (3, 4), "mlp_widths": (6, 5)}
    options = dataclasses.replace(ModelOptions(), model=model, **(small | choices))
    module = models.create_model(options, 4, dtype)
    return module, jax.jit(lambda: create_variables(module, 0, shape))()


def train(module, variables, rate=None, images=IMAGES):
    rngs = {"dropout": jax.random.key(1)}
    keywords = {"train": True, "rngs": rngs, "mutable": ["batch_stats"]}
    apply = functools.partial(module.apply, **keywords)
    return jax.jit(apply)(variables, images, dropout_rate=rate)


@pytest.mark.parametrize("name", FEATURES)
def test_compiled_equals_not_compiled(name):
    module, variables = create(name)
    with jax.disable_jit():
        plain = train(module, variables)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        train(module, variables),
        plain,
    )


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_named(name):
    module, variables = create(name)
    apply = functools.partial(module.apply, mutable=["features"])
    features = jax.eval_shape(apply, variables, IMAGES)[1].get("features", {})
    assert list(features) == FEATURES[name]


@pytest.mark.parametrize("name", ["mlp", "simple_cnn"])
def test_dropout_in_training_alone(name):
    module, variables = create(name, mlp_widths=(64,), dense_widths=(64,))
    rate = jnp.float32(0.5)
    plain = train(module, variables)[0]
    assert np.any(plain != train(module, variables, rate)[0])
    quiet = module.apply(variables, IMAGES, train=False, dropout_rate=rate)
    np.testing.assert_array_equal(quiet, module.apply(variables, IMAGES))


def test_dropout_keeps_the_mean_and_its_share():
    x = jnp.ones((100, 100))
    rngs = {"dropout": jax.random.key(0)}
    y = np.asarray(layers.Dropout().apply({}, x, jnp.float32(0.2), True, rngs=rngs))
    assert set(np.unique(y)) == {0, np.float32(1.25)}
    assert abs((y == 0).mean() - 0.2) < 0.02


def test_layers_drop_different_units():
    class Two(layers.nn.Module):
        @layers.nn.compact
        def __call__(self, x, rate):
            one = layers.Dropout(name="one")(x, rate, True)
            return one, layers.Dropout(name="two")(x, rate, True)

    rngs = {"dropout": jax.random.key(0)}
    one, two = Two().apply({}, jnp.ones((64,)), 0.5, rngs=rngs)
    assert 0 < np.mean(one == two) < 1


@pytest.mark.parametrize(
    "choice", [(name, value) for name in CHOICES for value in CHOICES[name]], ids=str
)
def test_simple_cnn_over_its_choices(choice):
    name, value = choice
    shape = (16, 16, 2)
    choices = {"kernel_size": 3, "widths": (3, 4)} | {name: value}
    variables = jax.eval_shape(lambda: create(shape=shape, **choices)[1])
    paths = set(variables["params"])
    widths = choices["widths"]
    assert ("stage1_norm" in paths) == choices.get("batch_norm", True)
    assert ("bias" in variables["params"]["stage1_conv"]) != ("stage1_norm" in paths)
    assert f"stage{len(widths)}_conv" in paths
    assert ("dense2" in paths) == (len(choices.get("dense_widths", ())) == 2)
    kernel = variables["params"]["stage1_conv"]["kernel"]
    assert kernel.shape == (choices["kernel_size"],) * 2 + (2, widths[0])


@pytest.mark.parametrize(
    "choices, count",
    [
        ({"padding": "same"}, 4 * 4 * 4),
        ({"padding": "valid"}, 2 * 2 * 4),
        ({"downsampling": "stride"}, 4 * 4 * 4),
        ({"downsampling": "space_to_depth"}, 4 * 4 * 16),
        ({"downsampling": "none"}, 16 * 16 * 4),
    ],
)
def test_downsampling_halves_and_valid_padding_crops(choices, count):
    shape, full = (16, 16, 2), {"head": "flatten", "kernel_size": 3} | choices
    variables = jax.eval_shape(lambda: create(shape=shape, **full)[1])
    assert variables["params"]["head"]["kernel"].shape == (count, 4)


@pytest.mark.parametrize("downsampling", CHOICES["downsampling"])
def test_global_average_takes_other_sizes(downsampling):
    module, variables = create(downsampling=downsampling, widths=(2, 2))
    for size in ((8, 8), (5, 9), (12, 7)):
        images = jnp.ones((2, *size, 2))
        logits = jax.eval_shape(module.apply, variables, images)
        assert logits.shape == (2, 4)


@pytest.mark.parametrize(
    "choices, where",
    [
        ({"widths": (2,) * 4}, "the downsampling of stage4 receives 1x1"),
        ({"padding": "valid", "widths": (2, 2)}, "downsampling of stage2 receives 1x1"),
        (
            {"padding": "valid", "kernel_size": 5, "downsampling": "none"},
            "the convolution of stage2 receives 4x4 pixels and needs 5x5",
        ),
    ],
)
def test_too_small_images_are_refused(choices, where):
    with pytest.raises(UserError) as caught:
        jax.eval_shape(lambda: create(**choices)[1])
    assert where in str(caught.value) and "--image_size" in str(caught.value)


def test_choices_are_those_that_are_computed():
    choices = {x.name: x.metadata["choices"] for x in dataclasses.fields(ModelOptions)}
    assert choices["activation"] == tuple(layers.ACTIVATIONS)
    assert choices["convolution"] == convolution.FORMULATIONS


def test_unknown_model_is_refused():
    with pytest.raises(UserError, match="did you mean simple_cnn?"):
        create("simple_cn")


def test_parameter_counts():
    _, variables = create("logistic_regression")
    assert count_parameters(variables["params"]) == 8 * 8 * 2 * 4 + 4
    _, variables = create("mlp")
    assert count_parameters(variables["params"]) == 129 * 6 + 7 * 5 + 6 * 4
    _, variables = create("simple_cnn", kernel_size=3)
    convolutions, norms = 9 * 2 * 3 + 9 * 3 * 4, 2 * (3 + 4)
    assert count_parameters(variables["params"]) == convolutions + norms + 5 * 4
    assert count_parameters(variables["batch_stats"]) == norms
