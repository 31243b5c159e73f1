"""Learning rates by layer: PyTorch's groups of parameters, in closed form."""

import dataclasses

import jax
import numpy as np
import pytest
from fixtures_runs import run_main

from cnn import config as config_module
from cnn.models import summary
from cnn.models.variables import flatten_paths
from cnn.optim import layer_rates, paths
from cnn.training import steps


@pytest.fixture
def make_steps(make_structure, make_numbers, start, make_batch):
    """Return a function from options to the parameters after some steps."""

    def run(count=2, **options):
        base = {"model": "simple_cnn", "widths": (4, 6), "momentum": 0.9}
        base |= {"weight_decay": 0.01, "batch_norm": False, "schedule": "constant"}
        options = base | options
        names = config_module.make_config(options).freezing.learning_rate_for
        structure, numbers = make_structure(**options), make_numbers(**options)
        layers = [
            x["path"]
            for x in summary.describe_model(structure.model, (8, 8, 1))["layers"]
        ]
        state = start(structure, numbers)
        params = list(flatten_paths(state.params))
        patterns = [name.partition("=")[0] for name in names]
        layers = paths.order_layers(layers, params)
        rates = layer_rates.make_rates(patterns, layers, params)
        rule = dataclasses.replace(structure.rule, rates=rates)
        structure = dataclasses.replace(structure, rule=rule)
        step = jax.jit(steps.train_step, static_argnums=0)
        before = flatten_paths(state.params)
        for _ in range(count):
            state = step(structure, state, make_batch(8), numbers)[0]
        return before, flatten_paths(state.params)

    return run


OPTIMIZERS = ["sgd", "adam", "adamw", "rmsprop", "rmsprop_tf"]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "options, factors",
    [
        ({"layer_decay": 0.5}, {"stage1_conv": 0.25, "stage2_conv": 0.5, "head": 1}),
        (
            {"learning_rate_for": ("stage1=0.1", "head/bias=10")},
            {"stage1_conv": 0.1, "head/bias": 10},
        ),
        (
            {"layer_decay": 0.5, "learning_rate_for": ("head=3", "head/bias=7")},
            {"stage1_conv": 0.25, "stage2_conv": 0.5, "head": 3},
        ),
    ],
)
def test_one_step_is_scaled_layer_by_layer(make_steps, name, options, factors):
    """With one gradient the step of a group is its own rate's times that of rate 1."""
    base = {"optimizer": name, "learning_rate": 0.01}
    before, plain = make_steps(1, **base)
    _, scaled = make_steps(1, **base, **options)
    for path in before:
        factor = next((f for x, f in factors.items() if path.startswith(x)), 1.0)
        np.testing.assert_allclose(
            scaled[path] - before[path],
            factor * (plain[path] - before[path]),
            rtol=1e-4,
            atol=1e-7,
            err_msg=path,
        )


def test_a_factor_for_all_is_another_learning_rate(make_steps):
    """Momentum and decay see the gradient alone, as in PyTorch's groups."""
    _, one = make_steps(5, learning_rate=0.02)
    _, other = make_steps(5, learning_rate=0.01, learning_rate_for=(".*=2",))
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=1e-5, atol=1e-6)


def test_numbers_are_traced_and_names_are_not():
    def read(*texts, **options):
        return config_module.make_config({"learning_rate_for": texts} | options)

    one, other = read("stem=0.1", "head=10"), read("stem=3", "head=0")
    assert one.make_static() == other.make_static()
    assert one.make_static() != read("stem=0.1").make_static()
    numbers = one.make_numbers().learning_rate_for
    np.testing.assert_array_equal(numbers, np.float32([0.1, 10]))
    assert read().make_numbers().learning_rate_for is None
    assert read(layer_decay=0.5).make_static() == read(layer_decay=0.7).make_static()


@pytest.mark.parametrize(
    "flag",
    ["--learning_rate_for=stage1_conv/kernel=0.1", "--layer_decay=0.5"],
)
def test_a_rate_that_muon_would_undo_is_refused(capsys, tmp_path, flag):
    rule = ["--optimizer=muon_sgd", "--decoupled_rates"]
    assert run_main(f"--workdir={tmp_path / 'run'}", *rule, flag) == 2
    assert "--muon_learning_rate" in capsys.readouterr().err


def test_rates_of_what_muon_leaves_alone_are_taken(tmp_path):
    """Biases and the head are trained by the other rule, which heeds them."""
    flags = ["--optimizer=muon_sgd", "--decoupled_rates", "--epochs=1"]
    flags += ["--learning_rate_for=head=0.1,.*norm/bias=2"]
    assert run_main(f"--workdir={tmp_path / 'run'}", *flags) == 0
