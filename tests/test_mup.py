"""Maximal update parametrization: against mup of its authors, and over widths."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures_runs import train_run

from cnn import models
from cnn.checkpoints import workdir
from cnn.config import make_config
from cnn.errors import UserError
from cnn.models.variables import create_variables, flatten_paths
from cnn.optim import mup, optimizer
from cnn.optim.optimizer import Rule
from cnn.optim.schedules import Clock
from cnn.training.state import create_state
from tests.golden import hashed

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mup.json").read_text())
TIMES = 4
SMALL = {"widths": (2, 4), "parametrization": "mup", "width_multiplier": float(TIMES)}
ADAM = {"adam_beta1": 0.9, "adam_beta2": 0.99, "learning_rate": 0.01}
CASES = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.01},
    "adam": ADAM | {"optimizer": "adam"},
    "adamw": ADAM | {"optimizer": "adamw", "weight_decay": 0.1},
}
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}
WIDE = ["simple_cnn", "resnet20", "resnet18", "preact_resnet_11", "wrn_10_2"]


def spell(path):
    """Return how PyTorch's model of make_mup.py names a parameter."""
    layer, kind = path.split("/")
    return f"{layer}.{KINDS[kind]}"


def make_rule(config, num_classes=10, shape=(8, 8, 3)):
    """Make the rule of a run, with its schedule at its peak, and its model."""
    static = config.make_static()
    scales = mup.make_scales(config.model, config.optimizer, num_classes, shape)
    schedule = dataclasses.replace(static.schedule, schedule="constant")
    rule = Rule(static.optimizer, schedule, scales=scales)
    return rule, models.create_model(static.model, num_classes)


def make_weights(path, leaf):
    """Make a parameter as make_mup.py does; the head's is divided by the width."""
    name, shape = spell(path), leaf.shape
    is_kernel = len(shape) > 1
    order = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
    shape = tuple(shape[i] for i in order) if is_kernel else shape
    drawn = 2 * hashed.make_uniform(name, shape) - 1
    if not is_kernel:
        return 0.1 * drawn + (1.0 if "norm.weight" in name else 0.0)
    if len(shape) == 2:
        return (drawn * 6**0.5 * 0.5 / TIMES).T
    return (drawn * (6 / drawn[0].size) ** 0.5).transpose(2, 3, 1, 0)


@pytest.mark.parametrize("case", CASES)
def test_rates_are_those_of_its_authors(case):
    config = make_config(SMALL | CASES[case])
    rates = {one.path: one.rate for one in make_rule(config)[0].scales}
    groups = GOLDEN[case]["groups"]
    shapes = jax.eval_shape(
        lambda: create_variables(models.create_model(config.model, 10), 0, (8, 8, 3))
    )
    paths = flatten_paths(shapes["params"])
    assert {spell(path) for path in paths} == set(groups)
    for path in paths:
        rate = config.optimizer.learning_rate * rates.get(path, 1.0)
        theirs, decay = groups[spell(path)]
        # Theirs trains the head's kernel times the width, and so do gradients see it.
        folded = theirs / (TIMES**2 if case == "sgd" else TIMES)
        assert rate == pytest.approx(folded if path == "head/kernel" else theirs)
        assert theirs * decay == pytest.approx(
            config.optimizer.learning_rate * config.optimizer.weight_decay
        )


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_are_those_of_its_authors(case):
    config = make_config(SMALL | CASES[case])
    rule, model = make_rule(config)
    numbers = config.make_numbers()
    images = jnp.asarray(hashed.make_images("mup", 16, 8).transpose(0, 2, 3, 1))
    labels = hashed.make_labels("mup", 16)
    variables = jax.jit(lambda: create_variables(model, 0, (8, 8, 3)))()
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(
            make_weights(jax.tree_util.keystr(path, simple=True, separator="/"), x),
            jnp.float32,
        ),
        variables["params"],
    )
    state = optimizer.create_state(rule, numbers, params)

    def compute_logits(params):
        apply = {"params": params, "batch_stats": variables["batch_stats"]}
        return model.apply(apply, images, train=True, mutable=["batch_stats"])[0]

    def compute_loss(params):
        logits = compute_logits(params)
        return optax.losses.softmax_cross_entropy_with_integer_labels(
            logits, labels
        ).mean()

    @jax.jit
    def step(params, state, number):
        loss, gradients = jax.value_and_grad(compute_loss)(params)
        clock = Clock(number, 20)
        params, state, _ = optimizer.update(
            rule, clock, numbers, gradients, params, state, 16
        )
        return params, state, loss

    losses = []
    for number in range(20):
        params, state, loss = step(params, state, jnp.int32(number))
        losses.append(float(loss))
    np.testing.assert_allclose(losses, GOLDEN[case]["losses"], rtol=1e-5)
    logits = compute_logits(params)[:4]
    np.testing.assert_allclose(logits, GOLDEN[case]["logits"], atol=2e-5)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_it_is_standard_at_the_base_width(name, rule):
    for width in (1.0, 2.0):
        options = {"model": name, "optimizer": rule, "width_multiplier": width}
        config = make_config(options, {"parametrization": "mup"})
        config = config.change({"mup_base_width": width})
        assert make_rule(config, shape=(32, 32, 3))[0].scales == ()


