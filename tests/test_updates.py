"""Update rules of timm and PyTorch, clipping, sharpness-aware steps, noise scale."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures_runs import train_run

from cnn import config as config_module
from cnn.errors import UserError
from cnn.optim import optimizer

GOLDEN = json.loads((Path(__file__).parent / "golden" / "updates.json").read_text())
BETAS = {"learning_rate": 0.02, "adam_beta1": 0.8, "adam_beta2": 0.95, "epsilon": 1e-6}
DECAY = {"weight_decay": 0.1}
LAMB = BETAS | {"optimizer": "lamb", "weight_decay": 0.02, "clip_norm": 1.0}
LARS = {"optimizer": "lars", "learning_rate": 0.5, "momentum": 0.9, "epsilon": 1e-6}
LARS |= DECAY | {"trust_coefficient": 0.05}
TF = {"optimizer": "rmsprop_tf", "learning_rate": 0.02, "epsilon": 1e-3}
TF |= {"rmsprop_decay": 0.9, "momentum": 0.0}
CASES = {
    "nadam": BETAS | DECAY,
    "nadamw": BETAS | DECAY,
    "adamax": BETAS | DECAY,
    "adabelief": BETAS | DECAY,
    "lion": BETAS,
    "lion_decay": BETAS | DECAY | {"optimizer": "lion"},
    "adagrad": {"learning_rate": 0.1, "epsilon": 1e-6} | DECAY,
    "rmsprop_tf": TF,
    "rmsprop_tf_all": TF | DECAY | {"momentum": 0.9, "decay_norms": False},
    "lamb": LAMB | {"decay_norms": False},
    "lamb_all": LAMB,
    "lamb_adapt": LAMB | {"weight_decay": 0.0, "clip_norm": 0.0},
    "lars": LARS | {"nesterov": False, "decay_norms": False},
    "lars_nesterov": LARS,
}
START = {"kernel": jnp.float32(GOLDEN["kernel"]), "bias": jnp.float32(GOLDEN["bias"])}


def make_gradient(params, step):
    """Return the gradients that make_optimizer.py gives PyTorch."""

    def make(number, w):
        places = jnp.arange(w.size, dtype=jnp.float32).reshape(w.shape)
        return 0.8 * w - 0.5 + 0.6 * jnp.sin(0.7 * step + places + number)

    return {name: make(i, params[name]) for i, name in enumerate(("kernel", "bias"))}


@pytest.mark.parametrize("name", GOLDEN["rules"])
def test_twenty_steps_equal_pytorch_and_timm(name):
    config = config_module.make_config({"optimizer": name} | CASES[name])

    @jax.jit
    def take(params, state, step, numbers):
        rate = numbers.learning_rate
        chain = optimizer.make_optimizer(config.optimizer, rate, numbers)
        updates, state = chain.update(make_gradient(params, step), state, params)
        return optax.apply_updates(params, updates), state

    numbers, params = config.make_numbers(), START
    rate = numbers.learning_rate
    state = optimizer.make_optimizer(config.optimizer, rate, numbers).init(params)
    expected = dict(zip(GOLDEN["shown"], GOLDEN["rules"][name], strict=True))
    for step in range(20):
        params, state = take(params, state, jnp.float32(step), numbers)
        if step in expected:
            for part, values in zip(("kernel", "bias"), expected[step], strict=True):
                largest = np.max(np.abs(values))
                np.testing.assert_allclose(params[part], values, 0, 1e-6 * largest)


def clip(flat, params, gradients):
    """Return clipped gradients: the step of SGD at the rate 1, without its sign."""
    flat = {"learning_rate": 1.0, "momentum": 0.0} | flat
    config = config_module.make_config(flat)
    numbers = config.make_numbers()
    chain = optimizer.make_optimizer(config.optimizer, numbers.learning_rate, numbers)
    updates = chain.update(gradients, chain.init(params), params)[0]
    return jax.tree.map(jnp.negative, updates)


def read_clipped(name):
    """Return weights, gradients and clipped ones of PyTorch in our layout."""

    def to_ours(values):
        array = jnp.float32(values)
        return jnp.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array

    trees = [{}, {}, {}]
    for path, arrays in GOLDEN[name].items():
        leaf = "kernel" if path in ("conv", "dense") else "bias"
        for tree, values in zip(trees, arrays, strict=True):
            tree[path] = {leaf: to_ours(values)}
    return trees


@pytest.mark.parametrize("flag, limit", [("clip_value", 0.15), ("clip_adaptive", 0.1)])
def test_clipping_equals_pytorch_and_timm(flag, limit):
    params, gradients, expected = read_clipped(flag)
    found = clip({flag: limit}, params, gradients)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8),
        found,
        expected,
    )
    same = jax.tree.map(lambda x, y: x == y, gradients, expected)
    shares = [float(x.mean()) for x in jax.tree.leaves(same)]
    assert 0 < np.mean(shares) < 1, "some are clipped and some are not"


def test_adaptive_clipping_leaves_the_head():
    params, gradients, expected = read_clipped("clip_adaptive")
    dense = [x.pop("dense") for x in (params, gradients, expected)]
    params["head"], gradients["head"] = dense[:2]
    found = clip({"clip_adaptive": 0.1}, params, gradients)
    np.testing.assert_array_equal(found["head"]["kernel"], dense[1]["kernel"])
    assert np.any(dense[1]["kernel"] != dense[2]["kernel"])


def test_each_place_of_a_local_kernel_is_a_unit():
    """A unit's gradient depends on its own weights and gradients alone."""
    random = np.random.default_rng(0)
    kernel, gradient = random.normal(size=(2, 2, 3, 3, 4, 5, 6)).astype(np.float32)[:2]
    whole = clip({"clip_adaptive": 0.3}, {"a_kernel": kernel}, {"a_kernel": gradient})
    one = {"a_kernel": kernel[1, 2]}, {"a_kernel": gradient[1, 2]}
    alone = clip({"clip_adaptive": 0.3}, *one)["a_kernel"]
    np.testing.assert_allclose(whole["a_kernel"][1, 2], alone, rtol=1e-6)


@pytest.mark.parametrize(
    "flat, words",
    [
        ({"clip_norm": 1.0, "clip_value": 0.5}, "clip_norm=1 and --clip_value=0.5"),
        ({"clip_value": 1.0, "clip_adaptive": 0.5}, "give one of them"),
        ({"clip_adaptive": 0.5, "decoupled_rates": True}, "do not go together"),
    ],
)
def test_limits_that_do_not_go_together_are_refused(flat, words):
    with pytest.raises(UserError, match=words):
        optimizer.check(config_module.make_config(flat).optimizer)


@pytest.mark.parametrize(
    "changes", [{"train_only": ("head",)}, {"model": "logistic_regression"}], ids=str
)
def test_adaptive_clipping_of_nothing_is_refused(tmp_path, changes):
    with pytest.raises(UserError, match="^--clip_adaptive=0.1 leaves head as it is"):
        train_run(tmp_path, clip_adaptive=0.1, cache_features="never", **changes)
