"""Schedules, warm-ups, recipes, plateaus and averages as PyTorch and timm have them."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_optimizer import compute_rates

from cnn.config import make_config
from cnn.errors import UserError
from cnn.optim import optimizer, schedules, weight_averaging
from cnn.optim.optimizer import Rule
from cnn.optim.options import AveragingOptions
from cnn.optim.schedules import Clock

PATH = Path(__file__).parent / "golden" / "schedules.json"
GOLDEN = json.loads(PATH.read_text())
# 24 steps, 4 an epoch.
SHAPES = {
    "cosine_floor": {"schedule": "cosine", "final_rate_factor": 0.02},
    "polynomial": {"schedule": "polynomial", "polynomial_power": 2.5},
    "step_every": {
        "schedule": "step",
        "step_every_epochs": 1.25,
        "milestone_factor": 0.3,
    },
    "restarts": {
        "schedule": "cosine_restarts",
        "restart_epochs": 1.5,
        "final_rate_factor": 0.01,
    },
    "restarts_longer": {
        "schedule": "cosine_restarts",
        "restart_epochs": 0.75,
        "restart_factor": 2,
    },
    "one_cycle": {"schedule": "one_cycle"},
    "one_cycle_own": {
        "schedule": "one_cycle",
        "one_cycle_peak": 0.4,
        "one_cycle_start": 0.2,
        "one_cycle_end": 0.01,
    },
    "timm_poly": {
        "schedule": "polynomial",
        "polynomial_power": 1.5,
        "final_rate_factor": 0.1,
    },
}
V2 = {"warmup_kind": "before", "warmup_epochs": 5.0, "warmup_start_factor": 0.01}
RSB = {"warmup_kind": "instead", "warmup_epochs": 5.0, "schedule": "cosine"}
RECIPES = {
    "torchvision_v1": {
        "schedule": "step",
        "milestones": (30.0, 60.0),
        "learning_rate": 0.1,
        "epochs": 90,
    },
    "torchvision_v2": V2 | {"learning_rate": 0.5, "epochs": 600},
    "torchvision_constant": {
        "schedule": "step",
        "step_every_epochs": 7.0,
        "milestone_factor": 0.5,
        "warmup_kind": "constant",
        "warmup_epochs": 4.0,
        "warmup_start_factor": 0.1,
        "epochs": 30,
    },
}
RECIPES |= {
    name: RSB
    | {
        "learning_rate": rate,
        "warmup_start_factor": 1e-4 / rate,
        "final_rate_factor": 1e-6 / rate,
        "epochs": epochs,
    }
    for name, rate, epochs in (
        ("rsb_a1", 5e-3, 600),
        ("rsb_a2", 5e-3, 300),
        ("rsb_a3", 8e-3, 100),
    )
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_equals_the_library(name):
    found = compute_rates(24, 4, epochs=6, **SHAPES[name])
    np.testing.assert_allclose(found, GOLDEN["shapes"][name], rtol=1e-6, atol=1e-8)


def test_exponential_is_a_factor_an_epoch():
    options = {"schedule": "exponential", "exponential_factor": 0.8, "epochs": 6}
    expected = GOLDEN["shapes"]["exponential_epochs"]
    found = compute_rates(24, 4, rate_every="epoch", **options)
    np.testing.assert_allclose(found, np.repeat(expected, 4), rtol=1e-6)
    np.testing.assert_allclose(compute_rates(24, 4, **options)[::4], expected, 1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_the_published_rates(name):
    """Whatever the length of an epoch, the rate is that of the epoch."""
    options = {"rate_every": "epoch"} | RECIPES[name]
    expected = np.array(GOLDEN["recipes"][name])
    found = compute_rates(3 * len(expected), 3, **options).reshape(-1, 3)
    assert np.ptp(found, axis=1).max() == 0
    # Without a floor the last rates have the digits that 1 + cos leaves them.
    floor = 1e-7 if name == "torchvision_v2" else 0
    atol = floor * expected.max()
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=atol)


def test_convnext_has_the_published_rates():
    """By steps, the warm-up before the schedule: timm's warmup_prefix."""
    places, expected = (GOLDEN["recipes"][x] for x in ("convnext_epochs", "convnext"))
    found = compute_rates(
        300 * 12,
        12,
        epochs=300,
        learning_rate=4e-3,
        warmup_kind="before",
        warmup_epochs=20.0,
        final_rate_factor=1e-6 / 4e-3,
    ).reshape(300, 12)
    np.testing.assert_allclose(found[places], expected, rtol=1e-6)


