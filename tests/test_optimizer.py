import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn import config as config_module
from cnn.optim import optimizer
from cnn.optim.optimizer import Rule
from cnn.optim.schedules import Clock

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizer.json").read_text())
SGD = {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.0, "nesterov": False}
ADAM = {
    "learning_rate": 0.1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.95,
    "epsilon": 1e-6,
}
RMS = {
    "optimizer": "rmsprop",
    "learning_rate": 0.02,
    "rmsprop_decay": 0.9,
    "epsilon": 1e-6,
}
CASES = {
    "sgd": SGD,
    "sgd_momentum": SGD | {"momentum": 0.9},
    "sgd_nesterov": SGD | {"momentum": 0.9, "nesterov": True},
    "sgd_all": SGD
    | {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "clip_norm": 1.5},
    "adam": ADAM | {"optimizer": "adam"},
    "adam_decay": ADAM | {"optimizer": "adam", "weight_decay": 0.1},
    "adamw": ADAM | {"optimizer": "adamw", "weight_decay": 0.1},
    "rmsprop": RMS | {"momentum": 0.0},
    "rmsprop_all": RMS | {"momentum": 0.7, "weight_decay": 0.1},
}
# All but muon_sgd, which tests/test_muon.py has.
RULES = config_module.list_fields()["optimizer"].metadata["choices"][:-1]
KERNEL = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
BIAS = np.float32([1.0, -2.0])


def follow(flat, gradient, params, steps=5):
    """Return the parameters after each step, all numbers traced."""
    config = config_module.make_config(flat)
    numbers = config.make_numbers()
    rate = numbers.learning_rate
    chain = optimizer.make_optimizer(config.optimizer, rate, numbers)
    state, path = chain.init(params), []

    @jax.jit
    def step(params, state, numbers):
        rate = numbers.learning_rate
        chain = optimizer.make_optimizer(config.optimizer, rate, numbers)
        updates, state = chain.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state, numbers)
        path.append(params)
    return path


def quartic_gradient(w):
    distance = w - jnp.float32(GOLDEN["target"])
    return 4 * jnp.float32(GOLDEN["scale"]) * distance**3


@pytest.mark.parametrize("name", GOLDEN["rules"])
def test_rule_equals_pytorch(name):
    found = follow(CASES[name], quartic_gradient, jnp.float32(GOLDEN["start"]))
    np.testing.assert_allclose(found, GOLDEN["rules"][name], rtol=2e-5, atol=2e-6)


def adam_direction(history, b1, b2, epsilon):
    """Return Adam's update after a history of gradients, from the paper's sums."""
    n = len(history)
    m = sum((1 - b1) * b1 ** (n - 1 - i) * g for i, g in enumerate(history))
    v = sum((1 - b2) * b2 ** (n - 1 - i) * g**2 for i, g in enumerate(history))
    return (m / (1 - b1**n)) / (np.sqrt(v / (1 - b2**n)) + epsilon)


def test_lamb_equals_its_paper():
    flat = ADAM | {"optimizer": "lamb", "weight_decay": 0.1}
    params = {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}
    found = follow(flat, lambda p: jax.tree.map(lambda x: x**2 - 1, p), params)
    for name, start in (("kernel", KERNEL), ("bias", BIAS)):
        w, history = np.float64(start), []
        for step in range(5):
            history.append(w**2 - 1)
            update = adam_direction(history, 0.8, 0.95, 1e-6) + 0.1 * w
            ratio = np.linalg.norm(w) / np.linalg.norm(update)
            w = w - 0.1 * ratio * update
            np.testing.assert_allclose(found[step][name], w, rtol=1e-4, atol=1e-5)


