"""The range test: which rates are tried, what is suggested, and that no run suffers."""

import json

import numpy as np
import pytest
from fixtures_runs import TINY, make_flags, run_main
from PIL import Image

from cnn import find_rate
from cnn.config import FindRateOptions, make_config
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.training import progress as training_progress

FEW = {"model": "logistic_regression", "widths": (4,), "ema_decay": 0.0}
FEW |= {"find_rate_min": 1e-3, "find_rate_max": 1.0, "find_rate_steps": 20}
OPTIONS = FindRateOptions()


def make_curve(lowest, steps=200):
    """Return rates and losses that fall fastest at a tenth of the lowest's rate."""
    rates = np.geomspace(1e-5, 10, steps)
    place = np.log10(rates / lowest)
    falls = 2.5 - 2.2 / (1 + np.exp(-5 * (place + 1)))
    return rates, falls + np.where(place > 0, 3 * place**2, 0)


@pytest.mark.parametrize("lowest", [0.01, 0.3])
def test_the_marks_lie_where_the_curve_has_them(lowest):
    rates, losses = make_curve(lowest)
    noise = np.random.default_rng(0).normal(size=len(losses))
    found = find_rate.suggest(rates, losses + 0.05 * noise, OPTIONS)
    assert 0.6 < found["lowest"] / lowest < 1.6
    assert 0.6 < found["steepest"] / (lowest / 10) < 1.6
    assert found["suggestion"] == pytest.approx(found["lowest"] / 3, rel=0.05)


def test_what_is_not_finite_is_not_drawn():
    rates, losses = make_curve(0.1)
    losses[150:] = np.nan
    found = find_rate.suggest(rates, losses[:152], OPTIONS)
    assert len(found["rates"]) == len(found["smoothed"]) == 150
    assert found["diverged"] and np.isfinite(found["losses"]).all()


def test_a_loss_that_never_falls_has_no_rate():
    rates, losses = make_curve(1e-7)
    with pytest.raises(UserError, match="does not fall at any rate"):
        find_rate.suggest(rates, losses, OPTIONS)


def test_it_diverges_by_its_recent_losses():
    falling = list(np.linspace(2, 0.5, 40))
    assert not find_rate.has_diverged(falling)
    assert not find_rate.has_diverged([*falling, 3.0]), "one bad batch"
    assert find_rate.has_diverged([*falling, *[9.0] * 5])
    assert find_rate.has_diverged([*falling, float("nan")])
    assert not find_rate.has_diverged([])


def test_a_test_longer_than_the_run_does_not_diverge_by_lookahead(tmp_path):
    options = FEW | {"epochs": 1, "find_rate_max": 1e-2, "find_rate_steps": 40}
    options |= {"lookahead_decay": 0.95, "lookahead_every_steps": 2}
    config = make_config(TINY, options)
    found = find_rate.find_rate(config, tmp_path, Terminal())
    assert len(found["losses"]) == 40 and not found["diverged"]


def test_each_step_has_its_rate_whatever_the_schedule(tmp_path, monkeypatch):
    """The run's own warm-up, plateau and ends of epochs do not touch it."""
    rates, take_epoch = [], training_progress.take_epoch

    def watch(*args, **more):
        for ids, step_metrics in take_epoch(*args, **more):
            rates.extend(step_metrics["learning_rate"].tolist())
            yield ids, step_metrics

    monkeypatch.setattr(training_progress, "take_epoch", watch)
    config = make_config(TINY, {"schedule": "one_cycle", "warmup_epochs": 1.0}, FEW)
    found = find_rate.find_rate(config, tmp_path, Terminal())
    np.testing.assert_allclose(rates, np.geomspace(1e-3, 1, 20), rtol=1e-6)
    np.testing.assert_allclose(found["rates"], rates, rtol=1e-6)
    assert json.loads((tmp_path / "find_rate.json").read_text()) == found


def test_it_leaves_a_run_alone(tmp_path, capsys):
    """It takes the run's own command line, and the run is not noticed to be there."""
    run = make_flags(
        {n: x for n, x in TINY.items() if n in ("train_examples", "epochs")}
    )
    run += ["--model=logistic_regression", f"--workdir={tmp_path}"]
    assert run_main(*run) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run_main(*run, "--mode=find_rate", "--find_rate_steps=20") == 0
    found = json.loads((tmp_path / "find_rate.json").read_text())
    assert f"--learning_rate={found['suggestion']:g}" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    new = {path.name for path in after.keys() - before.keys()}
    assert new == {"find_rate.json", "find_rate.png"}
    assert {path: after[path] for path in before} == before
    with Image.open(tmp_path / "find_rate.png") as image:
        assert min(image.size) > 300


def test_bounds_are_checked(tmp_path):
    config = make_config({"find_rate_min": 1.0, "find_rate_max": 0.5})
    with pytest.raises(UserError, match="--find_rate_min=1 is not below"):
        find_rate.find_rate(config, tmp_path, Terminal())
