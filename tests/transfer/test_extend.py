"""Extending a run: the bits of one that had its length from the start, or said so."""

import json
import shutil
import signal
import time

import pytest
from fixtures_runs import AMID, ROOT, read_lines, run_main, start_main
from fixtures_runs import train_run as train_tiny
from test_readme import list_commands

from cnn import config as config_module
from cnn.checkpoints import manifest
from cnn.training import trunk

# 5 steps an epoch; the trunk ends at step 15 of 25, and at 20 of 35.
BASE = {"schedule": "stable_then_decay", "decay_share": 0.4, "epochs": 5, "seed": 2}
LONG = 7
TIMED = ("seconds", "images_per_second")


def train_run(directory, **changes):
    return train_tiny(directory, **{**BASE, **changes})


def extend(source, directory, *flags, epochs=LONG):
    return run_main(
        f"--extend={source}", f"--epochs={epochs}", f"--workdir={directory}", *flags
    )


def read_result(directory):
    found = json.loads((directory / "result.json").read_text())
    return {name: x for name, x in found.items() if name not in TIMED}


def list_steps(directory):
    return manifest.list_steps(directory / "checkpoints")


def damage(directory, step):
    path = directory / "checkpoints" / str(step) / manifest.DESCRIPTION
    path.write_text(path.read_text().replace(":", ": ", 1))


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Return a run that has ended; not to be changed."""
    directory = tmp_path_factory.mktemp("extended") / "short"
    train_run(directory, **AMID)
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the run that had the longer length from the start."""
    directory = tmp_path_factory.mktemp("extended") / "whole"
    train_run(directory, epochs=LONG, **AMID)
    return directory


@pytest.fixture
def copy(short, tmp_path):
    """Return a copy of the run that may be changed."""
    return shutil.copytree(short, tmp_path / "copy")


def refuse(capsys, *words):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error


def test_trunk_and_the_best_until_then_are_kept(short):
    counters = manifest.read_description(short / "checkpoints" / "25")["records"]
    assert counters["trunk_step"] == 15
    assert {15, counters["trunk_best_step"]} <= {*list_steps(short)}
    # Two of the newest, the best, the trunk and its best: more are never there.
    assert len(list_steps(short)) <= 5


def test_pruning_leaves_the_trunk(copy, capsys):
    counters = manifest.read_description(copy / "checkpoints" / "25")["records"]
    assert run_main("--mode=list", "--prune", "--yes", f"--workdir={copy}") == 0
    kept = {15, 25, counters["best_step"], counters["trunk_best_step"]}
    assert {*list_steps(copy)} == kept


