"""--minutes: a rehearsal fixes the epochs; from then on it is the run of so many."""

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
from fixtures_runs import ROOT, TINY, make_flags, run_main, train_run
from test_readme import check_command, list_commands

from cnn import config as config_module
from cnn import train
from cnn.errors import UserError
from cnn.runtime import settings
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal
from cnn.training import budget, loop, rehearsal
from cnn.training.budget import Cost

PLAIN = Cost(0, entry=1.0, epoch=10.0, evaluation=2.0, end=3.0, steps=9)
LENGTH = 5  # steps of an epoch of TINY
FEW = {"checkpoint_every_epochs": 1.0, "log_every_steps": 0}  # files to write


class Clock:
    """A clock by which something takes some seconds more each time that it is read."""

    def __init__(self, seconds):
        """Begin at 0."""
        self.now, self.seconds = 0.0, seconds

    def __call__(self):
        """Return the time."""
        self.now += self.seconds
        return self.now


@pytest.fixture
def run(monkeypatch, no_pauses):
    """Return what trains a tiny run in some minutes, on a machine of some speed."""

    def train_in_time(directory, minutes, seconds=1.0, terminal=None, **changes):
        monkeypatch.setattr(budget, "clock", Clock(seconds))
        options = TINY | FEW | changes | {"minutes": minutes}
        preset = config_module.load_preset("digits")
        config = config_module.make_config(preset, options)
        return train.train(config, Path(directory), terminal or Terminal(), 0.0)

    return train_in_time


def test_as_many_epochs_are_chosen_as_end_in_time():
    assert budget.choose_epochs([PLAIN], 6.0 + 30.0) == 3
    assert budget.choose_epochs([PLAIN], 5.9 + 30.0) == 2
    assert budget.choose_epochs([PLAIN], 15.9) == 0
    assert budget.choose_epochs([PLAIN], -5.0) == 0
    assert budget.choose_epochs([PLAIN], 1e9) == 1_000_000, "the most that a run has"


def test_each_phase_counts_its_own_epochs():
    costs = [PLAIN, Cost(3, 5.0, 100.0, 2.0, 7.0, 9), Cost(5, 0.0, 1.0, 2.0, 3.0, 9)]
    random = np.random.default_rng(0)
    for few in (costs[:1], costs[:2], costs):
        for epochs in (1, 2, 3, 4, 5, 6, 50):
            seconds = budget.predict_seconds(few, epochs)
            assert budget.choose_epochs(few, seconds + 1e-9) == epochs
            found = budget.choose_epochs(few, seconds * random.uniform(0.5, 1))
            assert found <= epochs
    # Evaluation and end, two entries, three epochs, and two.
    assert budget.predict_seconds(costs[:2], 5) == 2 + 7 + 1 + 5 + 30 + 200


def test_whole_epochs_count_without_the_first_two():
    marks = [(1, 50.0), (5, 60.0), (6, 62.0), (10, 70.0), (11, 71.0), (15, 82.0)]
    marks += [(20, 92.0)]
    each = budget.measure_epoch(marks, 5, (1, 1.0), (1e9, 1e9))
    assert each == 11.0
    # One that saved the best takes longer, and does not count.
    longer = [*marks, (25, 132.0)]
    assert budget.measure_epoch(longer, 5, (1, 1.0), (1e9, 1e9)) == 12.0
    # Two epochs are no whole number of three, between evaluations: step by step, from
    # 50 to 60 seconds, with what comes beside.
    each = budget.measure_epoch(marks, 5, (3, 0.5), (6.0, 2.0))
    assert each == 5 * 2.5 + 6 / 3 + 2 / 0.5
    assert budget.measure_epoch(marks, 5, (2, 1.0), (1e9, 1e9)) == 11.0
    # Never a checkpoint, and epochs of one step.
    alone = [(1, 50.0), (2, 53.0), (3, 56.0)]
    assert budget.measure_epoch(alone, 1, (1, 10_000.0), (1.0, 0.0)) == 4.0


def test_it_is_the_run_of_so_many_epochs(run, tmp_path, capsys):
    result = run(tmp_path / "budget", 0.6)
    found, epochs = result["budget"], result["epochs"]
    assert found == budget.read(tmp_path / "budget")
    assert found["epochs"] == epochs > 1 and found["minutes"] == 0.6
    (phase,) = found["phases"]
    # A second for each step, for an evaluation and for a checkpoint.
    assert phase["epoch_seconds"] == LENGTH + 1 + 1
    left = 0.6 - found["predicted_minutes"]
    assert 0 <= left < phase["epoch_seconds"] / 60
    options = json.loads((tmp_path / "budget" / "config.json").read_text())
    assert options["epochs"] == epochs and options["minutes"] == 0.6
    assert not (tmp_path / "budget" / ".rehearsal").exists()
    told = capsys.readouterr()
    assert f"run of --epochs={epochs}, to the bit" in told.out
    assert "the run goes on without it" not in told.out + told.err, "no tracker"
    alone = train_run(tmp_path / "alone", epochs=epochs, **FEW)
    assert alone["state_sha256"] == result["state_sha256"]
    assert "budget" not in alone


class Stopper(Terminal):
    """A terminal at which somebody presses Ctrl-C after some step."""

    def __init__(self, step):
        """Wait for the step."""
        super().__init__()
        self.step = step

    def update_bar(self, step, *args):
        """Send the signal."""
        if step >= self.step:
            signal.raise_signal(signal.SIGINT)


