import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import models
from cnn.errors import UserError
from cnn.models import ModelOptions, layers
from cnn.state import count_parameters, create_variables, flatten_paths

SMALL_MODELS = (
    "logistic_regression",
    "mlp",
    "simple_cnn",
    "sliding_regression",
    "locally_connected",
)
FAST_MODELS = (*SMALL_MODELS, "resnet18", "resnet20", "wrn_10_1", "squeezenet1_1")
EVERY_MODEL = [
    *FAST_MODELS,
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in models.MODELS
        if name not in FAST_MODELS and name != "wrn_D_K"
    ),
]
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


def make_images(name):
    """Make four small images that a model's downsampling does not exhaust."""
    family = name.split("_")[0].rstrip("0123456789")
    size = {"alexnet": 63, "vgg": 32, "densenet": 32, "squeezenet": 33, "convnext": 32}
    size["airbench"] = 16
    shape = (4, size.get(family, 8), size.get(family, 8), 2)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_batch_stats_change_in_training_only(name):
    images = make_images(name)
    module, variables = create(name, shape=images.shape[1:])
    apply = functools.partial(module.apply, train=False, mutable=["batch_stats"])
    logits, updated = jax.jit(apply)(variables, images)
    jax.tree.map(
        np.testing.assert_array_equal,
        updated.get("batch_stats", {}),
        variables["batch_stats"],
    )
    assert logits.shape == (4, 4) and logits.dtype == jnp.float32
    after = train(module, variables, images=images)[1].get("batch_stats", {})
    for old, new in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(after), strict=True
    ):
        assert np.any(old != new)


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_gradients_are_finite_and_reach_every_kernel(name):
    images = make_images(name)
    module, variables = create(
        name, shape=images.shape[1:], batch_norm=name == "simple_cnn"
    )

    def loss(params):
        logits, _ = train(module, variables | {"params": params}, images=images)
        return jnp.sum(jax.nn.log_softmax(logits)[:, 0])

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, gradient in flatten_paths(gradients).items():
        assert np.all(np.isfinite(gradient)), path
        assert path.endswith("bias") or np.any(gradient != 0), path


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_compiled_equals_not_compiled(name):
    module, variables = create(name)
    with jax.disable_jit():
        plain = train(module, variables)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        train(module, variables),
        plain,
    )


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_parameters_stay_float32_and_features_are_named(name):
    module, variables = create(name, jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, state = module.apply(variables, IMAGES, mutable=["features"])
    assert logits.dtype == jnp.bfloat16
    expected = {
        "mlp": {"dense1_out", "dense2_out"},
        "simple_cnn": {"stage1_out", "stage2_out"},
        "sliding_regression": {"alignments_out"},
        "locally_connected": {"local1_out", "local2_out"},
    }
    assert set(state.get("features", {})) == expected.get(name, set())


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