def test_extended_run_is_the_one_of_that_length(short, whole, tmp_path, capsys):
    assert extend(short, tmp_path / "run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"from step 15: the run that --epochs={LONG} from the start gives" in said
    assert read_result(tmp_path / "run") == read_result(whole)
    assert read_lines(tmp_path / "run") == read_lines(whole)
    assert list_steps(tmp_path / "run") == list_steps(whole)
    # And once more, from the extended run's own trunk.
    assert extend(tmp_path / "run", tmp_path / "longer", epochs=9) == 0
    assert "from step 20: the run" in " ".join(capsys.readouterr().out.split())
    longest = train_run(tmp_path / "longest", epochs=9)
    assert read_result(tmp_path / "longer")["state_sha256"] == longest["state_sha256"]


def test_another_decay_is_the_one_of_that_run(short, tmp_path):
    flags = ["--decay_share=0.2", "--decay_power=1"]
    assert extend(short, tmp_path / "run", *flags, epochs=6) == 0
    given = train_run(tmp_path / "own", epochs=6, decay_share=0.2, decay_power=1.0)
    assert read_result(tmp_path / "run")["state_sha256"] == given["state_sha256"]


@pytest.mark.parametrize(
    "changes",
    [
        {"warmup_epochs": 1.3, "warmup_kind": "before", "ema_decay": 0.0},
        {"warmup_epochs": 4.0, "warmup_start_factor": 0.1, "optimizer": "adamw"}
        | {"final_rate_factor": 0.1, "validation_fraction": 0.0},
        {"rate_every": "epoch", "eval_every_epochs": 2, "recompute_statistics": 2},
        {"image_size_schedule": ("0:6", "2:8"), "ema_start_epochs": 2.0}
        | {"unfreeze": ("stage1_conv:4",), "freeze": ("stage1_conv",)},
    ],
    ids=["before", "product", "by_epoch", "sizes"],
)
def test_what_else_depends_on_epochs_is_the_same(changes, tmp_path):
    train_run(tmp_path / "short", **changes)
    assert extend(tmp_path / "short", tmp_path / "run", epochs=7) == 0
    given = train_run(tmp_path / "own", **changes, epochs=7)
    assert read_result(tmp_path / "run")["state_sha256"] == given["state_sha256"]
    assert read_lines(tmp_path / "run") == read_lines(tmp_path / "own")


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "step", "milestones": (2.0, 4.0)},
        {"schedule": "exponential", "recompute_statistics": 2},
        {"schedule": "plateau", "plateau_patience": 0, "eval_every_epochs": 2}
        | {"epochs": 5},
    ],
    ids=lambda changes: changes["schedule"],
)
def test_schedules_that_do_not_know_the_length(changes, tmp_path, capsys):
    """Recomputed statistics, or an evaluation of the end: from the one before it."""
    run = {"decay_share": 0.2, "epochs": 3} | changes
    train_run(tmp_path / "short", **run)
    assert extend(tmp_path / "short", tmp_path / "run", epochs=6) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the run that --epochs=6 from the start gives" in said
    given = train_run(tmp_path / "own", **run | {"epochs": 6})
    assert read_result(tmp_path / "run")["state_sha256"] == given["state_sha256"]


def test_other_schedules_give_a_new_run_and_say_so(tmp_path, capsys):
    train_run(tmp_path / "short", schedule="cosine", epochs=3)
    assert extend(tmp_path / "short", tmp_path / "run", epochs=6) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "from step 15: a new run, not the one that --epochs=6" in said
    assert "as --schedule=cosine depends on the length of the run" in said
    assert "the rate is 0.5 of its peak, after 0.0109" in said
    lines = read_lines(tmp_path / "run")
    assert [x["epoch"] for x in lines if "epoch" in x] == [*range(7)]
    assert lines[: len(read_lines(tmp_path / "short"))] == read_lines(
        tmp_path / "short"
    )


def test_lookahead_depends_on_the_length(tmp_path, capsys):
    changes = {"ema_decay": 0.0, "lookahead_decay": 0.9, "epochs": 3}
    train_run(tmp_path / "short", **changes)
    assert extend(tmp_path / "short", tmp_path / "run", epochs=4) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "as --lookahead_decay depends on the length" in said


def test_killed_at_any_moment_it_is_resumed(short, whole, tmp_path):
    """Killed as soon as each file is there, and while it trains; 8 s: 4 processes."""
    run, source = tmp_path / "run", tmp_path / "source"
    shutil.copytree(short, source)
    flags = [f"--extend={source}", f"--epochs={LONG}", f"--workdir={run}"]
    for has_come in (
        lambda: (run / "checkpoints" / "15.new").exists(),
        lambda: (run / "config.json").exists(),
        lambda: max(list_steps(run)) > 15,
    ):
        process, limit = start_main(*flags), time.monotonic() + 120
        while not has_come() and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (run / "result.json").exists()
    shutil.rmtree(source)  # which it no longer needs
    assert run_main(*flags) == 0
    assert read_result(run) == read_result(whole)
    assert read_lines(run) == read_lines(whole)