def test_a_resume_takes_what_was_decided(run, tmp_path, capsys):
    whole = run(tmp_path / "whole", 0.6)
    for step, seconds in ((2, 1.0), (8, 0.01)):  # then on a faster machine
        with pytest.raises(Interrupted):
            run(tmp_path / "stopped", 0.6, seconds, Stopper(step))
    result = run(tmp_path / "stopped", 0.6, 100.0)
    assert result["state_sha256"] == whole["state_sha256"]
    assert result["budget"] == whole["budget"]
    (tmp_path / "stopped" / "budget.json").unlink()
    (tmp_path / "stopped" / "result.json").unlink()
    assert run(tmp_path / "stopped", 0.6)["epochs"] == whole["epochs"]
    capsys.readouterr()
    assert run(tmp_path / "stopped", 0.6)["epochs"] == whole["epochs"]
    assert "ended     after" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--minutes=0.6 \(now 2.0\)\. Give"):
        run(tmp_path / "stopped", 2.0)


def test_too_short_a_budget_names_the_smallest(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "_rehearse_phase", lambda *args: PLAIN)
    with pytest.raises(UserError, match="--minutes=0.1 is less than one epoch") as told:
        run(tmp_path / "short", 0.1)
    assert not (tmp_path / "short").exists()
    least = float(str(told.value).split("; give ")[1].split()[0])
    monkeypatch.setattr(loop, "run_loop", lambda *args: 1 / 0)  # what comes after
    # By this clock no second attempt is faster, as it is where programs are cached.
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "short", least)
    assert budget.read(tmp_path / "short")["epochs"] == 1


def test_what_waits_for_a_later_epoch_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "_rehearse_phase", lambda *args: PLAIN)
    wanted = "--minutes=0.7 is [0-9]+ epochs: --warmup_epochs=90 with --epochs="
    with pytest.raises(UserError, match=wanted):
        run(tmp_path, 0.7, warmup_epochs=90.0)


def test_phases_beyond_the_budget_are_not_rehearsed(run, tmp_path, monkeypatch):
    seen, costs = [], {0: 1.0, 2: 4.0, 9: 1e-3}

    def rehearse(setup, first_epoch, *rest):
        seen.append((first_epoch, setup.phases[0].image_size))
        return Cost(first_epoch, 0.0, costs[first_epoch], 0.0, 0.0, 1)

    monkeypatch.setattr(rehearsal, "_rehearse_phase", rehearse)
    sizes = {"image_size_schedule": ("0:6", "2:7", "9:8"), "model": "simple_cnn"}
    with pytest.raises(UserError, match=r"is \d epochs: .*9:8"):
        run(tmp_path / "few", 0.3, **sizes)
    assert seen == [(0, 6), (2, 7)]
    monkeypatch.setattr(loop, "run_loop", lambda *args: 1 / 0)  # what comes after
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "more", 1.0, **sizes)
    assert seen[2:] == [(0, 6), (2, 7), (9, 8)]
    found = budget.read(tmp_path / "more")
    assert found["epochs"] > 9
    assert [phase["first_epoch"] for phase in found["phases"]] == [0, 2, 9]


def test_a_rehearsal_that_is_stopped_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "Stopwatch", lambda minutes: Stopper(2))
    with pytest.raises(Interrupted):
        run(tmp_path, 1.0)
    assert not (tmp_path / ".rehearsal").exists()
    assert not (tmp_path / "config.json").exists()


def test_cached_features_are_rehearsed_too(run, trained, tmp_path):
    options = {"init_from": str(trained), "train_only": ("head",), "dropout_rate": 0.0}
    options |= {"cache_features": "always", "freeze_statistics": True}
    result = run(tmp_path / "budget", 0.5, **options)
    options |= FEW | {"epochs": result["epochs"]}
    alone = train_run(tmp_path / "alone", **options)
    assert alone["state_sha256"] == result["state_sha256"]


def test_epochs_and_minutes_exclude_each_other(tmp_path, capsys):
    flags = make_flags({n: x for n, x in TINY.items() if n != "epochs"})
    where = [f"--workdir={tmp_path}", *flags]
    assert run_main("--minutes=1", "--epochs=3", *where) == 2
    assert "--epochs=3 would have no effect" in capsys.readouterr().err
    assert run_main("--minutes=1", "--mode=describe", *where) == 2
    assert "--minutes=1.0 would have no effect" in capsys.readouterr().err


def test_the_page_does_what_it_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *args: [PLAIN])
    monkeypatch.setattr(budget, "clock", lambda: settings.BEGAN + 600 - 25.5)
    page = (ROOT / "docs" / "budget.md").read_text(encoding="utf-8")
    run, *sweeps = list_commands(page)
    small = ["--widths=4,4", "--train_examples=100", "--workdir=run"]
    assert run[:2] == ["python", "main.py"] and len(sweeps) == 2
    assert run_main(*run[2:], *small) == 0
    told = capsys.readouterr().out
    assert "--minutes=10 was decided to be the run of --epochs=1" in told
    for sweep in sweeps:  # tests/sweep/test_sweep_budget.py runs one
        assert sweep[:2] == ["python", "main.py"]
        check_command(sweep[2:], capsys)


@pytest.mark.parametrize("least", [0.0123, 0.12, 1.0, 99.5, 1234.0])
def test_the_smallest_budget_is_rounded_up(least):
    given = budget._round_up(least)
    assert least <= given <= least * 1.1 + 1e-9
    assert given == float(f"{given:.2g}") or math.isclose(given, float(f"{given:.2g}"))
