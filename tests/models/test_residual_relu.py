"""Residual blocks end in the ReLU that is written once."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from cnn import models
from cnn.models.options import ModelOptions
from cnn.ops import activation


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 9), ("resnet18", 8)])
def test_every_block_ends_in_it(name, blocks):
    model = models.create_model(ModelOptions(model=name), 10, jnp.float32)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    with mock.patch.object(activation, "relu", wraps=activation.relu) as relu:
        jax.eval_shape(model.init, jax.random.key(0), images)
    stems = 1 if name == "resnet20" else 0  # a pooling comes between in resnet18
    assert relu.call_count == blocks + stems
