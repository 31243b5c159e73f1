"""A trial equals the solo run, whatever runs beside it."""

import functools
import json
import logging
import random

import jax
import numpy as np
import pytest
from fixtures_runs import TINY, train_run

from cnn import config as config_module
from cnn import train
from cnn.errors import UserError
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep import choose
from cnn.sweep.executors import STACKED, check_stackable
from cnn.training.state import compute_state_sha256

BASE = config_module.make_config(
    config_module.load_preset("digits"),
    TINY,
    {"flip_probability": 0.5, "mixup_alpha": 0.2, "train_examples": 200},
)
STEPS = 20


def make_setup(config=BASE, like=None):
    return train.make_setup(config, {}, Terminal(), Stop(), like)


@functools.cache
def make_executor(name, setup, width):
    """Make an executor; the programs of equal ones are compiled once a worker."""
    return choose.make_executor(name, setup, Stop(), width)


def run_epochs(executor, configs, epochs, active=None):
    """Return states on the host and the losses [T, steps] of some epochs."""
    states, losses = executor.create(configs), []
    for number in range(epochs):
        taking_part = active or [True] * len(configs)
        states, results = executor.train_epoch(states, configs, number, taking_part)
        losses.append([r.losses if r else np.zeros(0) for r in results])
    joined = [np.concatenate(own) for own in zip(*losses, strict=True)]
    return executor.take_states(states), joined


@pytest.fixture(scope="module")
def setup():
    return make_setup()


CONFIGS = [
    BASE.change({"learning_rate": rate, "seed": seed})
    for rate, seed in ((0.01, 0), (0.1, 0), (0.05, 3))
]


@pytest.mark.parametrize("name", ["loop", *STACKED])
def test_losses_equal_the_loop(setup, name):
    reference = run_epochs(make_executor("loop", setup, 3), CONFIGS, 2)
    states, losses = run_epochs(make_executor(name, setup, 3), CONFIGS, 2)
    for own, others in zip(losses, reference[1], strict=True):
        assert len(own) == STEPS
        np.testing.assert_allclose(own, others, rtol=1e-5, atol=0)
    if name == "loop":
        own = [compute_state_sha256(state) for state in states]
        assert own == [compute_state_sha256(state) for state in reference[0]]


@pytest.mark.parametrize("name", ["map", "vmap"])
def test_neighbours_do_not_matter(setup, name):
    executor = make_executor(name, setup, 3)
    alone, _ = run_epochs(executor, CONFIGS[1:2], 1)
    beside, _ = run_epochs(executor, CONFIGS, 1)
    other, _ = run_epochs(executor, CONFIGS[::-1], 1, [False, True, True])
    hashes = [compute_state_sha256(x) for x in (alone[0], beside[1], other[1])]
    assert len(set(hashes)) == 1


@pytest.mark.parametrize("name", ["loop", *STACKED])
def test_a_trial_that_takes_no_part_stays(setup, name):
    executor = make_executor(name, setup, 3)
    before = executor.take_states(executor.create(CONFIGS))
    after, losses = run_epochs(executor, CONFIGS, 1, [True, False, True])
    same = [
        compute_state_sha256(a) == compute_state_sha256(b)
        for a, b in zip(before[:3], after[:3], strict=True)
    ]
    assert same == [False, True, False]
    assert [len(own) for own in losses] == [10, 0, 10]


@pytest.mark.parametrize("name", ["map", "vmap", "shard"])
def test_evaluation_is_that_of_the_solo_run(setup, name):
    loop, stacked = make_executor("loop", setup, 3), make_executor(name, setup, 3)
    states = loop.create(CONFIGS)
    placed = stacked.place(loop.take_states(states), CONFIGS)
    active = [True, False, True]
    found = loop.evaluate(states, "test", active)
    others = stacked.evaluate(placed, "test", active)
    assert found[1] is None and others[1] is None
    for one, other in ((found[0], others[0]), (found[2], others[2])):
        assert one["confusion"] == other["confusion"] and one["count"] == 360
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def fine_tune(**changes):
    """Return a setup of which a stage is frozen, and three of its trials."""
    changes = {"freeze": ("stage1",), "ema_decay": 0.0} | changes
    configs = [config.change(changes) for config in CONFIGS]
    return make_setup(configs[0]), configs