def orthogonalise(matrix):
    """Take Muon's five quintic steps towards the nearest orthogonal matrix."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_muon_equals_its_paper(momentum):
    flat = ADAM | {
        "optimizer": "muon",
        "momentum": momentum,
        "nesterov": False,
        "weight_decay": 0.1,
        "decay_norms": False,
    }
    params = {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}
    found = follow(flat, lambda p: jax.tree.map(lambda x: x**2 - 1, p), params)
    w, average = np.float64(KERNEL), 0
    for step in range(5):
        average = momentum * average + w**2 - 1
        update = orthogonalise(average.reshape(6, 4)).reshape(2, 3, 4)
        w = w - 0.1 * (0.2 * np.sqrt(6) * update + 0.1 * w)
        np.testing.assert_allclose(found[step]["kernel"], w, rtol=1e-3, atol=1e-4)
    w, history = np.float64(BIAS), []
    for step in range(5):
        history.append(w**2 - 1)
        w = w - 0.1 * adam_direction(history, 0.8, 0.95, 1e-6)
        np.testing.assert_allclose(found[step]["bias"], w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_decay_spares_biases_on_request(rule):
    flat = {"optimizer": rule, "weight_decay": 0.5, "learning_rate": 0.1}
    params = {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}

    def gradient(params):
        return jax.tree.map(lambda x: x**2 - 2, params)

    # Two steps: the first of adam and rmsprop is little more than a sign.
    *_, all_decayed = follow(flat, gradient, params, 2)
    *_, nothing = follow(flat | {"weight_decay": 0.0}, gradient, params, 2)
    kernels = follow(flat | {"decay_norms": False}, gradient, params, 1)[0]
    # lamb and lars do not scale the steps of what they do not decay.
    plain = {"weight_decay": 0.0, "decay_norms": False}
    first = [follow(flat | x, gradient, params, 1)[0] for x in (plain, {})]
    np.testing.assert_array_equal(kernels["bias"], first[0]["bias"])
    np.testing.assert_array_equal(kernels["kernel"], first[1]["kernel"])
    for name in params:
        assert np.max(np.abs(all_decayed[name] - nothing[name])) > 1e-4


@pytest.mark.parametrize("largest, scale", [(10.0, 1.0), (2.5, 0.5)])
def test_clipping_is_by_the_norm_of_all_gradients(largest, scale):
    gradients = {"kernel": jnp.float32([[3.0]]), "bias": jnp.float32([-4.0])}
    start = jax.tree.map(jnp.zeros_like, gradients)
    flat = SGD | {"learning_rate": 1.0, "clip_norm": largest}
    (found,) = follow(flat, lambda params: gradients, start, 1)
    np.testing.assert_allclose(found["kernel"], [[-3.0 * scale]], rtol=1e-6)
    np.testing.assert_allclose(found["bias"], [4.0 * scale], rtol=1e-6)


def compute_rates(count=12, steps_per_epoch=3, **flat):
    config = config_module.make_config({"learning_rate": 0.1, "epochs": 4} | flat)
    numbers = config.make_numbers()
    compute = jax.vmap(
        lambda step: optimizer.compute_learning_rate(
            Rule(config.optimizer, config.schedule),
            Clock(step, steps_per_epoch),
            numbers,
        )
    )
    return np.asarray(compute(jnp.arange(count)))


@pytest.mark.parametrize("name", GOLDEN["schedules"])
def test_schedule_equals_pytorch(name):
    found = compute_rates(schedule=name, milestones=(1.0, 3.0), milestone_factor=0.2)
    np.testing.assert_allclose(found, GOLDEN["schedules"][name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", GOLDEN["schedules"])
def test_warmup_multiplies_the_schedule(name):
    plain = compute_rates(schedule=name, milestones=(3.0,))
    warm = compute_rates(schedule=name, milestones=(3.0,), warmup_epochs=1.5)
    ramp = np.minimum(1, np.arange(1, 13) / 4.5)
    np.testing.assert_allclose(warm, plain * ramp, rtol=1e-6)


def test_milestones_may_be_parts_of_epochs():
    found = compute_rates(schedule="step", milestones=(0.5,), steps_per_epoch=4)
    np.testing.assert_allclose(found[:4], [0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_triangle_equals_its_corners():
    found = compute_rates(
        count=100,
        steps_per_epoch=25,
        schedule="triangle",
        triangle_start=0.2,
        triangle_peak=0.236,
        triangle_end=0.07,
    )
    expected = np.interp(np.arange(100), [0, 23, 100], [0.2, 1, 0.07])
    np.testing.assert_allclose(found, 0.1 * expected, rtol=1e-5)


def test_decoupled_rate_is_that_of_its_source():
    flat = {"decoupled_rates": True, "learning_rate": 11.5, "momentum": 0.85}
    config = config_module.make_config(flat | {"schedule": "constant"})
    numbers = config.make_numbers()
    for batch_size in (512, 1024):
        rule, clock = Rule(config.optimizer, config.schedule), Clock(jnp.int32(0), 3)
        found = optimizer.compute_learning_rate(rule, clock, numbers, batch_size)
        per_example = 11.5 / (1024 * (1 + 1 / (1 - 0.85)))
        np.testing.assert_allclose(found, per_example * batch_size, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_numbers_never_recompile_unless_they_vanish(rule):
    changed = {"learning_rate": 0.3, "momentum": 0.5, "weight_decay": 0.2}
    changed |= {"clip_norm": 2.0, "adam_beta1": 0.5, "rmsprop_decay": 0.5}
    start = {"optimizer": rule, "weight_decay": 0.1, "clip_norm": 1.0}
    options = config_module.make_config(start).make_static().optimizer
    params = {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}
    traces = []

    @jax.jit
    def step(params, numbers):
        traces.append(1)
        clock = Clock(jnp.int32(2), 3)
        rate = optimizer.compute_learning_rate(Rule(options), clock, numbers)
        chain = optimizer.make_optimizer(options, rate, numbers)
        return chain.update(params, chain.init(params), params)[0]

    for flat, count in ((start, 1), (start | changed, 1), ({"momentum": 0.0}, 2)):
        numbers = config_module.make_config(start | flat).make_numbers()
        jax.eval_shape(step, params, numbers)
        assert len(traces) == count