def test_warmup_starts_where_it_is_told():
    plain = compute_rates(epochs=4)
    found = compute_rates(epochs=4, warmup_epochs=2.0, warmup_start_factor=0.4)
    rise = np.minimum(1, np.arange(1, 13) / 6)
    np.testing.assert_allclose(found, plain * (0.4 + 0.6 * rise), rtol=1e-6)


@pytest.mark.parametrize("kind, power", [("linear", 1.0), ("sqrt", 0.5)])
@pytest.mark.parametrize("batch_size", [32, 512])
def test_rate_follows_the_batch_size(kind, power, batch_size):
    config = make_config(
        {"schedule": "constant", "rate_scaling": kind, "rate_scaling_base": 64.0}
    )
    rule, numbers = Rule(config.optimizer, config.schedule), config.make_numbers()
    clock = Clock(jnp.int32(0), 3)
    found = optimizer.compute_learning_rate(rule, clock, numbers, batch_size)
    np.testing.assert_allclose(found, 0.1 * (batch_size / 64) ** power, rtol=1e-6)


def test_one_cycle_cycles_momentum():
    options = {"schedule": "one_cycle", "momentum": 0.95, "adam_beta1": 0.95}
    config = make_config({"epochs": 6}, options)
    cycle = jax.vmap(
        lambda step, numbers: schedules.cycle_momentum(
            config.schedule, Clock(step, 4), numbers
        ),
        in_axes=(0, None),
    )
    found = cycle(jnp.arange(24), config.make_numbers())
    for name, other in (("momentum", "momentum"), ("adam_beta1", "beta1")):
        expected = GOLDEN["shapes"][other]
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-6)
    off = make_config({"one_cycle_momentum": 0.0}, options).make_numbers()
    assert schedules.cycle_momentum(config.schedule, None, off) is off


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_one_cycle_updates_as_pytorch(rule):
    options = {"optimizer": rule, "schedule": "one_cycle", "learning_rate": 0.05}
    options |= {"momentum": 0.95, "nesterov": False, "adam_beta1": 0.95, "epochs": 6}
    config = make_config(options)
    numbers = config.make_numbers()
    static = Rule(config.optimizer, config.schedule)
    params = {"w": jnp.float32([1.0, -2.0, 0.5, 3.0])}
    state = optimizer.create_state(static, numbers, params)

    @jax.jit
    def step(params, state, i):
        gradients = {"w": 2 * (params["w"] - 1)}
        clock = Clock(i, 4)
        return optimizer.update(
            static, clock, numbers, gradients, params, state, batch_size=4
        )[:2]

    for i, expected in enumerate(GOLDEN[f"one_cycle_{rule}"]):
        params, state = step(params, state, jnp.int32(i))
        np.testing.assert_allclose(params["w"], expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "name, epochs, options",
    [
        ("torchvision_average", 4, {"ema_start_epochs": 2.0}),
        ("torchvision_average_cold", 2, {}),
    ],
)
def test_average_equals_torchvision(name, epochs, options):
    """Every third step of an epoch of seven; parameters and statistics alike."""
    config = make_config(
        {"ema_decay": 0.9, "ema_every_steps": 3, "ema_warmup": "none"}, options
    )
    numbers, average = config.make_numbers(), {"w": jnp.float32([1.0, 0.0])}
    for i, expected in enumerate(GOLDEN[name]):
        weights = {"w": jnp.float32([i + 2, -i - 3])}
        clock = Clock(jnp.int32(i), 7)
        _, average = weight_averaging.update(
            config.averaging, None, clock, numbers, average, weights
        )
        np.testing.assert_allclose(average["w"], expected, rtol=1e-6)
    assert i == 7 * epochs - 1