@pytest.mark.parametrize("name", ["map", "vmap"])
def test_stacked_trials_fine_tune_as_the_loop_does(name):
    setup, configs = fine_tune()
    states, losses = run_epochs(make_executor(name, setup, 3), configs, 1)
    before = make_executor(name, setup, 3)
    before = before.take_states(before.create(configs))
    for first, last in zip(before, states, strict=False):
        kernels = [x.params["stage1_conv"]["kernel"] for x in (first, last)]
        np.testing.assert_array_equal(*kernels)
        assert "stage1_conv" not in str(last.opt_state)
    _, others = run_epochs(make_executor("loop", setup, 3), configs, 1)
    for own, other in zip(losses, others, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=0)


def test_a_loop_thaws_and_caches_features_anew_for_every_trial(tmp_path):
    options = {"train_only": ("head",), "freeze": (), "unfreeze": ("stage1:2",)}
    options |= {"flip_probability": 0.0, "mixup_alpha": 0.0, "dropout_rate": 0.0}
    setup, configs = fine_tune(**options)
    assert setup.phases[0].structure.takes_features
    with pytest.raises(UserError, match="--unfreeze .* --executor=loop"):
        check_stackable("map", setup)
    states, _ = run_epochs(make_executor("loop", setup, 3), configs, 3)
    for number, config in enumerate(configs[1:], start=1):
        solo = make_setup(config)
        alone, _ = run_epochs(make_executor("loop", solo, 1), [config], 3)
        own, other = (compute_state_sha256(x) for x in (states[number], alone[0]))
        assert own == other


@pytest.mark.parametrize("name", ["loop", *STACKED])
def test_one_compilation_for_all_numbers(name, caplog):
    other = {"widths": (5,)}  # which no other test has compiled
    setup = make_setup(BASE.change(other))
    some_configs = [config.change(other) for config in CONFIGS]
    with caplog.at_level(logging.DEBUG, "jax"), jax.log_compiles():
        executor = make_executor(name, setup, 2)
        for some in (some_configs[:2], some_configs[1:], some_configs[2:]):
            run_epochs(executor, some, 2)
    assert count_compilations(caplog) == 1


def count_compilations(caplog):
    """Count the compilations of a program that trains."""
    messages = [record.getMessage() for record in caplog.records]
    return sum("XLA compilation of jit(train_" in message for message in messages)


def test_a_run_shares_its_data(setup):
    other = make_setup(BASE.change({"model": "mlp"}), like=setup)
    assert (
        other.loaders is setup.loaders
        and other.structure.model != setup.structure.model
    )
    fewer = make_setup(BASE.change({"train_examples": 150}), like=setup)
    assert fewer.loaders is not setup.loaders


MODELS = ("simple_cnn", "mlp", "sliding_regression")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_ten_random_trials_equal_their_solo_runs(tmp_path, number):
    chance = random.Random(number)
    changes = {
        "model": MODELS[number % 3],
        "learning_rate": 10 ** chance.uniform(-2.5, -0.5),
        "weight_decay": chance.choice([0.0, 5e-4]),
        "dropout_rate": chance.choice([0.0, 0.3]),
        "epochs": chance.choice([4, 5]),
        "seed": chance.randrange(100),
    }
    result = train_run(tmp_path, **changes)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    solo = [json.loads(x)["loss"] for x in lines if "gradient_norm" in x][:STEPS]
    config = config_module.make_config(config_module.load_preset("digits"), TINY)
    config = config.change(changes)
    shared = make_setup(config)
    beside = [config.change({"learning_rate": 0.02}), config]
    epochs = config.train.epochs
    states, losses = run_epochs(make_executor("loop", shared, 2), beside, epochs)
    assert compute_state_sha256(states[1]) == result["state_sha256"]
    np.testing.assert_array_equal(losses[1][:STEPS], np.float32(solo))
    for name in STACKED:
        _, losses = run_epochs(make_executor(name, shared, 2), beside, epochs)
        np.testing.assert_allclose(losses[1][:STEPS], solo, rtol=1e-5, atol=0)
