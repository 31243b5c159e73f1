"""Each model reads the options that are declared for it, and no other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from effects import trace
from every_model import NUM_CLASSES, SLOW, find_size, mark_slow
from every_option import choose_value

from cnn import models
from cnn.config import make_config
from cnn.errors import UserError
from cnn.models import remat
from cnn.models.options import ModelOptions
from cnn.models.summary import describe_model
from cnn.models.variables import create_variables

OPTIONS = [f.name for f in dataclasses.fields(ModelOptions) if f.name != "model"]


def see(model, choices, is_recomputed=False):
    """Return what a model computes: its first weights, in training, in evaluation."""
    size = max(24, find_size(choices["model"]))  # for larger kernels too
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    create = functools.partial(create_variables, model, image_shape=images.shape[1:])
    rates = {n: x for n, x in choices.items() if n.endswith("_rate")}

    def train(variables, images):
        with remat.recompute_blocks(is_recomputed):
            return model.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
                **{name: jnp.float32(rate) for name, rate in rates.items()},
            )

    variables = jax.eval_shape(create, 0)
    look = functools.partial(model.apply, train=False)
    texts = [trace(create, 0), trace(train, variables, images)]
    return [text for text, _ in [*texts, trace(look, variables, images)]]


@pytest.mark.parametrize("name", mark_slow(SLOW))
def test_it_reads_what_is_declared_for_it(name):
    options = make_config({"model": name}).model
    model = models.create_model(options, NUM_CLASSES)
    plain = see(model, {"model": name})
    for option in OPTIONS:
        choices = {"model": name, option: choose_value(option)}
        changed = models.create_model(make_config(choices).model, NUM_CLASSES)
        is_same = changed == model and not option.endswith("_rate")
        is_read = not is_same and see(changed, choices) != plain
        if option == "remat":
            is_read = recomputes(name, model)
        unread = make_config(choices).find_unread([option], "train")
        # Whether a model has blocks to recompute is checked once it is made.
        assert is_read == (not unread) or option == "remat", option


def recomputes(name, model):
    """Return whether --remat=blocks changes a model; where not, it is refused."""
    size = max(24, find_size(name))
    layers = describe_model(model, (size, size, 3))["layers"]
    plain, other = (see(model, {"model": name}, on) for on in (False, True))
    options = make_config({"model": name, "remat": "blocks"}).model
    if plain == other:
        with pytest.raises(UserError, match="--remat=blocks"):
            remat.check(options, layers)
    else:
        remat.check(options, layers)
    return plain != other


@pytest.mark.parametrize("name", mark_slow(SLOW))
@pytest.mark.parametrize("batch_norm", [True, False])
def test_statistics_are_frozen_where_there_are_some(name, batch_norm):
    choices = {"model": name, "batch_norm": batch_norm}
    model = models.create_model(make_config(choices).model, NUM_CLASSES)
    size = find_size(name)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (size, size, 3)))
    unread = make_config(choices).find_unread(["freeze_statistics"], "train")
    assert bool(shapes["batch_stats"]) == (not unread)
