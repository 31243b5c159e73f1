"""Optuna's studies: every setting once, whoever dies; and one message for mistakes."""

import collections
import json
import math
import os
import time
import uuid
from pathlib import Path

import pytest
from fixtures_runs import make_flags, start_main
from test_sweep import TINY, read_table, run_sweep

from cnn import config as config_module
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.sweep import study
from cnn.sweep.space import parse_space
from cnn.sweep.table import read_rows
from cnn.sweep.worker import gather_rows

SPACE = "learning_rate=loguniform(0.01,1); momentum=0.5,0.9; seed=0:2"
OPTUNA = {"sweep": SPACE, "search": "optuna", "trials": 5, "trials_at_once": 6}
# A server for the test of many workers, as docs/sweeps.md starts one.
SERVER = os.environ.get("CNN_TEST_STORAGE", "")
PRESET = config_module.load_preset("digits") | {"executor": "map"}


def open_study(home, worker, **changes):
    config = config_module.make_config(PRESET, TINY, OPTUNA, changes)
    space = parse_space(config.sweep.sweep, config_module.list_fields())
    return study.open_study(config, space, Path(home), worker)


def test_settings_are_handed_out_once(tmp_path):
    workers = [open_study(tmp_path, name) for name in "ab"]
    asked = [worker.ask(5) for _ in range(4) for worker in workers]
    given = [setting for setting in asked if setting is not None]
    assert sorted(number for number, _ in given) == [0, 1, 2, 3, 4]
    assert asked[5:] == [None, None, None]
    for _, options in given:
        assert list(options) == ["learning_rate", "momentum"]
        assert 0.01 <= options["learning_rate"] <= 1
        assert options["momentum"] in (0.5, 0.9)
    for number, _ in given:
        workers[number % 2].tell(number, "finished", "", 0.5)
    assert len(workers[0].list_ended()) == 5


def test_a_dead_workers_settings_are_asked_again(tmp_path):
    dead, alive = open_study(tmp_path, "dead"), open_study(tmp_path, "alive")
    lost, kept = dead.ask(2), alive.ask(2)
    assert alive.take_over(3600) == 0
    assert alive.ask(2) is None
    with dead.show_life(60):
        pass  # one sign at least
    assert alive.take_over(0.0) == 0, "its last sign is new to this one"
    assert alive.take_over(0.0) == 1 and alive.take_over(0.0) == 0
    again = alive.ask(2)
    assert again[1] == lost[1] and again[0] not in (lost[0], kept[0])
    # The dead one wakes up: what it has to say does not count any more.
    assert dead.report(lost[0], 0.1, 1) is False
    dead.tell(lost[0], "failed", "the loss is not finite", None)
    alive.tell(kept[0], "failed", "the loss is not finite", None)
    assert len(alive.list_ended()) == 1
    alive.tell(again[0], "finished", "", 0.5)
    assert len(alive.list_ended()) == 2 and alive.ask(2) is None
    assert alive.list_ended() == {kept[0], again[0]}


def test_a_worker_that_shows_life_keeps_its_settings(tmp_path):
    busy, other = open_study(tmp_path, "busy"), open_study(tmp_path, "other")
    busy.ask(1)
    with busy.show_life(0.3):
        for _ in range(10):
            time.sleep(0.1)
            assert other.take_over(0.5) == 0


def test_a_worker_of_the_same_name_takes_over_at_once(tmp_path):
    open_study(tmp_path, "a").ask(2)
    later = open_study(tmp_path, "a")
    assert later.take_over(3600) == 1


def test_released_settings_are_asked_again(tmp_path):
    first, second = open_study(tmp_path, "a"), open_study(tmp_path, "b")
    given = first.ask(1)
    first.release()
    assert second.ask(1)[1] == given[1]


def test_whoever_comes_next_queues_what_was_given_up(tmp_path, monkeypatch):
    dead, alive = open_study(tmp_path, "dead"), open_study(tmp_path, "alive")
    number, options = dead.ask(1)
    with monkeypatch.context() as patch:
        patch.setattr(dead, "_queue_repeats", lambda: None)
        dead.release()
    assert alive.take_over(3600) == 0, "it was given up already"
    again, same = alive.ask(1)
    assert same == options and again != number and alive.ask(1) is None