@pytest.mark.parametrize("last", ["15.new", "best", "15", "metrics.jsonl"])
def test_copy_that_stopped_midway_is_made_again(short, whole, tmp_path, last):
    """What a start that was killed has left, file by file; then it trains on."""
    run, last_of_short = tmp_path / "run", short / "checkpoints" / "25"
    best = manifest.read_description(last_of_short)["records"]["trunk_best_step"]
    for name in [best] if last == "best" else {best: 0, 15: 0}:
        shutil.copytree(
            short / "checkpoints" / str(name), run / "checkpoints" / str(name)
        )
        path = run / "checkpoints" / str(name) / manifest.DESCRIPTION
        described = json.loads(path.read_text())
        changed = {"extend": str(short), "epochs": LONG}
        described["options"] |= changed
        path.write_text(json.dumps(described))
        (path.parent / manifest.MANIFEST).unlink()
        path.parent.rename(path.parent.with_suffix(manifest.NEW))
        if last != "15.new" or name != 15:
            manifest.finish(path.parent.with_suffix(manifest.NEW))
    if last == "metrics.jsonl":
        (run / last).write_text('{"step": 0, "epoch": 0}\n')
    assert extend(short, run) == 0
    assert read_result(run) == read_result(whole)
    assert read_lines(run) == read_lines(whole)


def test_source_stays_as_it_is(copy, tmp_path):
    def read():
        return {x: x.read_bytes() for x in copy.rglob("*") if x.is_file()}

    before = read()
    assert extend(copy, tmp_path / "run", epochs=6) == 0
    assert read() == before


def test_damaged_trunk_gives_way_to_an_earlier_checkpoint(
    copy, whole, tmp_path, capsys
):
    damage(copy, 15)
    earlier = [step for step in list_steps(copy) if step < 15]
    code = extend(copy, tmp_path / "run")
    if not earlier:
        assert code == 2
        refuse(capsys, "no whole checkpoint of its first 15 steps", "15 is left out")
        return
    assert code == 0 and "checkpoint 15 is left out" in capsys.readouterr().out
    assert read_result(tmp_path / "run") == read_result(whole)


def test_missing_and_damaged_trunks_are_named(copy, tmp_path, capsys):
    steps = [step for step in list_steps(copy) if step <= 15]
    for step in steps[:-1]:
        shutil.rmtree(copy / "checkpoints" / str(step))
    damage(copy, 15)
    assert extend(copy, tmp_path / "run") == 2
    refuse(capsys, "has no whole checkpoint of its first 15 steps", "has changed since")
    shutil.rmtree(copy / "checkpoints" / "15")
    assert extend(copy, tmp_path / "run") == 2
    refuse(capsys, "no whole checkpoint of its first 15 steps", f"--epochs={LONG}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--epochs=4"], ["decay would begin before step 15", "give --epochs=5 or"]),
        (["--epochs=5", "--decay_share=0.9"], ["give --epochs=29 or more"]),
        ([], ["needs the length", "--epochs=N (this one has 5)"]),
        (["--epochs=9", "--learning_rate=0.1"], ["--learning_rate=0.1 is not for"]),
        (["--epochs=9", "--decay_share=2"], ["--decay_share=2.0 is outside (0, 1)"]),
        (["--epochs=9", "--config=digits"], ["--config=digits would have no effect"]),
        (["--epochs=9", "--mode=sweep", "--sweep=seed=0,1"], ["--extend"]),
        (["--mode=evaluate", "--workdir={short}"], ["--extend="]),
        (["--epochs=9", "--workdir={short}"], ["is the --workdir itself"]),
        (["--epochs=9", "--extend={short}/no"], ["--extend=", "holds no run"]),
    ],
    ids=str,
)
def test_mistakes(short, tmp_path, capsys, flags, words):
    flags = [flag.format(short=short) for flag in flags]
    given = {flag.partition("=")[0] for flag in flags}
    named = {"--extend": short, "--workdir": tmp_path / "run"}
    flags += [f"{name}={x}" for name, x in named.items() if name not in given]
    assert run_main(*flags) == 2
    refuse(capsys, *words)
    assert not (tmp_path / "run").exists()


