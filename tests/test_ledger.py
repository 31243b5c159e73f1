"""Mode list: what runs say of themselves, what is pooled, and what is deleted."""

import csv
import fcntl
import io
import json
import os
import re
import shutil
import threading

import numpy as np
import pytest
from fixtures_runs import ROOT, run_main, train_run
from test_readme import check_command, list_commands

from cnn.checkpoints import manifest, workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.ledger import compared, find, formats, pool, prune, read, where
from cnn.sweep import table
from cnn.training import progress

PAGE = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
ALL = [x[2:] for x in list_commands(PAGE) if x[:2] == ["python", "main.py"]]
COMMANDS = [flags for flags in ALL if "--mode=list" in flags]


def write_run(directory, result=None, lines=(), **options):
    """Write the files of a run, without a checkpoint."""
    directory.mkdir(parents=True)
    stored = Config().to_flat() | options
    (directory / "config.json").write_text(json.dumps(stored))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (directory / "metrics.jsonl").write_text(text)
    if result is not None:
        whole = {"steps": 8, "epochs": 2, "seconds": 1.5, "best_step": 4}
        (directory / "result.json").write_text(json.dumps(whole | result))
    return directory


def write_ended(directory, accuracy, test_accuracy=None, **options):
    """Write the files of a run that has ended with an accuracy."""
    line = {"step": 8, "epoch": 2, "validation_loss": 0.5}
    line |= {"validation_accuracy": accuracy}
    tested = accuracy - 0.1 if test_accuracy is None else test_accuracy
    result = {"test_accuracy": tested, "test_loss": 0.5}
    return write_run(directory, result, [line], **options)


def read_all(text):
    """Read all entries, by name and kind."""
    found = [
        x for place in find.list_places(str(text)) for x in read.read_entries(place)
    ]
    return {entry.name: entry for entry in found}


def list_csv(capsys, *flags):
    """List as CSV; returns the rows."""
    capsys.readouterr()
    assert run_main("--mode=list", "--format=csv", *flags) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.fixture
def runs(tmp_path):
    """Return a directory with a run of each state."""
    home = tmp_path / "runs"
    write_ended(home / "ended", 0.75, model="mlp", seed=1)
    line = {"step": 4, "epoch": 1, "validation_loss": 0.5, "validation_accuracy": 0.5}
    write_run(home / "stopped", None, [line], epochs=9)
    write_run(home / "failed", None, [line, {"step": 6, "failed": "it burns"}])
    write_run(home / "deep" / "er" / "unbegun")
    write_run(home / "running", None, [line])
    (home / "running" / ".lock").write_text("1")
    return home