def test_of_several_repeats_the_first_counts(tmp_path):
    first, second = open_study(tmp_path, "a"), open_study(tmp_path, "b")
    number, options = first.ask(1)
    first.release()
    # As one whose answer was lost, or of two workers at the same moment.
    params = second._study.get_trials()[number].params
    second._study.enqueue_trial(params, user_attrs={study.REPEATS: number})
    again, same = first.ask(2)
    assert same == options
    assert second.ask(2)[1] != options
    assert first.ask(2) is None and second.ask(2) is None
    assert first.take_over(3600) == 0
    first.tell(again, "finished", "", 0.5)
    assert first.list_ended() == {again}


def test_what_was_given_up_half_drawn_is_drawn_as_it_would_have_been(tmp_path):
    whole, first = open_study(tmp_path / "a", "x"), open_study(tmp_path / "b", "x")
    drawn = ask_all(whole, 5)
    assert ask_all(first, 2) == drawn[:2]
    first._study.ask().set_user_attr("worker", "x")  # and dies before it draws
    second = open_study(tmp_path / "b", "x")
    assert second.take_over(3600) == 1
    assert ask_all(second, 3) == drawn[2:]


def test_what_a_dead_worker_had_saved_is_told(tmp_path):
    dead, alive = open_study(tmp_path, "a"), open_study(tmp_path, "a")
    saved, lost = dead.ask(2), dead.ask(2)
    ended = {saved[0]: ("finished", "", 0.25, {"directory": "there"})}

    def find_ended(worker, number, options):
        assert worker == "a" and options == dict((saved, lost))[number]
        return ended.get(number)

    assert alive.take_over(3600, find_ended) == 1
    assert alive.list_results() == {saved[0]: saved[1]}
    assert alive.ask(2)[1] == lost[1]
    assert alive.retry_lost("elsewhere", ()) == 0
    assert alive.retry_lost("there", {saved[0]}) == 0
    assert alive.retry_lost("there", ()) == 1 and alive.list_results() == {}
    assert alive.ask(2)[1] == saved[1]


def test_an_answer_that_was_lost_is_told_once(tmp_path):
    worker = open_study(tmp_path, "a")
    number, _ = worker.ask(1)
    asked = worker._mine[number]
    worker.tell(number, "finished", "", 0.5)
    worker._mine[number] = asked
    worker.tell(number, "finished", "", 0.25)
    assert worker._study.get_trials()[number].value == 0.5


def test_nobody_is_dead_who_could_not_leave_a_sign(tmp_path):
    busy, other = open_study(tmp_path, "busy"), open_study(tmp_path, "other")
    busy.ask(1)
    assert other.take_over(0.0) == 0
    other._storage.outages += 1
    assert other.take_over(0.0) == 0, "all are seen anew after an outage"
    assert other.take_over(0.0) == 1


def ask_all(worker, count, total=99):
    """Ask for settings and report a result that follows from each."""
    asked = [worker.ask(total) for _ in range(count)]
    for number, options in asked:
        worker.tell(number, "finished", "", options["learning_rate"])
    return [options for _, options in asked]


def test_what_is_drawn_follows_from_the_seed(tmp_path):
    first, again = open_study(tmp_path / "a", "x"), open_study(tmp_path / "b", "y")
    drawn = [ask_all(first, 4) for _ in range(4)]
    assert drawn == [ask_all(again, 4) for _ in range(4)]
    rates = [options["learning_rate"] for some in drawn for options in some]
    assert len(set(rates)) == 16
    other = open_study(tmp_path / "c", "x", sweep_seed=1)
    assert ask_all(other, 4) != drawn[0]


def test_what_is_drawn_after_a_stop_is_what_would_have_been(tmp_path):
    whole, first = open_study(tmp_path / "a", "x"), open_study(tmp_path / "b", "x")
    drawn = [ask_all(whole, 4) for _ in range(4)]
    assert [ask_all(first, 4) for _ in range(3)] == drawn[:3]
    for _ in range(4):
        first.ask(99)
    first.release()
    second = open_study(tmp_path / "b", "another")
    assert ask_all(second, 4) == drawn[3]
    assert ask_all(second, 4) == ask_all(whole, 4)


def test_a_setting_drawn_again_has_the_first_ones_result(tmp_path):
    space = {"sweep": "momentum=choice(0.5,0.9); seed=0:2"}
    mine, others = (open_study(tmp_path, name, **space) for name in "ab")
    asked = [mine.ask(8) for _ in range(4)] + [others.ask(8) for _ in range(4)]
    assert len({options["momentum"] for _, options in asked}) == 2
    first = {}
    for number, options in asked:
        worker = mine if number < 4 else others
        is_new = options["momentum"] not in first
        assert worker.settle(number) is (False if is_new else None)
        first.setdefault(options["momentum"], number)
    for momentum, number in first.items():
        (mine if number < 4 else others).tell(number, "finished", "", momentum)
    for number, _ in asked:
        if number not in first.values():
            assert (mine if number < 4 else others).settle(number) is True
    assert len(mine.list_ended()) == 8 and mine.count_copies() == 6
    stored = mine._study.get_trials()
    assert all(trial.value == float(trial.params["momentum"]) for trial in stored)


