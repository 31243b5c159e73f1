"""All models as tests take them: by name, on small images, the slow ones marked.

A model that is new in `FAMILIES` is in `NAMES` and in no other list here.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import models
from cnn.models.layers import ImageTooSmall
from cnn.models.options import ModelOptions

NUM_CLASSES = 4
NAMES = models.list_names()
# Larger members of families whose smallest member is tested.
LARGER = set(NAMES) - {family.examples[0] for family in models.FAMILIES}
LARGER = LARGER - {"mlp", "vgg11_bn"} | {"vgg11"}
# What compiles within 5 s.
FAST = {"logistic_regression", "mlp", "simple_cnn", "sliding_regression"}
FAST |= {"locally_connected", "resnet18", "resnet20", "wrn_10_1", "squeezenet1_1"}
FAST |= {"lenet5"}
SLOW = set(NAMES) - FAST


def mark_slow(slow):
    """Return all names, those in `slow` marked so."""
    mark = pytest.mark.slow
    return [pytest.param(name, marks=mark) if name in slow else name for name in NAMES]


def create(name, dtype=jnp.float32, **choices):
    """Create a model of 4 classes, small where options say how large it is."""
    small = {"widths": (3, 4), "mlp_widths": (6, 5)}
    options = dataclasses.replace(ModelOptions(), model=name, **(small | choices))
    return models.create_model(options, NUM_CLASSES, dtype)


@functools.cache
def find_size(name):
    """Return the first of 8, 16, 32 … pixels that a model takes."""
    model = create(name)
    for size in (8, 16, 32, 64, 128, 256):
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        try:
            jax.eval_shape(model.init, jax.random.key(0), images)
        except ImageTooSmall:
            continue
        return size
    raise AssertionError(f"{name} takes no image of up to 256 pixels")


def make_images(name):
    """Make four small images that a model's downsampling does not exhaust."""
    shape = (4, find_size(name), find_size(name), 2)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)