def test_states_and_reasons(runs):
    with open(runs / "running" / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = read_all(runs)
    said = {name.removeprefix(f"{runs}/"): x for name, x in found.items()}
    assert {name: (x.state, x.reason) for name, x in said.items()} == {
        "ended": ("ended", ""),
        "stopped": ("stopped", "after epoch 1 of 9"),
        "failed": ("failed", "it burns"),
        "deep/er/unbegun": ("stopped", "before its first evaluation"),
        "running": ("running", f"epoch 1 of {Config().train.epochs}"),
    }
    assert said["ended"].found["best_epoch"] == 1
    assert said["ended"].found["test_accuracy"] == pytest.approx(0.65)
    assert read_all(runs)[f"{runs}/running"].state == "stopped"


def test_a_run_that_was_trained_is_as_it_says(trained):
    (entry,) = read_all(trained).values()
    result = json.loads((trained / "result.json").read_text())
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert entry.state == "ended" and entry.options["model"] == "simple_cnn"
    for name in ("test_accuracy", "test_loss", "state_sha256", "seconds", "steps"):
        assert entry.found[name] == result[name]
    assert entry.found["validation_loss"] == last["validation_loss"]
    files = [x for x in trained.rglob("*") if x.is_file()]
    assert entry.found["disk_bytes"] == sum(x.stat().st_size for x in files)


def test_why_a_run_failed_is_kept_until_it_is_resumed(trained, tmp_path, monkeypatch):
    directory = shutil.copytree(trained, tmp_path / "run")
    steps = manifest.list_steps(directory / "checkpoints")
    shutil.rmtree(directory / "checkpoints" / str(steps[-1]))
    (directory / "result.json").unlink()
    take = progress.take_epoch

    def spoil(*args):
        for ids, step_metrics in take(*args):
            yield ids, step_metrics | {"loss": step_metrics["loss"] * float("nan")}

    with monkeypatch.context() as patched:
        patched.setattr(progress, "take_epoch", spoil)
        with pytest.raises(UserError, match="not finite"):
            train_run(directory)
    (entry,) = read_all(directory).values()
    assert entry.state == "failed" and "is not finite at step" in entry.reason
    assert entry.found["trained_epochs"] == 2
    train_run(directory)
    (entry,) = read_all(directory).values()
    assert entry.state == "ended" and not entry.reason
    assert '"failed"' not in (directory / "metrics.jsonl").read_text()


def make_damaged(home):
    """Write folders that are damaged or foreign; returns what is said of each."""
    write_ended(home / "whole", 0.5)
    write_ended(home / "no_json", 0.5)
    (home / "no_json" / "config.json").write_bytes(b'{"model": "ml')
    write_ended(home / "a_list", 0.5)
    (home / "a_list" / "config.json").write_text("[" * 100_000)
    write_ended(home / "deep_result", 0.5)
    (home / "deep_result" / "result.json").write_text('{"steps": "x"')
    write_ended(home / "odd_result", 0.5)
    (home / "odd_result" / "result.json").write_text("[1]")
    write_run(home / "odd_lines", None, [[1], {"epoch": "x"}, {"epoch": [2]}])
    with open(home / "odd_lines" / "metrics.jsonl", "ab") as file:
        file.write(b"\xff\n" + b"[" * 50_000 + b'"epoch"\n{"epoch": 3')
    write_run(home / "odd_numbers", {"steps": 0, "epochs": 0, "test_accuracy": [1]})
    (home / "theirs").mkdir()
    (home / "theirs" / "config.json").write_text('{"architectures": ["BertModel"]}')
    (home / "photos" / "cats").mkdir(parents=True)
    (home / "pipe").mkdir()
    os.mkfifo(home / "pipe" / "config.json")
    (home / "swept" / "sweep").mkdir(parents=True)
    (home / "swept" / "sweep" / "config.json").write_text("{}")
    (home / "swept" / "sweep" / "trials.jsonl").write_text("{}\n")
    rows = [{"trial": 0, "options": [], "status": 3}, {"trial": 1, "options": {}}]
    (home / "rows" / "sweep").mkdir(parents=True)
    text = json.dumps(Config().to_flat())
    (home / "rows" / "sweep" / "config.json").write_text(text)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (home / "rows" / "sweep" / "trials.jsonl").write_text(lines)
    os.symlink(home, home / "whole" / "round")
    os.symlink(home, home / "photos" / "round")
    return {
        "whole": ("ended", ""),
        "no_json": ("damaged", "config.json is damaged"),
        "a_list": ("damaged", "config.json is damaged"),
        "deep_result": ("stopped", "result.json is damaged"),
        "odd_result": ("stopped", "is no run's result"),
        "odd_lines": ("stopped", "before its first"),
        "odd_numbers": ("ended", ""),
        "theirs": ("foreign", "model is missing"),
        "photos": ("foreign", "it holds no run"),
        "pipe": ("foreign", "a pipe"),
        "swept": ("damaged", "model is missing"),
        "rows": ("damaged", "status"),
    }


def test_damaged_and_foreign_folders_are_named_and_stop_nothing(tmp_path, capsys):
    expected = make_damaged(tmp_path / "x")
    found = read_all(tmp_path / "x")
    assert {x.removeprefix(f"{tmp_path}/x/") for x in found} == {*expected}
    for name, (state, reason) in expected.items():
        entry = found[f"{tmp_path}/x/{name}"]
        assert entry.state == state and reason in entry.reason, (name, entry)
    more = ["--group_by=model"], ["--list_trials"], ["--format=latex"], ["--prune"]
    for flags in ([], *more):
        assert run_main("--mode=list", f"--workdir={tmp_path}/x", *flags) == 0
    flags = [f"--workdir={tmp_path}/x", "--where=state=foreign"]
    assert len(list_csv(capsys, *flags)) == 3


def test_a_directory_that_cannot_be_opened(tmp_path, monkeypatch):
    write_ended(tmp_path / "a", 0.5)
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    entry = read_all(tmp_path)[f"{tmp_path}/closed"]
    assert entry.state == "damaged" and "Permission denied" in entry.reason


def test_lost_options_are_those_of_the_newest_checkpoint(trained, tmp_path):
    directory = shutil.copytree(trained, tmp_path / "run")
    (directory / "config.json").unlink()
    (entry,) = read_all(directory).values()
    assert entry.state == "ended" and entry.options["widths"] == [4]


def test_options_that_differ_and_those_that_came_later(runs, capsys):
    path = runs / "ended" / "config.json"
    stored = json.loads(path.read_text()) | {"of_old": 7}
    del stored["momentum"]
    path.write_text(json.dumps(stored))
    rows = list_csv(capsys, f"--workdir={runs}")
    names = list(rows[0])
    assert names[5:9] == ["model", "epochs", "seed", "of_old"], "momentum: its default"
    assert {x["of_old"] for x in rows} == {"", "7"}
    (row,) = list_csv(capsys, f"--workdir={runs}", "--where=seed=1")
    assert row["run"] == str(runs / "ended") and row["validation_accuracy"] == "0.75"


CONDITIONS = {
    "model=mlp": {"a", "b"},
    "model=simple*|lenet5": {"c"},
    "model!=mlp": {"c", "d"},
    "learning_rate=1e-1": {"a"},
    "learning_rate<0.2 model=mlp": {"a"},
    "test_accuracy>=0.75": {"b"},
    "test_accuracy<0.75": {"a"},
    "validation_accuracy>0 validation_accuracy<=1": {"a", "b"},
    "state=stopped": {"c", "d"},
    "run=*/[ab]": {"a", "b"},
    "nesterov=true": {"d"},
    "reason='before its*'": {"c", "d"},
    "": {"a", "b", "c", "d"},
}


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Return a directory with four runs that differ."""
    home = tmp_path_factory.mktemp("four")
    write_ended(home / "a", 0.5, model="mlp", learning_rate=0.1)
    write_ended(home / "b", 0.9, 0.95, model="mlp", learning_rate=0.5)
    write_run(home / "c", model="simple_cnn", learning_rate=0.5)
    write_run(home / "d", model="resnet20", learning_rate=0.5)
    for name in "abc":
        path = home / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"nesterov": False}))
    path = home / "d" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"nesterov": True}))
    return home


@pytest.mark.parametrize("text", CONDITIONS)
def test_conditions(four, text, capsys):
    rows = list_csv(capsys, f"--workdir={four}", f"--where={text}")
    assert {row["run"][-1] for row in rows} == CONDITIONS[text]


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--where=modle=mlp", "modle is unknown; did you mean model?"),
        ("--where=model", "model is no condition; write NAME=PATTERN"),
        ("--where=seed>x", "x is no number"),
        ("--where=model='x", "close the quotes"),
        ("--group_by=modle", "--group_by=modle is unknown; did you mean model?"),
        ("--group_by=seed", "--group_by=seed is unknown"),
        ("--yes", "--yes=true would have no effect: it is only for --prune"),
        ("--model=mlp", "--model=mlp would have no effect"),
        ("--config=digits", "--config=digits would have no effect"),
        ("--workdir=/nowhere", "--workdir=/nowhere is no directory"),
        ("--workdir=/nowhere/*", "--workdir=/nowhere/* matches no directory"),
    ],
)
def test_mistakes(four, flag, message, capsys):
    assert run_main("--mode=list", f"--workdir={four}", flag) == 2
    assert message in capsys.readouterr().err


def test_seeds_are_pooled_as_a_sweep_pools_them(tmp_path):
    values = {0: 0.5, 1: 0.75, 2: 0.875}
    rows = []
    for seed, value in values.items():
        write_ended(tmp_path / str(seed), value, model="mlp", seed=seed)
        numbers = {"validation_accuracy": value, "validation_loss": 0.5}
        numbers |= {"test_accuracy": value - 0.1}
        about = {"trial": seed, "status": "finished", "options": {"seed": seed}}
        rows.append(about | numbers)
    write_ended(tmp_path / "again", 0.5, model="mlp", seed=0)
    write_run(tmp_path / "stopped", None, [], model="mlp", seed=3)
    write_ended(tmp_path / "other", 0.25, model="lenet5")
    entries = list(read_all(tmp_path).values())
    columns, found = pool.pool(entries, ["model"])
    (expected,) = table.rank_settings(rows, "accuracy")
    (row,) = [row for row in found if row["model"] == "mlp"]
    for name in (
        "n",
        "mean",
        "sd",
        "low",
        "high",
        "test_mean",
        "test_low",
        "test_high",
    ):
        assert row[name] == pytest.approx(expected[name]), name
    assert row["n"] == 3 and row["varied"] == "" and {*row} <= {*columns}
    (other,) = [row for row in found if row["model"] == "lenet5"]
    assert other["n"] == 1 and other["sd"] is None and other["mean"] == 0.25


def test_what_else_varies_is_named(tmp_path):
    for seed in (0, 1):
        write_ended(tmp_path / str(seed), 0.5, seed=seed, learning_rate=0.1 + seed)
    _, (row,) = pool.pool(list(read_all(tmp_path).values()), ["model"])
    assert row["n"] == 2 and row["varied"] == "learning_rate"


def list_texts(table):
    return [[cell.text for cell in row.cells] for row in table.rows]


def test_runs_of_a_report_are_pooled_with_what_differs_as_columns(tmp_path):
    directories = []
    for rate, accuracies in ((0.1, (0.5, 0.75)), (0.2, (0.25,))):
        for seed, accuracy in enumerate(accuracies):
            directories.append(tmp_path / f"{rate}_{seed}")
            write_ended(directories[-1], accuracy, seed=seed, learning_rate=rate)
    tables = compared.tabulate_runs([*directories, tmp_path / "absent"])
    pooled, runs = tables["Pooled over seeds"], tables["Runs"]
    assert pooled.heads == (
        "learning rate",
        "n",
        "test accuracy [95 % interval]",
        "validation accuracy [95 % interval]",
    )
    # 12.706 is Student's t for two: 0.625 ± 12.706 · 0.125, kept within 0..1.
    assert list_texts(pooled) == [
        ["0.1", "2", "0.5250 [0.0000, 1.0000]", "0.6250 [0.0000, 1.0000]"],
        ["0.2", "1", "0.1500", "0.2500"],
    ]
    assert runs.heads[:4] == ("run", "learning rate", "seed", "validation accuracy")
    assert [row[:4] for row in list_texts(runs)] == [
        ["0.1_0", "0.1", "0", "0.5000"],
        ["0.1_1", "0.1", "1", "0.7500"],
        ["0.2_0", "0.2", "0", "0.2500"],
    ]
    assert pooled.rows[0].cells[2].value == "0.525", "what sorting goes by"


def test_runs_without_repetition_are_not_pooled(tmp_path):
    write_ended(tmp_path / "a", 0.5, seed=0)
    write_run(tmp_path / "b", None, [], seed=0, learning_rate=0.5)
    tables = compared.tabulate_runs([tmp_path / "a", tmp_path / "b"])
    assert [*tables] == ["Runs"]
    assert tables["Runs"].heads[:3] == ("run", "state", "learning rate")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Return a directory with a sweep of four trials, as it is when it has ended."""
    root = tmp_path_factory.mktemp("swept")
    home = root / "s" / "sweep"
    home.mkdir(parents=True)
    options = Config().to_flat() | {"select_by": "accuracy", "loss": "auto"}
    (home / "config.json").write_text(json.dumps(options))
    log, accuracies = table.TrialLog(home / "trials.jsonl"), (0.5, 0.75, 0.875, 0.625)
    for number, accuracy in enumerate(accuracies):
        rate, seed = ((0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1))[number]
        row = {"trial": number, "options": {"learning_rate": rate, "seed": seed}}
        row |= {"status": "finished", "reason": "", "executor": "loop", "seconds": 0.25}
        for split in ("validation", "test"):
            row |= {f"{split}_accuracy": accuracy, f"{split}_loss": 1 - accuracy}
        row |= {"best_epoch": 1, "trained_epochs": 2, "steps": 8, "num_parameters": 9}
        log.append([row | {"state_sha256": f"{number:064}", "stopped_early": False}])
    log.close()
    table.write_csv(home / "trials.csv", log.rows)
    ranking = table.rank_settings(log.rows, "accuracy")
    table.write_settings(home / "settings.csv", ranking)
    return root


def test_a_sweep_is_a_row_and_its_trials_are_rows(swept, capsys):
    with open(swept / "s" / "sweep" / "trials.csv") as file:
        trials = list(csv.DictReader(file))
    (row,) = list_csv(capsys, f"--workdir={swept}")
    assert row["run"] == f"{swept}/s" and row["kind"] == "sweep"
    assert (row["state"], row["trials"], row["failed"]) == ("ended", "4", "0")
    assert row["state_sha256"] == trials[2]["state_sha256"], "that of the best"
    assert row["seconds"] == "1.0" and row["test_accuracy"] == "0.875"
    rows = list_csv(capsys, f"--workdir={swept}", "--list_trials")
    assert [x["run"] for x in rows] == [f"{swept}/s:{i}" for i in range(4)]
    shared = {*rows[0]} & {*trials[0]} - {"reason"}
    assert {"learning_rate", "seed", "test_accuracy", "seconds", "best_epoch"} <= shared
    for one, other in zip(rows, trials, strict=True):
        assert {n: one[n] for n in shared} == {n: other[n] for n in shared}
    flags = [f"--workdir={swept}", "--list_trials", "--group_by=learning_rate"]
    pooled = {x["learning_rate"]: x for x in list_csv(capsys, *flags)}
    with open(swept / "s" / "sweep" / "settings.csv") as file:
        settings = list(csv.DictReader(file))
    for row in settings:
        for name in ("n", "mean", "sd", "low", "high", "test_mean", "test_high"):
            assert pooled[row["learning_rate"]][name] == row[name], name


def test_a_sweep_that_has_grown_since_is_not_over(swept, tmp_path):
    copy = shutil.copytree(swept / "s", tmp_path / "s") / "sweep"
    later = (copy / "settings.csv").stat().st_mtime_ns + 10**9
    os.utime(copy / "trials.jsonl", ns=(later, later))
    (entry,) = read_all(tmp_path).values()
    assert entry.state == "stopped"
    with open(tmp_path / "s" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (entry,) = read_all(tmp_path).values()
    assert entry.state == "running"


def test_formats(tmp_path):
    rows = [
        {"run": "a|b_&\x1b\n", "state": "ended", "test_accuracy": 0.5, "reason": None},
        {"run": "=x", "state": "x", "test_accuracy": None, "reason": None},
    ]
    columns = ["run", "state", "test_accuracy", "reason"]
    assert formats.format_table("text", columns, rows) == (
        "run          state  test_accuracy\n"
        "a|b_&\\x1b\\n  ended         0.5000\n"
        "=x           x\n"
    )
    assert formats.format_table("markdown", columns, rows) == (
        "| run | state | test_accuracy |\n|---|---|---:|\n"
        "| a\\|b_&\\\\x1b\\\\n | ended | 0.5000 |\n| =x | x |  |\n"
    )
    latex = formats.format_table("latex", columns, rows)
    assert latex.startswith(
        "\\begin{tabular}{llr}\nrun & state & test\\_accuracy \\\\\n"
    )
    assert "a|b\\_\\&\\textbackslash{}x1b\\textbackslash{}n & ended" in latex
    text = formats.format_table("csv", columns, rows)
    read = list(csv.reader(io.StringIO(text)))
    assert read[1] == ["a|b_&\x1b\n", "ended", "0.5", ""] and read[2][0] == "./=x"
    assert formats.format_table("text", columns, []) == "\n"


@pytest.mark.parametrize(
    "count, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (1.25e9, "1.25 GB"),
    ],
)
def test_bytes(count, text):
    assert formats.format_bytes(int(count)) == text


def test_output_is_a_file(runs, tmp_path, capsys):
    path = tmp_path / "table.md"
    flags = [f"--workdir={runs}", "--format=markdown", f"--output={path}"]
    assert run_main("--mode=list", *flags) == 0
    assert f"written to {path}" in capsys.readouterr().out
    assert path.read_text().startswith("| run | state |")


def put_run(trained, home, name):
    """Copy a run that has ended, with a checkpoint of step 3 that is not needed."""
    directory = shutil.copytree(trained, home / name)
    steps = manifest.list_steps(directory / "checkpoints")
    result = json.loads((directory / "result.json").read_text())
    assert len({steps[-1], result["best_step"]} & {*steps}) >= 1
    old = [x for x in steps if x not in (steps[-1], result["best_step"])]
    assert old, "the tiny run keeps another one"
    return directory, old


def hash_files(directory):
    """Return the size and time of every file."""
    files = [x for x in directory.rglob("*") if x.is_file()]
    return {x: (x.stat().st_size, x.stat().st_mtime_ns) for x in files}


def test_what_nobody_needs_is_shown_and_then_deleted(trained, tmp_path, capsys):
    home = tmp_path / "runs"
    run, old = put_run(trained, home, "run")
    write_run(home / "unbegun")
    write_run(home / "with_notes")
    (home / "with_notes" / "notes.txt").write_text("mine")
    shutil.copytree(run / "checkpoints" / str(old[0]), run / "checkpoints" / "7.new")
    (run / "checkpoints" / "7.new" / "manifest.json").unlink()
    shutil.copytree(run, home / "linked_checkpoints")
    shutil.rmtree(home / "linked_checkpoints" / "checkpoints")
    os.symlink(run / "checkpoints", home / "linked_checkpoints" / "checkpoints")
    outside, _ = put_run(trained, tmp_path, "outside")
    os.symlink(outside, home / "linked")
    before, flags = hash_files(home), ["--mode=list", "--prune", f"--workdir={home}"]
    assert run_main(*flags) == 0
    shown = capsys.readouterr().out
    gone = [run / "checkpoints" / str(step) for step in old]
    gone += [run / "checkpoints" / "7.new", home / "unbegun"]
    lines = shown.splitlines()
    assert sorted(x.split("  ")[0] for x in lines[1:-1]) == sorted(map(str, gone))
    size = formats.format_bytes(sum(read.measure(path) for path in gone))
    assert lines[-1] == (
        f"{len(gone)} can be deleted, which frees {size}; --yes deletes it"
    )
    assert hash_files(home) == before, "nothing was deleted"
    assert run_main(*flags, "--yes") == 0
    told = capsys.readouterr().out
    assert f"{len(gone)} of {len(gone)} deleted, which frees {size}" in told
    kept = {x: y for x, y in before.items() if not any(g in x.parents for g in gone)}
    after = hash_files(home)
    assert {x: y for x, y in after.items() if x.name != ".lock"} == {
        x: y for x, y in kept.items() if x.name != ".lock"
    }
    assert not (home / "unbegun").exists()
    assert train_run(run)["state_sha256"], "its own command prints its result again"
    assert run_main(*flags) == 0
    assert "0 can be deleted, which frees 0 B\n" in capsys.readouterr().out


def test_of_a_running_run_nothing_is_deleted(trained, tmp_path, capsys):
    run, _ = put_run(trained, tmp_path, "run")
    flags = ["--mode=list", "--prune", f"--workdir={run}", "--yes"]
    with open(run / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = hash_files(run)
        assert run_main(*flags) == 0
        assert "0 of 0 deleted" in capsys.readouterr().out
        # One that begins to run after it was looked at is refused by its lock.
        fcntl.flock(lock, fcntl.LOCK_UN)
        (place,) = find.list_places(str(run))
        found = prune.find_leftovers(*read.read_entries(place))
        fcntl.flock(lock, fcntl.LOCK_EX)
        gone, kept = prune.delete(found)
        assert found and not gone and "is in use by process" in kept[0]
        assert hash_files(run) == before


def test_a_run_begins_while_it_is_listed(tmp_path):
    run = write_run(tmp_path / "run")
    (run / ".lock").write_text("1")
    with open(run / ".lock") as asked:
        fcntl.flock(asked, fcntl.LOCK_SH)
        timer = threading.Timer(0.01, fcntl.flock, (asked, fcntl.LOCK_UN))
        timer.start()
        with workdir.lock(run):
            assert workdir.is_running(run)
        timer.join()
    assert not workdir.is_running(run)


def test_a_damaged_latest_checkpoint_keeps_the_others(trained, tmp_path):
    run, _ = put_run(trained, tmp_path, "run")
    newest = manifest.list_steps(run / "checkpoints")[-1]
    path = next(
        x for x in (run / "checkpoints" / str(newest)).rglob("*") if x.is_file()
    )
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    content[-1] ^= 1
    path.write_bytes(content.tobytes())
    (place,) = find.list_places(str(run))
    assert prune.find_leftovers(*read.read_entries(place)) == []


def test_a_run_that_got_a_checkpoint_meanwhile_stays(trained, tmp_path):
    run = write_run(tmp_path / "run")
    (place,) = find.list_places(str(run))
    found = prune.find_leftovers(*read.read_entries(place))
    shutil.copytree(trained / "checkpoints", run / "checkpoints")
    gone, kept = prune.delete(found)
    assert len(found) == 1 and not gone and "has changed meanwhile" in kept[0]
    assert manifest.list_steps(run / "checkpoints")


def test_weights_that_were_converted_have_ended_and_stay(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    (run / "result.json").unlink()
    (entry,) = read_all(run).values()
    assert entry.state == "ended" and "converted" in entry.reason
    assert run_main("--mode=list", "--prune", f"--workdir={run}") == 0
    assert "0 can be deleted" in capsys.readouterr().out


@pytest.mark.parametrize("flags", ALL, ids=" ".join)
def test_command_is_understood(flags, capsys):
    check_command(flags, capsys)


@pytest.mark.parametrize("flags", COMMANDS, ids=" ".join)
def test_commands_of_the_page(flags, four, tmp_path, capsys, monkeypatch):
    shutil.copytree(four, tmp_path / "runs")
    shutil.copytree(four, tmp_path / "old" / "x")
    monkeypatch.chdir(tmp_path)
    assert run_main(*flags) == 0
    written = tmp_path / "table.tex"
    told = written.read_text() if written.exists() else capsys.readouterr().out
    assert re.search("mlp|runs/b|can be deleted", told)


def test_conditions_of_what_has_no_value():
    (unequal, equal, less) = where.parse_where("seed!=1 seed=1 seed<1", ["seed"])
    assert unequal.holds(None) and not equal.holds(None) and not less.holds(None)
    assert equal.holds(1.0) and not less.holds(float("nan")) and not less.holds("0")


def test_names_are_a_column_where_a_run_has_one():
    def make(**options):
        return read.Entry("runs/a", "run", "ended", "", options, {}, ROOT)

    assert "name" not in pool.make_rows([make(seed=1)])[0]
    columns, rows = pool.make_rows([make(seed=1), make(name="base")])
    assert columns[:2] == ["run", "name"]
    assert [row["name"] for row in rows] == ["", "base"]
