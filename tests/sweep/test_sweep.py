"""A sweep from its command to its table: the same whatever happens on the way."""

import csv
import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
import pytest
from fixtures_runs import make_flags, run_main, start_main, train_run

from cnn import config as config_module
from cnn.checkpoints import atomic
from cnn.errors import UserError
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal
from cnn.sweep import batch as batch_module
from cnn.sweep import outcome, plots, sweep, table
from cnn.sweep import page as page_module

TINY = {
    "model": "mlp",
    "mlp_widths": (8,),
    "train_examples": 100,
    "batch_size": 20,
    "epochs": 3,
    "validation_fraction": 0.1,
    "weight_decay": 5e-4,
}
SPACE = "learning_rate=0.01,0.1,1; model=mlp,sliding_regression; seed=0:2"
TIMED = ("seconds",)


def run_sweep(directory, terminal=None, **changes):
    """Run a tiny sweep in this process; returns how many trials failed."""
    preset = config_module.load_preset("digits")
    options = {"sweep": SPACE, "executor": "map", "trials_at_once": 4}
    config = config_module.make_config(preset, TINY, options, changes)
    return sweep.sweep(config, Path(directory), terminal or Terminal())


@pytest.fixture
def no_plots(monkeypatch):
    """Draw nothing, which takes most of the time of a sweep that has little to run."""
    monkeypatch.setattr("cnn.sweep.plots.draw_plots", lambda *_: [])