def test_a_copy_runs_when_the_first_one_was_given_up(tmp_path):
    space = {"sweep": "momentum=choice(0.5); seed=0:2"}
    dead, alive = (open_study(tmp_path, name, **space) for name in "ab")
    dead.ask(9)
    number, _ = alive.ask(9)
    assert alive.settle(number) is None
    dead.release()
    assert alive.settle(number) is False


def test_failed_settings_are_asked_again_when_wanted(tmp_path):
    worker = open_study(tmp_path, "a")
    lost, kept = worker.ask(2), worker.ask(2)
    worker.tell(lost[0], "failed", "the loss is not finite", None)
    worker.tell(kept[0], "finished", "", 0.5)
    assert worker.ask(2) is None
    assert worker.retry_failed() == 1
    number, options = worker.ask(2)
    assert options == lost[1] and worker.list_ended() == {kept[0]}
    worker.tell(number, "failed", "again", None)
    assert worker.list_ended() == {kept[0], number}
    assert open_study(tmp_path, "b").list_ended() == {kept[0], number}


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_value_that_is_not_finite_has_failed(tmp_path, odd):
    worker = open_study(tmp_path, "a")
    number, _ = worker.ask(1)
    worker.tell(number, "finished", "", odd)
    assert worker.list_ended() == {number} and worker.ask(1) is None
    assert worker.retry_failed() == 1


@pytest.mark.parametrize(
    "space",
    [
        "momentum=0.9,0.5;seed=0,1; learning_rate=loguniform( 1e-2, 1.0)",
        "seed=1,0; learning_rate=loguniform(0.01,1); momentum=0.50,0.9",
    ],
)
def test_a_study_is_joined_in_other_words(tmp_path, space):
    first = open_study(tmp_path, "a")
    others = open_study(tmp_path, "b", sweep=space)
    ask_all(first, 3), ask_all(others, 3)
    assert len(first.list_ended()) == 6


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sweep": SPACE.replace("0.01", "0.02")}, "is of another sweep"),
        ({"sweep": SPACE.replace("0:2", "0:3")}, "grows by --trials alone"),
        ({"sweep": SPACE.replace("0.5,", "0.4,0.5,")}, "grows by --trials alone"),
        ({"batch_size": 10}, "is of another sweep"),
    ],
)
def test_a_study_of_another_space_is_refused(tmp_path, changes, message):
    open_study(tmp_path, "a")
    with pytest.raises(UserError, match=message):
        open_study(tmp_path, "b", **changes)
    open_study(tmp_path, "b", study="other", **changes)


@pytest.mark.parametrize(
    "address", ["postgresql://me:secret@127.0.0.1:1/x", "nonsense://me:secret@y/x"]
)
def test_a_storage_that_does_not_answer(tmp_path, address):
    with pytest.raises(UserError, match="does not answer") as caught:
        open_study(tmp_path, "a", storage=address)
    assert "secret" not in str(caught.value)


def test_options_that_do_not_go_together(tmp_path):
    for changes, message in (
        ({"trials": 0}, "needs --trials=N"),
        ({"halving": 3}, "use --pruner=hyperband"),
        ({"sweep": "seed=0:3"}, "nothing to search but seeds"),
        ({"max_trials": 9}, "10 trials, more than --max_trials=9"),
        ({"sweep": "model=mlp,simple_cn"}, "simple_cn is unknown"),
        ({"sweep": "dropout_rate=uniform(0,1)"}, "--dropout_rate=1.0 is outside"),
        ({"sweep": "batch_size=20,5000; model=mlp,simple_cnn"}, "larger than the tr"),
    ):
        with pytest.raises(UserError, match=message):
            run_sweep(tmp_path / "run", **OPTUNA | changes)
        assert not (tmp_path / "run").exists()
    address = {"storage": "nonsense://me@y/x"}
    with pytest.raises(UserError, match="does not answer"):
        run_sweep(tmp_path / "run", **OPTUNA | address)
    assert not (tmp_path / "run").exists()


