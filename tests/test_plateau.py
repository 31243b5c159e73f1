"""A rate that falls when validation no longer gets better, resumed, and in sweeps."""

import json
import math

import numpy as np
import pytest
from fixtures_runs import TINY, make_setup, read_lines, train_run
from test_resume import Stopper
from test_schedules import GOLDEN

from cnn.config import make_config
from cnn.errors import UserError
from cnn.optim import plateau
from cnn.optim.options import ScheduleOptions
from cnn.optim.plateau import Plateau
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.sweep import choose
from cnn.sweep.batch import start_batch
from cnn.sweep.trials import make_trial

METRICS = GOLDEN["plateau"]["metrics"]
# Every evaluation after the first one halves the rate.
OFTEN = {"schedule": "plateau", "plateau_patience": 0, "plateau_factor": 0.5}
OFTEN |= {"plateau_threshold": 0.9, "select_by": "loss", "epochs": 4}
OFTEN |= {"model": "logistic_regression"}


@pytest.mark.parametrize(
    "name, options",
    [
        ("accuracy", {"plateau_factor": 0.5, "plateau_patience": 2}),
        (
            "loss",
            {
                "plateau_factor": 0.6,
                "plateau_patience": 1,
                "plateau_threshold": 0.01,
                "plateau_cooldown": 2,
                "plateau_floor": 0.05,
            },
        ),
    ],
)
def test_factors_equal_pytorch(name, options):
    is_loss, state, found = name == "loss", Plateau(), []
    for metric in METRICS:
        value = math.exp(-metric) if is_loss else metric
        state = plateau.note(ScheduleOptions(**options), state, value, is_loss=is_loss)
        found.append(state.factor)
    np.testing.assert_allclose(found, GOLDEN["plateau"][name], rtol=1e-12)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_counts_as_no_better(odd):
    options = ScheduleOptions(plateau_patience=1)
    for is_loss in (False, True):
        state = plateau.note(options, Plateau(), odd, is_loss=is_loss)
        assert (state.best, state.bad) == (None, 1)
        later = plateau.note(options, state, 0.5, is_loss=is_loss)
        assert (later.best, later.bad) == (0.5, 0)
        stored = plateau.note(options, Plateau(best=odd), 0.5, is_loss=is_loss)
        assert stored.best == 0.5


def test_decoupled_decay_falls_with_the_rate():
    options = {"learning_rate": 2.0, "weight_decay": 0.5}
    for decoupled, decay in ((False, 0.5), (True, 0.05)):
        config = make_config(options, {"decoupled_rates": decoupled})
        lowered = plateau.lower(config, Plateau(factor=0.1)).optimizer
        assert lowered.learning_rate == pytest.approx(0.2)
        assert lowered.weight_decay == pytest.approx(decay)
    assert plateau.lower(config, None) is config


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """Return the directory of a run whose rate was halved twice before its end."""
    directory = tmp_path_factory.mktemp("plateau") / "run"
    train_run(directory, **OFTEN)
    return directory


def test_a_run_lowers_its_rate(lowered):
    lines = read_lines(lowered)
    rates = [x["learning_rate"] for x in lines if "learning_rate" in x]
    expected = np.repeat([0.05, 0.05, 0.025, 0.0125], 5)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    factors = [x["rate_factor"] for x in lines if "rate_factor" in x]
    assert factors == [1.0, 0.5, 0.25, 0.125], "the first evaluation is before any step"


@pytest.mark.parametrize("step", [10, 12])
def test_it_is_resumed_to_the_same_bits(lowered, tmp_path, no_pauses, step):
    with pytest.raises(Interrupted):
        train_run(tmp_path, Stopper(step), **OFTEN)
    result = train_run(tmp_path, **OFTEN)
    expected = json.loads((lowered / "result.json").read_text())
    assert result["state_sha256"] == expected["state_sha256"]
    assert read_lines(tmp_path) == read_lines(lowered)


@pytest.mark.parametrize("name", ["loop", "map"])
def test_each_trial_has_its_own(lowered, name):
    options = [OFTEN, OFTEN | {"plateau_factor": 0.9}]
    base = make_config(TINY, OFTEN)
    trials = [make_trial(i, x, base) for i, x in enumerate(options)]
    executor = choose.make_executor(name, make_setup(TINY, OFTEN), Stop(), 2)
    batch = start_batch(executor, trials)
    batch.advance(4, lambda batch: None)
    factors = [one.counters.plateau.factor for one in batch.progress]
    np.testing.assert_allclose(factors, [0.125, 0.9**3])
    (row, _), _ = batch.conclude()
    solo = json.loads((lowered / "result.json").read_text())
    assert row["test_loss"] == pytest.approx(solo["test_loss"], rel=1e-4)
    if name == "loop":
        assert row["state_sha256"] == solo["state_sha256"]


def test_it_needs_validation_data():
    with pytest.raises(UserError, match="--schedule=plateau looks at validation data"):
        make_setup(TINY, OFTEN, {"validation_fraction": 0.0})