@pytest.mark.parametrize(
    "name, options",
    [
        ("timm_decays", {"ema_decay": 0.9998, "ema_warmup": "none"}),
        ("timm_decays_warm", {"ema_start_epochs": 0.5, "ema_warmup": "power"}),
        (
            "timm_decays_slow",
            {
                "ema_warmup": "power",
                "ema_warmup_steps": 3.0,
                "ema_warmup_power": 0.75,
            },
        ),
    ],
)
def test_decays_equal_timm(name, options):
    config = make_config({"ema_decay": 0.9}, options)
    numbers, expected = config.make_numbers(), GOLDEN[name]
    decays = jax.vmap(
        lambda step: weight_averaging.compute_decay(
            config.averaging, Clock(step, 10), numbers
        )
    )(jnp.arange(len(expected)))
    np.testing.assert_allclose(decays, expected, rtol=1e-6, atol=1e-7)


def test_ramp_begins_when_the_copy_ends(make_numbers):
    numbers = make_numbers(ema_decay=0.5, ema_start_epochs=1.0)
    options = AveragingOptions(ema_decay=0.5)
    found = [
        weight_averaging.compute_decay(options, Clock(jnp.int32(i), 4), numbers)
        for i in (0, 4, 5, 7, 40)
    ]
    np.testing.assert_allclose(found, [0, 0, 2 / 11, 4 / 13, 0.5], rtol=1e-6)


def decay_by_hand(step, steps, share=0.2, power=0.5, floor=0.0):
    decay = max(2, round(share * steps))
    passed = max(0, step - (steps - decay)) / decay
    return floor + (1 - floor) * (1 - passed**power)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"share": 0.5, "power": 1.0},
        {"share": 0.33, "power": 2.5, "floor": 0.1},
        {"share": 0.001},
        {"share": 0.999, "power": 1.0},
    ],
    ids=str,
)
def test_stable_then_decay_is_its_formula(options):
    names = {"share": "decay_share", "power": "decay_power"}
    names["floor"] = "final_rate_factor"
    given = {names[name]: x for name, x in options.items()}
    given |= {"schedule": "stable_then_decay", "epochs": 6}
    found = compute_rates(24, 4, **given, learning_rate=1.0)
    expected = [decay_by_hand(step, 24, **options) for step in range(24)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    # Not nearly 1: runs of several lengths share these steps to the bit.
    assert all(x == 1 for x, y in zip(found, expected, strict=True) if y == 1)
    found = compute_rates(24, 4, **given, learning_rate=1.0, rate_every="epoch")
    expected = [decay_by_hand(step // 4, 6, **options) for step in range(24)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["product", "before", "instead", "constant"])
def test_stable_then_decay_has_the_warm_up_of_the_others(kind):
    options = {"warmup_kind": kind, "warmup_epochs": 1.5, "epochs": 6}
    options |= {"schedule": "stable_then_decay", "warmup_start_factor": 0.25}
    found = compute_rates(24, 4, **options, learning_rate=1.0)
    begins = 6 if kind in ("before", "constant") else 0
    wanted = [decay_by_hand(max(i - begins, 0), 24 - begins) for i in range(24)]
    np.testing.assert_allclose(found[6:], wanted[6:], rtol=1e-6)
    rising = {"constant": np.full(6, 0.25), "product": 0.25 + 0.125 * np.arange(1, 7)}
    linear = 0.25 + 0.125 * np.arange(6)
    np.testing.assert_allclose(found[:6], rising.get(kind, linear), rtol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"warmup_epochs": 1.0, "warmup_kind": "constant"}, "would keep the rate at 0"),
        ({"schedule": "one_cycle", "momentum": 0.8}, "is above --momentum=0.8"),
        (
            {"schedule": "one_cycle", "optimizer": "adamw", "adam_beta1": 0.5},
            "is above --adam_beta1=0.5",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        schedules.check(make_config(options))
    schedules.check(make_config({"schedule": "one_cycle", "momentum": 0.0}))
