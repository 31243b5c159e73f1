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
from cnn.models import layers, remat
from cnn.models.options import ModelOptions
from cnn.models.summary import describe_model
from cnn.models.variables import create_variables

OPTIONS = [f.name for f in dataclasses.fields(ModelOptions) if f.name != "model"]


class Seen:
    """What a model computes, traced when it is asked for."""

    def __init__(self, model, choices, is_recomputed=False):
        """Take a model, and its options by name, among them its rates."""
        size = max(24, find_size(choices["model"]))  # for larger kernels too
        self.model, self.is_recomputed = model, is_recomputed
        self.images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        rates = {n: jnp.float32(x) for n, x in choices.items() if n.endswith("_rate")}
        self.rates = layers.select_rates(model, rates)

    def _create(self, seed):
        return create_variables(self.model, seed, self.images.shape[1:])

    def _train(self, variables, images):
        with remat.recompute_blocks(self.is_recomputed):
            return self.model.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
                **self.rates,
            )

    @functools.cached_property
    def variables(self):
        return jax.eval_shape(self._create, 0)

    @functools.cached_property
    def training(self):
        return trace(self._train, self.variables, self.images)[0]

    @functools.cached_property
    def auxiliary(self):
        def learn(variables):
            apply = functools.partial(self.model.apply, train=True)
            images = jnp.zeros(self.images.shape)
            return apply(variables, images, mutable=["batch_stats", "auxiliary"])[1]

        return jax.eval_shape(learn, self.variables).get("auxiliary")

    @functools.cached_property
    def creation(self):
        return trace(self._create, 0)[0]

    @functools.cached_property
    def prediction(self):
        look = functools.partial(self.model.apply, train=False)
        return trace(look, self.variables, self.images)[0]

    def differs(self, other):
        """Return whether another one computes anything else."""
        parts = "training", "creation", "prediction"
        return any(getattr(self, part) != getattr(other, part) for part in parts)


@pytest.mark.parametrize("name", mark_slow(SLOW))
def test_it_reads_what_is_declared_for_it(name):
    options = make_config({"model": name}).model
    model = models.create_model(options, NUM_CLASSES)
    plain = Seen(model, {"model": name})
    for option in OPTIONS:
        choices = {"model": name, option: choose_value(option)}
        changed = models.create_model(make_config(choices).model, NUM_CLASSES)
        is_same = changed == model and not option.endswith("_rate")
        is_read = not is_same and plain.differs(Seen(changed, choices))
        if option == "remat":
            check_recomputed(name, plain)
            continue
        if option == "auxiliary_weight":  # by the step, as test_auxiliary.py has it
            is_read = bool(plain.auxiliary)
        unread = make_config(choices).find_unread([option], "train")
        assert is_read == (not unread), option


def check_recomputed(name, plain):
    """Check that --remat=blocks changes a model with blocks, and refuses another."""
    recomputed = Seen(plain.model, {"model": name}, True)
    options = make_config({"model": name, "remat": "blocks"}).model
    layers = describe_model(plain.model, plain.images.shape[1:])["layers"]
    if plain.training != recomputed.training:
        remat.check(options, layers)
        return
    with pytest.raises(UserError, match="--remat=blocks"):
        remat.check(options, layers)


@pytest.mark.parametrize("name", mark_slow(SLOW))
@pytest.mark.parametrize("batch_norm", [True, False])
def test_statistics_are_frozen_where_there_are_some(name, batch_norm):
    choices = {"model": name, "batch_norm": batch_norm}
    model = models.create_model(make_config(choices).model, NUM_CLASSES)
    size = find_size(name)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (size, size, 3)))
    unread = make_config(choices).find_unread(["freeze_statistics"], "train")
    assert bool(shapes["batch_stats"]) == (not unread)