def test_its_own_directory_is_resumed_with_its_own_options_alone(
    short, whole, tmp_path, capsys
):
    assert extend(short, tmp_path / "run", epochs=6) == 0
    capsys.readouterr()
    assert extend(short, tmp_path / "run", epochs=7) == 2
    refuse(capsys, "one with --epochs=6 (now 7)", "--extend=")
    assert extend(short, whole) == 2
    refuse(capsys, "holds another run", "--extend=")


def test_fine_tuned_run_no_longer_needs_its_source(short, tmp_path):
    source = shutil.copytree(short, tmp_path / "source")
    tuned = {"init_from": str(source), "seed": 3}
    train_run(tmp_path / "short", **tuned)
    given = train_run(tmp_path / "own", **tuned, epochs=6)
    source.rename(tmp_path / "moved")
    assert extend(tmp_path / "short", tmp_path / "run", epochs=6) == 0
    assert read_result(tmp_path / "run")["state_sha256"] == given["state_sha256"]


def test_run_that_stopped_early_stays_so(tmp_path, capsys):
    changes = {"learning_rate": 0.0, "early_stop_epochs": 1, "schedule": "constant"}
    result = train_run(tmp_path / "short", **changes)
    assert result["stopped_early"]
    assert extend(tmp_path / "short", tmp_path / "run") == 2
    refuse(capsys, "was ended by --early_stop_epochs", "--init_from=")


def test_decay_in_the_first_epoch_has_no_trunk(tmp_path, capsys):
    train_run(tmp_path / "short", epochs=1)
    assert extend(tmp_path / "short", tmp_path / "run") == 2
    refuse(capsys, "begins in its first epoch")


def test_weights_without_a_run_are_refused(short, tmp_path, capsys):
    flags = [f"--workdir={short},{short}", f"--output={tmp_path}/mean"]
    assert run_main("--mode=average", *flags) in (0, 2)
    if (tmp_path / "mean").exists():
        capsys.readouterr()
        assert extend(tmp_path / "mean", tmp_path / "run") == 2
        refuse(capsys, "holds a mean of several runs", "--init_from=")


@pytest.mark.parametrize(
    "changes, steps, found",
    [
        ({"epochs": 10}, 4, 24),
        ({"epochs": 10, "decay_share": 0.2}, 4, 32),
        ({"epochs": 10, "decay_share": 0.21}, 100, 700),
        ({"epochs": 10, "rate_every": "epoch"}, 4, 24),
        ({"epochs": 1}, 4, 0),
        ({"schedule": "cosine"}, 4, 0),
        ({"schedule": "constant"}, 4, 20),
        ({"warmup_epochs": 5.0, "warmup_kind": "before", "epochs": 10}, 4, 32),
    ],
    ids=str,
)
def test_trunk_ends_with_an_epoch(changes, steps, found):
    options = {n: x for n, x in BASE.items() if n != "decay_share"}
    options |= {} if "decay_share" in changes else {"decay_share": 0.4}
    config = config_module.make_config(options, changes)
    assert trunk.find_trunk(config, steps) == found


def test_shortest_run_with_a_trunk():
    config = config_module.make_config(BASE)
    for step in (4, 12, 13, 24, 400):
        epochs = trunk.find_shortest(config, 4, step)
        assert trunk.find_trunk(config.change({"epochs": epochs}), 4) >= step
        if epochs > 1:
            before = config.change({"epochs": epochs - 1})
            assert trunk.find_trunk(before, 4) < step


def test_the_page_does_what_it_shows(tmp_path, monkeypatch):
    """It takes 10 s: a run, its extension, and a sweep of four lengths."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    small = ["--train_examples=100", "--model=mlp", "--mlp_widths=8"]
    commands = [x for x in list_commands(page) if x[:2] == ["python", "main.py"]]
    for words, more in zip(commands, (small, [], small), strict=True):
        assert run_main(*words[2:], *more) == 0
    assert read_result(tmp_path / "runs" / "long")["epochs"] == 8
    drawn = {path.name for path in (tmp_path / "runs/lengths/sweep/plots").iterdir()}
    assert {"by_epochs.png", "curves_by_epochs.png"} <= drawn
