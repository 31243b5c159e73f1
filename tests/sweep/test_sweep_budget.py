"""--minutes of a sweep: its first draws say how many there are."""

import json

import pytest
from fixtures_runs import run_main
from test_budget import Clock

from cnn.checkpoints import workdir
from cnn.config import make_config
from cnn.errors import UserError
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal
from cnn.sweep import budget, outcome, searches, space, sweep
from cnn.training import budget as training_budget

SMALL = {"model": "logistic_regression", "validation_fraction": 0.25, "epochs": 1}
SMALL |= {"train_examples": 40, "batch_size": 20, "executor": "loop"}
SMALL |= {"sweep": "learning_rate=loguniform(1e-3,1)"}


@pytest.fixture
def run(monkeypatch):
    """Return what runs a small sweep, on a machine of some speed; returns its rows."""
    monkeypatch.setattr(outcome, "conclude", lambda *args: 0)

    def run_sweep(directory, seconds=1.0, **changes):
        monkeypatch.setattr(training_budget, "clock", Clock(seconds))
        given = SMALL | changes
        sweep.sweep(make_config(given), directory, Terminal(), given, 0.0)
        lines = (directory / "sweep" / "trials.jsonl").read_text().splitlines()
        rows = sorted(map(json.loads, lines), key=lambda row: row["trial"])
        return [(row["options"], row["state_sha256"]) for row in rows]

    return run_sweep


def test_it_is_the_sweep_of_so_many_draws(run, tmp_path, capsys):
    # Two rounds take 5 seconds by this clock, and each 2: two more end in 9.
    found = run(tmp_path / "budget", minutes=0.15)
    stored = workdir.read_config(tmp_path / "budget" / "sweep")
    assert stored["trials"] == 4 and len(found) == 4
    assert "to be the sweep of --trials=4" in capsys.readouterr().out
    assert run(tmp_path / "alone", trials=4) == found
    # Where not even a second round ends in time, the first is the sweep.
    assert run(tmp_path / "short", minutes=0.01) == found[:1]
    assert run(tmp_path / "most", minutes=9.0, max_trials=3) == found[:3]


def test_a_resume_takes_what_was_decided(run, tmp_path, monkeypatch):
    whole, grid, calls = run(tmp_path / "whole", minutes=0.15), searches.run_grid, []

    def stop(session, groups):
        calls.append(len([trial for group in groups for trial in group]))
        if len(calls) in stops:
            raise Interrupted(2)
        grid(session, groups)

    monkeypatch.setattr(searches, "run_grid", stop)
    for stops, ran in (({2}, [1, 2]), ({4}, [1, 2, 3, 5]), ({}, [5])):
        calls.clear()
        try:
            # Stopped after a round, it measures two others.
            found = run(tmp_path / "stopped", 0.01 if not stops else 0.5, minutes=0.1)
        except Interrupted:
            assert stops
        assert calls == ran
    assert found[:4] == whole and len(found) == 5
    with pytest.raises(UserError, match=r"--minutes=0.1 \(now 0.2\)"):
        run(tmp_path / "stopped", minutes=0.2)


def test_a_space_without_more_to_draw_ends(run, tmp_path):
    found = run(tmp_path, minutes=9.0, sweep="learning_rate=choice(0.1,0.2,0.3)")
    assert len(found) == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sweep": "learning_rate=0.1,0.2"}, "--minutes=1 counts draws"),
        ({"trials": 3}, "--trials=3 would have no effect"),
        ({"search": "optuna", "trials": 3}, "would have no effect"),
        ({"sweep": "minutes=uniform(1,2)"}, "minutes is no option that can be swept"),
        ({"halving": 2}, "--minutes=1.* would have no effect"),
    ],
)
def test_what_contradicts_it_is_refused(run, tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        run(tmp_path, minutes=1.0, **changes)


def test_a_trial_alone_has_epochs_and_no_minutes(run, tmp_path):
    run(tmp_path, minutes=0.01)
    options = sweep.read_trial(f"{tmp_path}:0")
    assert options["minutes"] == 0 and options["epochs"] == 1
    flags = [f"--from_trial={tmp_path}:0", f"--workdir={tmp_path / 'alone'}"]
    assert run_main(*flags) == 0
    result = json.loads((tmp_path / "alone" / "result.json").read_text())
    row = json.loads((tmp_path / "sweep/trials.jsonl").read_text().splitlines()[0])
    assert result["state_sha256"] == row["state_sha256"]


@pytest.mark.parametrize(
    ("changes", "draws"),
    [({}, 1), ({"executor": "map"}, 8), ({"trials_at_once": 7, "executor": "map"}, 3)],
)
def test_a_round_is_what_runs_at_once(tmp_path, changes, draws):
    options = SMALL | {"minutes": 1.0} | changes
    text = "learning_rate=loguniform(1e-3,1); seed=0:2"
    points = space.parse_space(text, sweep.select_sweepable())
    config = budget.prepare(make_config(options), points, tmp_path)
    assert len(budget.plan_round(config, points, 1)) == 2 * draws
    assert len(budget.plan_round(config, points, 3)) == 6 * draws
