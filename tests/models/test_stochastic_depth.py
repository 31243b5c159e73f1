"""Stochastic depth and DropBlock in models: which blocks, at which rates."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_model import NAMES, create

from cnn.config import make_config
from cnn.models import layers

PAPER = [number / 9 for number in range(1, 10)]
TOTAL_B0 = 16
# The shares of the rate of each block that adds to its input, in order.
SHARES = {
    "resnet18": np.linspace(0, 1, 8),
    "resnext50_32x4d": np.linspace(0, 1, 16),
    "preact_resnet18": np.linspace(0, 1, 8),
    "bit_r50x1": np.linspace(0, 1, 16),
    "regnet_x_400mf": np.linspace(0, 1, 22),
    "convnext_tiny": np.linspace(0, 1, 18),
    "resnet20": PAPER,
    "wrn_10_1": [1 / 3, 2 / 3, 1],
    "efficientnet_b0": [
        n / TOTAL_B0 for n in range(TOTAL_B0) if n not in (0, 1, 3, 5, 8, 11, 15)
    ],
}


def apply(module, x, rate, train=True, seed=0):
    key = jax.random.key(seed)
    return module.apply({}, x, rate, train, rngs={"dropout": key})


def list_layers(name, kind, **choices):
    """List the layers of a kind that a model calls in training, by the first of it."""
    model, found = create(name, **choices), {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, kind) and context.method_name == "__call__":
            found.setdefault("/".join(context.module.path), context.module)
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    return found


def test_whole_images_are_dropped_and_the_others_scaled():
    x = np.random.default_rng(0).normal(size=(4000, 2, 3)).astype(np.float32)
    found = np.asarray(apply(layers.StochasticDepth(0.5), x, jnp.float32(0.4)))
    kept = found.any(axis=(1, 2))
    np.testing.assert_allclose(found[kept], x[kept] / 0.8, rtol=1e-6)
    assert not found[~kept].any()
    assert abs(kept.mean() - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 4000)
    # So that the expected value is x: of ones, 1 within four standard errors.
    assert abs((kept / 0.8).mean() - 1) < 4 * np.sqrt(0.25 / 4000)
    other = np.asarray(apply(layers.StochasticDepth(0.5), x, jnp.float32(0.4), seed=1))
    assert np.any(other.any(axis=(1, 2)) != kept)


@pytest.mark.parametrize(
    "module", [layers.StochasticDepth(1.0), layers.DropBlock(3, 1)]
)
@pytest.mark.parametrize("rate, train", [(0.0, True), (None, True), (0.9, False)])
def test_the_identity_keeps_its_bits(module, rate, train):
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype(np.float32)
    rate = None if rate is None else jnp.float32(rate)
    np.testing.assert_array_equal(apply(module, x, rate, train), x)


def test_drop_block_drops_about_its_rate():
    x = np.ones((500, 12, 12, 2), np.float32)
    found = np.asarray(apply(layers.DropBlock(3, 0.5), x, jnp.float32(0.2)))
    zero = found == 0
    np.testing.assert_array_equal(zero[..., 0], zero[..., 1])
    # A pixel stays if none of the seeds is drawn whose squares cover it: 9 of them,
    # fewer at the border.
    rows = np.full(12, 3)
    rows[[0, -1]] = 2
    seed_rate = 0.5 * 0.2 * 12**2 / 3**2 / 10**2
    expected = 1 - (1 - seed_rate) ** np.outer(rows, rows)
    np.testing.assert_allclose(zero.mean(), expected.mean(), atol=0.01)
    np.testing.assert_allclose(found.mean(), 1, rtol=1e-5)
    assert len(np.unique(zero.mean(axis=(1, 2, 3)))) > 5, "each image has its own"


@pytest.mark.parametrize("name", SHARES)
def test_the_rate_rises_with_depth(name):
    found = [x.share for x in list_layers(name, layers.StochasticDepth).values()]
    np.testing.assert_allclose(found, SHARES[name], rtol=1e-6)


def test_every_residual_model_has_it():
    for name in NAMES:
        unread = make_config({"model": name}).find_unread(
            ["stochastic_depth_rate"], "train"
        )
        if name in SHARES:
            assert not unread, name
        if name.startswith(("densenet", "shufflenet", "vgg", "airbench", "alexnet")):
            assert unread, name


@pytest.mark.parametrize("sizes", [(7,), (5, 3)])
def test_drop_block_stands_in_the_last_two_stages(sizes):
    found = list_layers("resnet18", layers.DropBlock, dropblock_size=sizes)
    shown = {path: (x.size, x.share) for path, x in found.items() if x.size}
    assert shown == {
        f"stage{stage}_block{number}/dropblock": (size, share)
        for stage, size, share in ((3, sizes[0], 0.25), (4, sizes[-1], 1.0))
        for number in (1, 2)
    }