def test_a_run_at_the_base_width_has_the_bits_of_a_standard_one(tmp_path):
    few = {"epochs": 1, "widths": (4,), "width_multiplier": 2.0}
    plain = train_run(tmp_path / "plain", **few)
    same = train_run(tmp_path / "mup", **few, parametrization="mup", mup_base_width=2.0)
    other = train_run(tmp_path / "other", **few, parametrization="mup")
    assert plain["state_sha256"] == same["state_sha256"] != other["state_sha256"]


@pytest.mark.parametrize("name", ["simple_cnn", "wrn_10_2"])
def test_initial_weights_are_of_the_size_that_the_table_says(name):
    shape, narrow, wide = (32, 32, 3), {}, {}
    for found, width in ((narrow, 1.0), (wide, 4.0)):
        options = {"model": name, "parametrization": "mup", "width_multiplier": width}
        config = make_config(options, {"widths": (16, 32), "dense_widths": (32,)})
        rule, model = make_rule(config, 400, shape)
        numbers = config.make_numbers()
        make = jax.jit(lambda m=model, r=rule, n=numbers: create_state(m, shape, r, n))
        found |= flatten_paths(make().params)
    seen = set()
    for path, kernel in wide.items():
        base = narrow[path]
        if base.size < 400 or base.ndim < 2:
            continue
        inputs, outputs = kernel.shape[-2] / base.shape[-2], kernel.shape[-1]
        expected = inputs**-0.5 if outputs != base.shape[-1] else 1 / inputs
        seen.add(expected)
        # Of 432 numbers the deviation is known to 4 %.
        assert np.std(kernel) / np.std(base) == pytest.approx(expected, rel=0.12), path
    assert {0.5, 0.25} <= seen


@pytest.mark.parametrize("rule", ["sgd", "adamw", "nadamw", "lion"])
def test_weights_decay_alike_at_all_widths(rule):
    options = {"optimizer": rule, "learning_rate": 0.1, "weight_decay": 0.5}
    rule, model = make_rule(make_config(SMALL | options | {"momentum": 0.0}))
    numbers = make_config(SMALL | options | {"momentum": 0.0}).make_numbers()
    params = jax.jit(lambda: create_state(model, (8, 8, 3), rule, numbers))().params
    params = jax.tree.map(jnp.ones_like, params)
    nothing = jax.tree.map(jnp.zeros_like, params)
    state = optimizer.create_state(rule, numbers, params)
    clock = Clock(jnp.int32(0), 20)
    after = optimizer.update(rule, clock, numbers, nothing, params, state, 8)[0]
    for path, leaf in flatten_paths(after).items():
        np.testing.assert_allclose(leaf, 0.95, rtol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lamb"}, "--optimizer=lamb: the lengths of its steps follow"),
        ({"optimizer": "adabelief"}, "--optimizer=adabelief: its epsilon counts"),
        ({"optimizer": "muon"}, "--optimizer=muon: the lengths"),
        (
            {"optimizer": "adam", "weight_decay": 0.1},
            "--weight_decay=0.1: .* use adamw",
        ),
        ({"clip_norm": 1.0}, "--clip_norm=1: the size of the whole gradient"),
        ({"sam_rho": 0.1}, "--sam_rho=0.1: the size of the whole gradient"),
    ],
)
def test_what_does_not_keep_over_widths_is_refused_with_the_reason(options, message):
    with pytest.raises(UserError, match=f"^--parametrization=mup.*{message}"):
        optimizer.check(make_config(SMALL, options).optimizer)
    standard = {"parametrization": "standard"}
    optimizer.check(make_config(SMALL, options, standard).optimizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width_multiplier": 0.3}, "^--width_multiplier=0.3 makes 9.6 of 32 channels"),
        ({"width_multiplier": 2.0, "mup_base_width": 0.3}, "^--mup_base_width=0.3 mak"),
        (
            {"model": "wrn_10_1", "width_multiplier": 2.0},
            "^--mup_base_width=1: wrn_10_1 of that width has no stage1_block1/shortcut",
        ),
    ],
)
def test_widths_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_rule(make_config({"parametrization": "mup"}, options))


def test_it_travels_with_the_run(tmp_path):
    few = {"epochs": 1, "widths": (4,), "width_multiplier": 2.0}
    train_run(tmp_path / "run", **few, parametrization="mup")
    assert workdir.read_config(tmp_path / "run")["parametrization"] == "mup"
    with pytest.raises(UserError, match="parametrization"):
        train_run(tmp_path / "run", **few)
    tuned = train_run(
        tmp_path / "tuned",
        **few,
        parametrization="mup",
        init_from=str(tmp_path / "run"),
    )
    assert tuned["source_sha256"]