def read_table(directory):
    """Read trials.csv without what measures time."""
    with open(Path(directory) / "sweep" / "trials.csv") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Return the directory of a sweep that has ended; not to be changed."""
    directory = tmp_path_factory.mktemp("swept") / "run"
    assert run_sweep(directory) == 0
    return directory


def test_table_has_every_trial(swept):
    rows = read_table(swept)
    assert [int(row["trial"]) for row in rows] == list(range(12))
    assert {row["status"] for row in rows} == {"finished"}
    points = [(r["learning_rate"], r["model"], r["seed"]) for r in rows]
    assert points[:3] == [
        ("0.01", "mlp", "0"),
        ("0.01", "mlp", "1"),
        ("0.01", "sliding_regression", "0"),
    ]
    assert len(set(points)) == 12
    assert {row["steps"] for row in rows} == {"15"}


def test_a_trial_repeated_alone_is_the_same(swept, tmp_path):
    rows = read_table(swept)
    flags = [f"--from_trial={swept}:4", f"--workdir={tmp_path / 'run'}"]
    assert run_main(*flags) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    found = float(rows[4]["test_accuracy"]), float(rows[4]["test_loss"])
    assert result["test_loss"] == pytest.approx(found[1], rel=1e-3)
    assert result["seed"] == int(rows[4]["seed"]) and result["steps"] == 15


def test_loop_gives_the_state_of_the_solo_run(tmp_path):
    run_sweep(
        tmp_path / "sweep", executor="loop", sweep="learning_rate=0.1,0.3;seed=1,5"
    )
    rows = read_table(tmp_path / "sweep")
    preset = config_module.load_preset("digits")
    for row in (rows[0], rows[3]):
        own = {name: float(row["learning_rate"]) for name in ("learning_rate",)}
        options = {**preset, **TINY, **own, "seed": int(row["seed"])}
        result = train_run(
            tmp_path / row["trial"],
            **{"dropout_rate": 0.0, "ema_decay": 0.0, **options},
        )
        assert result["state_sha256"] == row["state_sha256"]
        assert str(result["test_accuracy"]) == row["test_accuracy"]


def test_the_best_trial_is_an_ordinary_run(swept, capsys, tmp_path):
    best = json.loads((swept / "sweep" / "best.json").read_text())
    rows = read_table(swept)
    settings = {}
    for row in rows:
        key = row["learning_rate"], row["model"]
        settings.setdefault(key, []).append(float(row["validation_accuracy"]))
    means = {key: sum(values) / 2 for key, values in settings.items()}
    assert best["setting"]["mean"] == pytest.approx(max(means.values()))
    run = swept / "sweep" / "best"
    result = json.loads((run / "result.json").read_text())
    row = rows[best["trial"]["trial"]]
    assert result["state_sha256"] == row["state_sha256"]
    assert result["best_test_loss"] == result["test_loss"] == float(row["test_loss"])
    assert result["best_step"] == result["steps"] and result["command"]
    assert run_main("--mode=evaluate", f"--workdir={run}") == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["accuracy"] == float(row["test_accuracy"])
    assert sorted(path.name for path in (swept / "sweep" / "kept").iterdir()) == [
        row["trial"]
    ]
    preset = config_module.load_preset(str(swept / "sweep" / "best.py"))
    config = config_module.make_config(preset)
    stored = json.loads((run / "config.json").read_text())
    wanted = {name: stored[name] for name in config.select_run_options()}
    unread = config.find_unread(wanted, "train")
    for name, value in config.select_run_options().items():
        # The preset leaves to the data what the sweep chose by them.
        assert value in (wanted[name], "auto") or name in unread


def test_the_report_has_settings_trials_and_curves(swept):
    page = (swept / "sweep" / "report.html").read_text()
    assert "<h1>A sweep of learning_rate, model, seed: 12 trials</h1>" in page
    for heading in ("Settings", "Trials", "Options", "Curves", "Comparisons"):
        assert f'<h2 id="{heading.lower()}">{heading}</h2>' in page
    assert ">validation accuracy [95 % interval]</button>" in page, "what brackets are"
    assert "Learning curves by learning_rate" in page
    assert "Learning curves by model" in page
    shown = re.search(r'aria-label="Trials">.*?</table>', page, re.DOTALL)[0]
    assert shown.count("<tr ") == 13
    assert all(
        f'data-value="{row["state_sha256"]}"' in shown for row in read_table(swept)
    )
    text = re.sub("<[^>]*>", " ", shown)
    assert max(map(len, text.split())) < 40, "a hash alone would fill five lines"


def test_trials_are_shown_by_what_tells_them_apart():
    """What is alike in all of them stands in trials.csv; failures are always said."""
    alike = {"trial": 0, "status": "finished", "executor": "map", "steps": 80}
    trials = [alike | {"trial": n, "seed": n, "test_loss": n / 8} for n in range(2)]
    last = ["test_loss", "steps", "executor", "reason"]
    shown = page_module._tabulate_trials(["seed"], last, trials)
    assert shown.heads == ("trial", "seed", "test loss")
    shown = page_module._tabulate_trials(["seed"], last, trials[:1])
    assert shown.heads == ("trial", "seed", "test loss", "steps", "executor")
    failed = [one | {"status": "failed", "reason": "no loss"} for one in trials]
    shown = page_module._tabulate_trials(["seed"], last, failed)
    assert shown.heads == ("trial", "status", "seed", "test loss", "reason")


def test_the_same_command_runs_nothing_again(swept, monkeypatch):
    """It draws again; what that needs is imported in a thread, if it is installed."""
    before, jobs, prepare = read_table(swept), [], outcome.prepare
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
        assert prepare().result() is None
    monkeypatch.setattr(batch_module.Batch, "advance", None)
    monkeypatch.setattr(outcome, "prepare", lambda: jobs.append(prepare()))
    assert run_sweep(swept) == 0
    assert read_table(swept) == before
    assert [job.result() for job in jobs] == [None]


@pytest.mark.parametrize(
    "space",
    [
        "learning_rate=0.01,0.1,1;model=mlp , sliding_regression;  seed=0:2",
        "seed=1,0; model=sliding_regression,mlp; learning_rate=log(1e-2,1,3)",
        "model=mlp,sliding_regression; learning_rate=1e-2,1e-1,1.0; seed=0,1",
    ],
)
def test_the_same_points_in_other_words_are_the_same_sweep(
    swept, monkeypatch, space, no_plots
):
    before = read_table(swept)
    monkeypatch.setattr(batch_module.Batch, "advance", None)
    assert run_sweep(swept, sweep=space) == 0
    assert read_table(swept) == before


def key_rows(directory, *names):
    """Return the rows of a table by some of their options."""
    return {tuple(row[name] for name in names): row for row in read_table(directory)}


def test_a_sweep_grows_and_keeps_what_has_ended(tmp_path, capsys, no_plots):
    names = "learning_rate", "momentum", "seed"
    run_sweep(tmp_path / "a", sweep="learning_rate=0.01,0.1", momentum=0.9)
    first = read_table(tmp_path / "a")
    lines = (tmp_path / "a" / "sweep" / "trials.jsonl").read_text()
    space = "momentum=0.5,0.9; seed=0:2; learning_rate=0.1,0.01"
    run_sweep(tmp_path / "a", sweep=space, momentum=0.9)
    said = capsys.readouterr().out
    assert "2 trials have ended; 6 to run" in " ".join(said.split())
    assert (tmp_path / "a" / "sweep" / "trials.jsonl").read_text().startswith(lines)
    run_sweep(tmp_path / "b", sweep=space, momentum=0.9)
    grown, whole = (key_rows(tmp_path / x, *names) for x in "ab")
    assert len(grown) == 8
    for key, row in whole.items():
        assert grown[key]["test_loss"] == pytest.approx(row["test_loss"])
    for row in first:
        kept = grown[row["learning_rate"], "0.9", "0"]
        assert kept["trial"] == row["trial"]
        assert kept["state_sha256"] == row["state_sha256"]
    with open(tmp_path / "a" / "sweep" / "settings.csv") as file:
        assert {row["n"] for row in csv.DictReader(file)} == {"2"}
    # Fewer: the others stay in the table, and that is said.
    run_sweep(tmp_path / "a", sweep="learning_rate=0.1", momentum=0.9)
    assert key_rows(tmp_path / "a", *names) == grown
    assert "7 trials that have ended are not of --sweep" in capsys.readouterr().out


def test_a_best_trial_whose_state_is_gone_is_no_run(swept, tmp_path, capsys, no_plots):
    shutil.copytree(swept, tmp_path / "run")
    home = tmp_path / "run" / "sweep"
    shutil.rmtree(home / "kept")
    run_sweep(tmp_path / "run")
    best = json.loads((home / "best.json").read_text())
    assert not (home / "best").exists() and best["run"] is None
    flags = f"--from_trial={tmp_path}/run:{best['trial']['trial']}"
    assert flags in capsys.readouterr().out.replace("\n", "")


def test_what_lies_beside_a_trial_stays(tmp_path):
    run = tmp_path / "best"
    (run / "checkpoints" / "3").mkdir(parents=True)
    for name in ("config.json", "result.json", "evaluation.json", "notes.txt"):
        (run / name).touch()
    outcome.remove_run(run)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    (run / "notes.txt").unlink()
    outcome.remove_run(run)
    assert not run.exists()
    outcome.remove_run(run)
    run.symlink_to(tmp_path)
    with pytest.raises(UserError, match="best is a link"):
        outcome.remove_run(run)


def test_another_sweep_is_refused(swept):
    with pytest.raises(UserError, match=r"--sweep has none of them. A sweep may grow"):
        run_sweep(swept, sweep="learning_rate=0.5")
    with pytest.raises(Exception, match="--batch_size=20 .now 10"):
        run_sweep(swept, batch_size=10)


class Stopper(Terminal):
    """A terminal at which somebody presses Ctrl-C when a batch begins to be shown."""

    def __init__(self, shown):
        super().__init__()
        self.left = shown

    def say(self, text=""):
        """Send the signal when it is time."""
        if text.startswith("epoch"):
            self.left -= 1
            if not self.left:
                signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("halving", [0, 3])
def test_stopped_again_and_again_is_the_same_table(
    tmp_path, monkeypatch, swept, halving
):
    monkeypatch.setattr("cnn.sweep.live.PAUSE", 0.0)
    whole = swept
    if halving:
        whole = tmp_path / "whole"
        run_sweep(whole, halving=halving)
    stops = 0
    for shown in (2, 5, 5, 4):
        try:
            run_sweep(tmp_path / "run", Stopper(shown), halving=halving)
        except Interrupted as stopped:
            assert stopped.exit_code == 130
            stops += 1
    run_sweep(tmp_path / "run", halving=halving)
    assert stops >= 3
    assert read_table(tmp_path / "run") == read_table(whole)


def test_halving_cannot_grow(tmp_path):
    config = config_module.make_config(
        config_module.load_preset("digits"),
        TINY,
        {"sweep": SPACE, "executor": "map", "trials_at_once": 4, "halving": 3},
        {"select_by": "accuracy"},  # as a sweep writes what it has chosen
    )
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "config.json").write_text(json.dumps(config.to_flat()))
    with pytest.raises(UserError, match="depends on all of them, so a sweep with it"):
        run_sweep(tmp_path, sweep=SPACE.replace("0:2", "0:3"), halving=3)
    with pytest.raises(UserError, match="so --retry_failed is not for it"):
        run_sweep(tmp_path / "new", halving=3, retry_failed=True)


def test_failed_trials_run_again_when_asked(tmp_path, capsys, no_plots):
    space = {"sweep": "learning_rate=0.01,0.1; seed=0:2", "executor": "loop"}
    run_sweep(tmp_path, **space)
    rows = read_table(tmp_path)
    path = tmp_path / "sweep" / "trials.jsonl"
    stored = table.read_rows(path)
    about = {name: stored[2][name] for name in ("trial", "options")}
    stored[2] = about | {"status": "failed", "reason": "the disk was full", "curve": []}
    path.write_text("".join(json.dumps(row) + "\n" for row in stored))
    assert run_sweep(tmp_path, **space) == 1
    assert "--retry_failed=true runs the failed trials" in capsys.readouterr().out
    assert read_table(tmp_path)[2]["status"] == "failed"
    assert run_sweep(tmp_path, **space, retry_failed=True) == 0
    assert read_table(tmp_path) == rows
    assert run_sweep(tmp_path, **space) == 0, "the later line of a trial counts"


def test_failed_trials_do_not_stop_the_others(tmp_path, capsys):
    space = "--sweep=learning_rate=0.1,1e30; seed=0:2"
    flags = [*make_flags(TINY), space, "--executor=map", f"--workdir={tmp_path}"]
    with jax.debug_nans(False):
        assert run_main("--mode=sweep", *flags) == 1
    rows = read_table(tmp_path)
    assert [row["status"] for row in rows] == ["finished"] * 2 + ["failed"] * 2
    assert "not finite at step" in rows[2]["reason"] and rows[2]["test_loss"] == ""
    assert "trial 3 failed: the loss" in capsys.readouterr().out
    alone = tmp_path / "alone"
    run_sweep(alone, sweep="learning_rate=0.1; seed=0:2")
    assert [r["state_sha256"] for r in read_table(alone)] == [
        row["state_sha256"] for row in rows[:2]
    ]


def test_epochs_may_differ_and_runs_stop_early(tmp_path):
    space = "epochs=1,2,5; learning_rate=0.1,1e-9"
    run_sweep(tmp_path / "a", sweep=space, early_stop_epochs=1, trials_at_once=6)
    rows = read_table(tmp_path / "a")
    assert [int(row["trained_epochs"]) for row in rows[::2]] == [1, 2, 5]
    assert rows[5]["stopped_early"] == "true" and int(rows[5]["trained_epochs"]) == 1
    run_sweep(tmp_path / "b", sweep=space, early_stop_epochs=1, executor="loop")
    solo = read_table(tmp_path / "b")
    for name in ("trained_epochs", "steps", "best_epoch", "stopped_early"):
        assert [row[name] for row in rows] == [row[name] for row in solo]


def test_plots_of_options_that_some_trials_do_not_read(tmp_path):
    rows = [
        {
            "trial": i,
            "options": own | {"optimizer": name, "seed": seed},
            "status": "finished",
        }
        for i, (name, own, seed) in enumerate(
            [("sgd", {"momentum": x}, seed) for x in (0.5, 0.9) for seed in (0, 1)]
            + [("adamw", {}, seed) for seed in (0, 1)]
        )
    ]
    for row in rows:
        metrics = {"validation_accuracy": 0.5, "validation_loss": 1.0}
        metrics |= {"test_accuracy": 0.5, "test_loss": 1.0}
        row |= metrics | {"curve": [{"epoch": 1, **metrics}]}
    drawn = plots.draw_plots(rows, "accuracy", tmp_path)
    names = {"curves_by_momentum", "curves_by_optimizer", "by_momentum", "parallel"}
    assert {one.path.stem for one in drawn} == names | {"momentum_by_optimizer"}


def test_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_text('{"trial": 0}\n{"trial": 1}\n{"tri')
    log = table.TrialLog(path)
    log.append([{"trial": 2}])
    log.close()
    assert [row["trial"] for row in table.read_rows(path)] == [0, 1, 2]
    path.write_text('{"trial": 0}\n{"tri\n{"trial": 1}\n')
    with pytest.raises(Exception, match="line 2 is damaged"):
        table.read_rows(path)


@pytest.mark.parametrize("bad", [b"\xff\n", b"\0\n", b"[]\n", b'{"a": 1}\n', None])
def test_a_damaged_line_is_put_aside(tmp_path, capsys, bad):
    path = tmp_path / "trials.jsonl"
    log = table.TrialLog(path)
    log.append([{"trial": number, "value": 0.5} for number in range(3)])
    log.close()
    whole = path.read_bytes().splitlines(keepends=True)
    bad = bad or whole[1].replace(b"0.5", b"0.9")
    path.write_bytes(whole[0] + bad + whole[2])
    with pytest.raises(UserError, match="line 2 is damaged"):
        table.read_rows(path)
    for _ in range(2):
        table.mend(path, Terminal())
        assert [row["trial"] for row in table.read_rows(path)] == [0, 2]
    assert path.with_name("trials.jsonl.damaged").read_bytes() == bad
    assert capsys.readouterr().out.count("1 of 3 lines are damaged") == 1


def test_a_full_disk_leaves_the_table_as_it_was(tmp_path, monkeypatch):
    log = table.TrialLog(tmp_path / "trials.jsonl")
    log.append([{"trial": 0}])

    def fail(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", fail)
        with pytest.raises(UserError, match="trials.jsonl cannot be written .No space"):
            log.append([{"trial": 1}])
    log.append([{"trial": 2}])
    log.close()
    rows = table.read_rows(tmp_path / "trials.jsonl")
    assert [row["trial"] for row in rows] == [0, 2]


def test_what_is_not_the_sweeps_is_not_removed(swept, tmp_path, no_plots):
    shutil.copytree(swept, tmp_path / "run")
    home = tmp_path / "run" / "sweep"
    (tmp_path / "other").mkdir()
    (home / "kept" / "9").symlink_to(tmp_path / "other")
    (home / "kept" / "notes").mkdir()
    shutil.rmtree(home / "best")
    (home / "best").symlink_to(tmp_path / "other")
    lines = (home / "trials.jsonl").read_bytes().splitlines(keepends=True)
    (home / "trials.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UserError, match="best is in the way"):
        run_sweep(tmp_path / "run")
    assert (home / "best").is_symlink() and (home / "kept" / "9").is_symlink()
    assert (home / "kept" / "notes").is_dir()


def test_auto_says_what_it_chose_and_keeps_to_it(tmp_path, capsys, no_plots):
    options = {"sweep": "learning_rate=0.1,0.2", "executor": "auto"}
    run_sweep(tmp_path, **options)
    said = capsys.readouterr().out
    chosen = re.search(r"executor  (\w+), the fastest;", said)[1]
    assert all(name in said for name in ("loop", "map", "vmap", "shard"))
    order = said.index("timing 20 steps"), said.index("timed in"), said.index(chosen)
    assert order == tuple(sorted(order))
    noted = json.loads((tmp_path / "sweep" / "executors.json").read_text())
    assert [one["executor"] for one in noted.values()] == [chosen]
    # A trial that comes first in a program that was timed before changes nothing.
    run_sweep(tmp_path, **options | {"sweep": "learning_rate=0.05,0.2,0.1"})
    assert "timing 20 steps" not in capsys.readouterr().out
    assert json.loads((tmp_path / "sweep" / "executors.json").read_text()) == noted
    assert {row["executor"] for row in read_table(tmp_path)} == {chosen}


def test_from_trial_mistakes(swept, capsys):
    for text, message in (
        (f"{swept}:99", "trial 99 is unknown"),
        (f"{swept}", "expected the directory of a sweep"),
        ("nowhere:1", "nowhere holds no sweep"),
    ):
        assert run_main(f"--from_trial={text}") == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["map", "loop"])
def test_killed_three_times_is_the_same_table(tmp_path, executor):
    space = "--sweep=learning_rate=log(0.01,1,6); model=mlp,simple_cnn; seed=0:2"
    flags = ["--mode=sweep", space, f"--executor={executor}"]
    flags += [] if executor == "loop" else ["--trials_at_once=4"]
    flags += make_flags(TINY | {"epochs": 40})
    whole = start_main(*flags, f"--workdir={tmp_path / 'whole'}")
    assert whole.wait(600) == 0
    lines = tmp_path / "run" / "sweep" / "trials.jsonl"
    for kill in range(1, 4):
        process = start_main(*flags, f"--workdir={tmp_path / 'run'}")
        until = 6 * kill
        while process.poll() is None and count_lines(lines) < until:
            time.sleep(0.002)
        time.sleep(0.05 * kill)
        assert process.poll() is None, "it ended too early to be killed"
        process.kill()
        process.communicate()
    last = start_main(*flags, f"--workdir={tmp_path / 'run'}")
    assert last.wait(600) == 0
    assert read_table(tmp_path / "run") == read_table(tmp_path / "whole")


def count_lines(path):
    return path.read_text().count("\n") if path.exists() else 0