def test_another_sweep_of_a_worker_is_refused_before_a_study_is_made(tmp_path):
    own = tmp_path / "sweep" / "workers" / "me"
    own.mkdir(parents=True)
    config = config_module.make_config({"epochs": 9})
    (own / "config.json").write_text(json.dumps(config.to_flat()))
    with pytest.raises(UserError, match="holds another run, one with --"):
        run_sweep(tmp_path, **OPTUNA | {"worker": "me"})
    assert not (tmp_path / "sweep" / "study.log").exists()


def test_a_search_ends_and_goes_on_with_more_trials(tmp_path):
    options = OPTUNA | {"pruner": "median", "worker": "me"}
    assert run_sweep(tmp_path, **options) == 0
    rows = read_table(tmp_path)
    assert len(rows) == 10 and {row["status"] for row in rows} <= {"finished", "pruned"}
    run_sweep(tmp_path, **options | {"trials": 8})
    more = read_table(tmp_path)
    assert len(more) == 16 and more[:10] == rows
    best = json.loads((tmp_path / "sweep" / "best.json").read_text())
    found = json.loads((tmp_path / "sweep" / "best" / "result.json").read_text())
    assert found["state_sha256"] == best["trial"]["state_sha256"]
    assert (tmp_path / "sweep" / "report.html").exists()
    check_dashboard(tmp_path, more)


def check_dashboard(directory, rows):
    """Check what a dashboard shows of a study, beside the table of its trials."""
    stored = open_study(directory / "sweep", "reader")._study
    assert stored.metric_names == ["validation_accuracy"]
    assert stored.direction.name == "MAXIMIZE"
    for trial in stored.get_trials():
        own = rows[2 * trial.number : 2 * trial.number + 2]
        shown = trial.user_attrs
        assert shown["state_sha256"] == [
            r["state_sha256"] for r in own if r["test_loss"]
        ]
        assert shown["seeds"] == [0, 1] and shown["trial"] == [
            int(r["trial"]) for r in own
        ]
        assert shown["directory"] == str(directory / "sweep" / "workers" / "me")


def test_settings_drawn_again_run_once(tmp_path, capsys):
    options = OPTUNA | {"sweep": "momentum=choice(0.5,0.9); seed=0:2", "trials": 7}
    assert run_sweep(tmp_path, **options) == 0
    rows = read_table(tmp_path)
    assert len(rows) == 4 and len({(r["momentum"], r["seed"]) for r in rows}) == 4
    assert "note: 5 settings were drawn again" in capsys.readouterr().out


def start_worker(directory, name, trials, address, study_name):
    flags = TINY | OPTUNA | {"trials": trials, "worker_timeout": 5.0, "epochs": 20}
    flags |= {"executor": "map", "trials_at_once": 4, "worker": name}
    flags |= {"mode": "sweep", "workdir": str(directory), "study": study_name}
    return start_main(*make_flags(flags | ({"storage": address} if address else {})))


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        "",
        pytest.param(SERVER, marks=pytest.mark.skipif(not SERVER, reason="no server")),
    ],
    ids=["journal", "server"],
)
def test_four_workers_one_of_which_is_killed(tmp_path, address):
    trials, name = 16, f"test-{uuid.uuid4().hex}"
    workers = [start_worker(tmp_path, w, trials, address, name) for w in "abcd"]
    lines = tmp_path / "sweep" / "workers" / "a" / "trials.jsonl"
    while workers[0].poll() is None and not (lines.exists() and read_rows(lines)):
        time.sleep(0.005)
    workers[0].kill()
    workers[0].communicate()
    for worker in workers[1:]:
        _, told = worker.communicate(timeout=900)
        assert worker.returncode == 0, told
    rows = read_table(tmp_path)
    settings = collections.Counter(
        (row["learning_rate"], row["momentum"]) for row in rows
    )
    assert len(rows) == 2 * trials and set(settings.values()) == {2}
    assert {row["status"] for row in rows} == {"finished"}
    numbers = [int(row["trial"]) for row in rows]
    assert len(set(numbers)) == len(numbers)
    config = config_module.make_config(
        config_module.load_preset("digits"), TINY, OPTUNA, {"epochs": 20}
    )
    space = parse_space(SPACE, config_module.list_fields())
    changes = {"storage": address, "study": name, "executor": "map"}
    config = config.change(changes)
    shared = study.open_study(config, space, tmp_path / "sweep", "reader")
    assert len(shared.list_ended()) == trials == len(shared.list_ended())
    found = gather_rows(tmp_path / "sweep", shared.list_results(), 2, Terminal())
    assert sum(map(len, found.values())) == 2 * trials and len(found) == 4
    assert isinstance(shared, study.Study)
