"""Settings compared over seeds, and the rungs of halving."""

import numpy as np
import pytest
from scipy import stats

from cnn.errors import UserError
from cnn.progress import Terminal
from cnn.sweep import halving
from cnn.sweep.keep import choose_kept
from cnn.sweep.statistics import compute_interval, find_best_trial, rank_settings


def make_record(number, rate, seed, accuracy, status="finished"):
    record = {
        "trial": number,
        "options": {"learning_rate": rate, "widths": [4, 8], "seed": seed},
        "status": status,
        "trained_epochs": 3,
        "curve": [{"epoch": 3, "validation_accuracy": accuracy}],
    }
    if status == "finished":
        record |= {"validation_accuracy": accuracy, "validation_loss": 1 - accuracy}
        record |= {"test_accuracy": accuracy - 0.1, "test_loss": 2.0}
    return record


RECORDS = [
    make_record(0, 0.1, 0, 0.5),
    make_record(1, 0.1, 1, 0.7),
    make_record(2, 0.1, 2, 0.6),
    make_record(3, 0.2, 0, 0.9),
    make_record(4, 0.2, 1, 0.8),
    make_record(5, 0.2, 2, 0.85),
    make_record(6, 0.3, 0, 0.99),
    make_record(7, 0.3, 1, 0.0, "failed"),
]


def test_interval_is_students():
    values = [0.5, 0.7, 0.6]
    mean, spread, low, high = compute_interval(values)
    assert mean == pytest.approx(0.6) and spread == pytest.approx(0.1)
    expected = stats.t.interval(0.95, 2, 0.6, stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert (high - low) / 2 == pytest.approx(4.30265 * 0.1 / np.sqrt(3), rel=1e-5)
    assert compute_interval([0.5]) == (0.5, None, None, None)
    assert compute_interval([]) == (None,) * 4


def test_settings_are_ranked_by_their_mean_and_paired():
    rows = rank_settings(RECORDS, "accuracy")
    assert [row["options"]["learning_rate"] for row in rows] == [0.2, 0.1, 0.3]
    best, second, failed = rows
    assert best["n"] == 3 and best["trials"] == [3, 4, 5]
    assert best["difference"] == 0.0 and best["test_mean"] == pytest.approx(0.75)
    differences = [-0.4, -0.1, -0.25]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    found = second["difference_low"], second["difference_high"]
    assert second["difference"] == pytest.approx(-0.25)
    assert found == pytest.approx(tuple(expected))
    assert failed["failed"] == 1 and failed["n"] == 1
    assert failed["difference"] == pytest.approx(0.09)


def test_the_best_trial_is_of_the_best_setting():
    assert find_best_trial(RECORDS, "accuracy")["trial"] == 3
    assert find_best_trial(RECORDS, "loss")["trial"] == 3
    assert find_best_trial([RECORDS[7]], "accuracy") is None


def test_what_is_kept_may_yet_be_the_best():
    setting = (("learning_rate", 0.1), ("widths", (4, 8)))
    assert choose_kept(RECORDS, set(), "accuracy") == {3}
    assert choose_kept(RECORDS, {setting}, "accuracy") == {3, 1}


@pytest.mark.parametrize(
    "settings, epochs, factor, expected",
    [
        (27, 9, 3, [(1, 27), (3, 9), (9, 3)]),
        (16, 8, 2, [(1, 16), (2, 8), (4, 4), (8, 2)]),
        (10, 30, 3, [(3, 10), (10, 4), (30, 2)]),
        (2, 100, 3, [(100, 2)]),
    ],
)
def test_rungs(settings, epochs, factor, expected):
    rungs = halving.plan_rungs(settings, epochs, factor)
    assert [(rung.epochs, rung.settings) for rung in rungs] == expected


def test_rungs_end_where_there_is_an_evaluation():
    rungs = halving.plan_rungs(27, 18, 3, every=2)
    assert [rung.epochs for rung in rungs] == [2, 6, 18]


class FakeProgress:
    """A trial that runs, as halving sees one."""

    def __init__(self, record):
        self.trial, self.metric = self, record["curve"][-1]["validation_accuracy"]
        options = record["options"]
        self.setting = tuple(
            (n, tuple(v) if isinstance(v, list) else v)
            for n, v in options.items()
            if n != "seed"
        )
        self.status = "running"

    def end(self, status, reason):
        """End it."""
        self.status, self.reason = status, reason


class FakeSession:
    """What has ended before."""

    def __init__(self, records):
        self.records, self.select_by = records, "accuracy"


def test_pruning_does_not_depend_on_what_was_recorded_before():
    records = [make_record(i, 0.1 * i, s, 0.1 * i) for i in range(6) for s in (0, 1)]
    rung = halving.Rung(3, 6)

    def prune(recorded):
        before = [
            r | {"status": "pruned", "rung": 0}
            for r in records
            if r["trial"] in recorded
        ]
        running = {
            id(r): FakeProgress(r) for r in records if r["trial"] not in recorded
        }
        halving._prune(FakeSession(before), list(running.values()), 0, rung, 2)
        return [
            "pruned" if id(r) not in running else running[id(r)].status for r in records
        ]

    expected = ["pruned"] * 8 + ["running"] * 4
    assert prune(set()) == prune({0, 3}) == prune({0, 1, 2, 3}) == expected


def test_halving_that_cannot_be_is_refused():
    class Trial:
        """A trial of six epochs."""

        class config:
            """Its options."""

            class train:
                """Its length."""

                epochs, eval_every_epochs = 6, 1

    trials = []
    for number in range(2):
        trial = Trial()
        trial.setting = number
        trials.append(trial)
    with pytest.raises(UserError, match="at least 3 settings"):
        halving.make_plan(trials, 3, Terminal())
    with pytest.raises(UserError, match="give 2 or more"):
        halving.make_plan(trials, 1, Terminal())
