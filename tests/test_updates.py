"""Update rules of timm and PyTorch, clipping, sharpness-aware steps, noise scale."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn import config as config_module
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
