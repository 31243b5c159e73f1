"""Settings compared over seeds, and the rungs of halving."""

import numpy as np
import pytest
from scipy import stats

from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.sweep import searches
from cnn.sweep.outcome import choose_kept
from cnn.sweep.table import (
    compute_interval,
    describe_ties,
    find_best_trial,
    rank_settings,
)


def make_row(number, rate, seed, accuracy, status="finished"):
    row = {
        "trial": number,
        "options": {"learning_rate": rate, "widths": [4, 8], "seed": seed},
        "status": status,
        "trained_epochs": 3,
        "curve": [
            {
                "epoch": 3,
                "validation_accuracy": accuracy,
                "validation_loss": 1 - accuracy,
            }
        ],
    }
    if status == "finished":
        row |= {"validation_accuracy": accuracy, "validation_loss": 1 - accuracy}
        row |= {"test_accuracy": accuracy - 0.1, "test_loss": 2.0}
    return row


RECORDS = [
    make_row(0, 0.1, 0, 0.5),
    make_row(1, 0.1, 1, 0.7),
    make_row(2, 0.1, 2, 0.6),
    make_row(3, 0.2, 0, 0.9),
    make_row(4, 0.2, 1, 0.8),
    make_row(5, 0.2, 2, 0.85),
    make_row(6, 0.3, 0, 0.99),
    make_row(7, 0.3, 1, 0.0, "failed"),
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


def test_intervals_stay_within_what_can_be():
    mean, spread, low, high = compute_interval([1.0, 0.9], 0.0, 1.0)
    assert (mean, high) == (0.95, 1.0) and 0 <= low < mean and spread > 0
    rows = [make_row(0, 0.1, 0, 1.0), make_row(1, 0.1, 1, 0.9)]
    rows += [make_row(2, 0.2, 0, 0.0), make_row(3, 0.2, 1, 0.2)]
    best, worst = rank_settings(rows, "accuracy")
    assert best["high"] == 1.0 and worst["low"] == 0.0
    assert worst["difference_low"] == -1.0
    by_loss = rank_settings(rows, "loss")
    assert by_loss[0]["low"] == 0.0 and by_loss[1]["high"] > 1.0


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_the_best(odd):
    for rows in (RECORDS, RECORDS[::-1]):
        for select_by, best in (("accuracy", 3), ("loss", 3)):
            bad = make_row(8, 0.4, 0, odd), make_row(9, 0.2, 3, odd)
            ranking = rank_settings([*bad[:1], *rows], select_by)
            assert ranking[0]["options"]["learning_rate"] == 0.2
            assert all(row["options"]["learning_rate"] != 0.4 for row in ranking)
            assert find_best_trial([*bad[:1], *rows], select_by)["trial"] == best
            (worse,) = [
                row
                for row in rank_settings([*rows, *bad], select_by)
                if row["options"]["learning_rate"] == 0.2
            ]
            assert worse["n"] == 3 and worse["failed"] == 1
            assert 8 not in choose_kept([*rows, *bad], (), select_by)
    found = {("a",): [(odd, 0.1, 0)], ("b",): [(0.1, odd, 1)], ("c",): [(0.0, 1.0, 2)]}
    for lower_is_better in (False, True):
        assert searches._rank(found, lower_is_better)[0] == ("c",)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_equal_values_have_no_spread(count):
    for value in (0.1, 0.7, 1.0, 0.0):
        found = compute_interval([value] * count, 0.0, 1.0)
        assert found == (value, 0.0, value, value)


def test_the_same_seed_again_is_no_repetition():
    twice = [make_row(0, 0.1, 0, 0.5), make_row(1, 0.1, 1, 0.7)]
    twice += [make_row(8, 0.1, 0, 0.5), make_row(9, 0.1, 1, 0.7)]
    (once,) = rank_settings(twice[:2], "accuracy")
    (found,) = rank_settings(twice, "accuracy")
    assert found == once and found["n"] == 2 and found["trials"] == [0, 1]


def test_ties_go_to_the_lower_loss_then_the_lower_number():
    rows = [make_row(i, rate, 0, 0.5) for i, rate in enumerate((0.1, 0.2, 0.3))]
    rows[1]["validation_loss"] = 0.1
    ranking = rank_settings(rows, "accuracy")
    assert [row["options"]["learning_rate"] for row in ranking] == [0.2, 0.1, 0.3]
    assert find_best_trial(rows, "accuracy")["trial"] == 1
    (said,) = describe_ties(ranking, rows, "accuracy")
    assert "3 settings share the best mean accuracy: the lower validation loss" in said
    assert describe_ties(rank_settings(rows[:1], "accuracy"), rows, "accuracy") == []
    # Means of the same numbers are equal in whatever order their sum was rounded.
    rows = [make_row(i, 0.1, i, value) for i, value in enumerate((0.1, 0.1, 0.4))]
    rows += [make_row(3 + i, 0.2, i, value) for i, value in enumerate((0.0, 0.0, 0.6))]
    rows[3]["validation_loss"] = 0.0
    ranking = rank_settings(rows, "accuracy")
    assert ranking[0]["mean"] != ranking[1]["mean"]
    assert ranking[0]["options"]["learning_rate"] == 0.2


def test_a_setting_is_the_same_in_whatever_order_its_options_are_given():
    rows = [make_row(0, 0.1, 0, 0.5), make_row(1, 0.1, 1, 0.7)]
    rows[1]["options"] = dict(reversed(rows[1]["options"].items()))
    (found,) = rank_settings(rows, "accuracy")
    assert found["n"] == 2


def test_halving_prefers_the_lower_loss_of_equals():
    rows = [make_row(i, rate, 0, 0.5) for i, rate in enumerate((0.1, 0.2, 0.3))]
    rows[2]["curve"][-1]["validation_loss"] = 0.1
    running = [FakeProgress(row) for row in rows]
    searches._prune(FakeSession([]), running, 0, searches.Rung(3, 3), 1)
    assert [one.status for one in running] == ["pruned", "pruned", "running"]


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


def test_all_or_the_seeds_are_kept_where_that_is_asked_for():
    setting = (("learning_rate", 0.1), ("widths", (4, 8)))
    assert choose_kept(RECORDS, set(), "accuracy", "seeds") == {3, 4, 5}
    both = choose_kept(RECORDS, {setting}, "accuracy", "seeds")
    assert both == {0, 1, 2, 3, 4, 5}
    assert choose_kept(RECORDS, set(), "accuracy", "all") == set(range(7))


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
    rungs = searches.plan_rungs(settings, epochs, factor)
    assert [(rung.epochs, rung.settings) for rung in rungs] == expected


def test_rungs_end_where_there_is_an_evaluation():
    rungs = searches.plan_rungs(27, 18, 3, every=2)
    assert [rung.epochs for rung in rungs] == [2, 6, 18]


class FakeProgress:
    """A trial that runs, as halving sees one."""

    def __init__(self, row):
        self.trial, self.number, self.curve = self, row["trial"], row["curve"]
        options = row["options"]
        self.setting = tuple(
            (n, tuple(v) if isinstance(v, list) else v)
            for n, v in sorted(options.items())
            if n != "seed"
        )
        self.status = "running"

    def end(self, status, reason):
        """End it."""
        self.status, self.reason = status, reason


class FakeSession:
    """What has ended before."""

    def __init__(self, rows):
        self.rows, self.select_by = rows, "accuracy"


def test_pruning_does_not_depend_on_what_was_saved_before():
    rows = [make_row(i, 0.1 * i, s, 0.1 * i) for i in range(6) for s in (0, 1)]
    rung = searches.Rung(3, 6)

    def prune(saved):
        before = [
            r | {"status": "pruned", "rung": 0} for r in rows if r["trial"] in saved
        ]
        running = {id(r): FakeProgress(r) for r in rows if r["trial"] not in saved}
        searches._prune(FakeSession(before), list(running.values()), 0, rung, 2)
        return [
            "pruned" if id(r) not in running else running[id(r)].status for r in rows
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
        searches.make_plan(trials, 3, Terminal())
    with pytest.raises(UserError, match="give 2 or more"):
        searches.make_plan(trials, 1, Terminal())
