"""What holds for every model: the contract of `cnn/models/__init__.py`."""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_model import LARGER, NAMES, NUM_CLASSES, SLOW, create, make_images, mark_slow

from cnn.models.variables import create_variables, flatten_paths

# Their parameters stand right in the model, in no layer.
LOOSE = {"sliding_regression", "locally_connected"}


def train(model, variables, images):
    collections = ["batch_stats", "auxiliary"]
    apply = functools.partial(model.apply, train=True, mutable=collections)
    return jax.jit(apply)(variables, images)


def make_variables(model, images):
    return jax.jit(lambda: create_variables(model, 0, images.shape[1:]))()


@pytest.mark.parametrize("name", NAMES)
def test_equal_options_make_equal_models(name):
    one, other = create(name), create(name)
    assert one == other and hash(one) == hash(other)


@pytest.mark.parametrize(
    "choice",
    [
        {"bn_variance": "unbiased"},
        {"convolution": "plain"},
        {"zero_init_residual": True},
        {"dtype": jnp.bfloat16},
    ],
    ids=str,
)
def test_other_options_make_another_model(choice):
    assert create("resnet18") != create("resnet18", **choice)


@pytest.mark.parametrize("name", mark_slow(LARGER))
def test_shapes_types_and_names(name):
    model, images = create(name, jnp.bfloat16), make_images(name)
    variables = jax.eval_shape(lambda: create_variables(model, 0, images.shape[1:]))
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    loose = [x for x in variables["params"].values() if not isinstance(x, Mapping)]
    assert bool(loose) == (name in LOOSE), "parameters belong to layers"
    entered = []

    def note(call, args, kwargs, context):
        entered.append(context.module.path)
        return call(*args, **kwargs)

    def learn(variables, rate):
        return model.apply(
            variables,
            images,
            train=True,
            dropout_rate=rate,
            stochastic_depth_rate=rate,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats", "features"],
        )

    with nn.intercept_methods(note):
        rate = jax.ShapeDtypeStruct((), jnp.float32)
        logits, updated = jax.eval_shape(learn, variables, rate)
    assert logits.shape == (4, NUM_CLASSES) and logits.dtype == jnp.bfloat16
    assert updated.get("batch_stats", {}) == variables["batch_stats"]
    assert all(path.endswith("_out") for path in updated.get("features", {}))
    assert entered[-1] == (() if name == "sliding_regression" else ("head",))


@pytest.mark.parametrize("name", mark_slow(SLOW))
def test_batch_stats_change_in_training_only(name):
    model, images = create(name), make_images(name)
    variables = make_variables(model, images)
    apply = functools.partial(model.apply, train=False, mutable=["batch_stats"])
    updated = jax.jit(apply)(variables, images)[1].get("batch_stats", {})
    jax.tree.map(np.testing.assert_array_equal, updated, variables["batch_stats"])
    after = train(model, variables, images)[1].get("batch_stats", {})
    for old, new in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(after), strict=True
    ):
        assert np.any(old != new)


@pytest.mark.parametrize("name", mark_slow(SLOW))
def test_gradients_are_finite_and_reach_every_kernel(name):
    model, images = create(name), make_images(name)
    variables = make_variables(model, images)
    if "head" in variables["params"]:  # which may start at 0, and pass nothing on
        kernel = variables["params"]["head"]["kernel"]
        drawn = np.random.default_rng(1).normal(size=kernel.shape)
        variables["params"]["head"]["kernel"] = kernel + drawn.astype(np.float32)

    def loss(params):
        logits, updated = train(model, variables | {"params": params}, images)
        every = [logits, *jax.tree.leaves(updated.get("auxiliary", {}))]
        return sum(jnp.sum(jax.nn.log_softmax(x)[:, 0]) for x in every)

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, gradient in flatten_paths(gradients).items():
        assert np.all(np.isfinite(gradient)), path
        assert path.endswith("bias") or np.any(gradient != 0), path
