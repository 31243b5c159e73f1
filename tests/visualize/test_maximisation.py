"""Gradient ascent raises what it is asked to raise."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from cnn.visualize.compute import maximisation

SHAPE = (6, 6, 3)
WEIGHTS = np.array([[1, 0, -1], [-1, 0, 1]], np.float32).T  # red, and blue, channels


def compute(weights, images):
    maps = jax.nn.relu(images @ weights)
    return jnp.mean(maps, axis=(1, 2)), {"stage": maps}


def maximise(targets):
    scaling = (np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    function = Partial(compute, WEIGHTS)
    images, scores = maximisation.maximise(
        jax.random.key(0), function, targets, scaling, SHAPE, steps=60
    )
    return np.asarray(images), np.asarray(scores)


def test_channels_get_their_colours():
    images, scores = maximise({"stage": np.eye(2, dtype=np.float32)})
    assert images.shape == (2, *SHAPE) and images.min() >= 0 and images.max() <= 1
    red, blue = images.mean(axis=(1, 2))
    assert red[0] > 0.9 and red[2] < 0.1
    assert blue[0] < 0.1 and blue[2] > 0.9
    assert scores.min() > 4


def test_stages_and_classes_are_drawn_together():
    targets = {
        "stage": np.array([[1, 0], [0, 0]], np.float32),
        "logits": np.array([[0, 0], [0, 1]], np.float32),
    }
    images, _ = maximise(targets)
    assert images[0, ..., 0].mean() > 0.9 and images[1, ..., 2].mean() > 0.9
