"""Mode average: means of runs, which runs go in, and a run that comes out whole."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures_runs import run_main, train_run

from cnn import average
from cnn.checkpoints import manifest
from cnn.errors import UserError
from cnn.training.trained import load_trained

RUNS = "a", "b", "c"
CHANGES = {"ema_decay": 0.0, "dropout_rate": 0.0, "epochs": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Train three runs that start from the same weights, and one beside them."""
    home = tmp_path_factory.mktemp("average")
    train_run(home / "start", **CHANGES)
    for seed, name in enumerate(RUNS):
        changes = {"init_from": str(home / "start"), "seed": seed}
        train_run(home / name, **CHANGES | changes)
    return home


def run_average(home, output, *flags, runs=RUNS):
    names = ",".join(str(home / name) for name in runs)
    flags = [f"--output={output}", f"--workdir={names}", *flags]
    return run_main("--mode=average", *flags)


def read(directory):
    return json.loads((directory / "average.json").read_text())


def test_a_uniform_soup_is_the_mean_and_a_run(home, tmp_path, capsys):
    output = tmp_path / "new" / "mean"
    assert run_average(home, output) == 0, capsys.readouterr().err
    parts = [load_trained(home / name).variables for name in RUNS]
    mean = jax.tree.map(lambda *x: np.mean(np.float64(x), axis=0), *parts)
    found = load_trained(output).variables
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), found, mean
    )
    assert [run["kept"] for run in read(output)["runs"]] == [True] * 3
    assert run_main("--mode=evaluate", "--split=validation", f"--workdir={output}") == 0
    evaluated = json.loads((output / "evaluation,split=validation.json").read_text())
    for name, value in read(output)["validation"].items():
        assert evaluated[name] == pytest.approx(value, rel=1e-6)
    assert evaluated["trained_images"] == 0 and evaluated["dataset_changed"] is False


def test_equal_runs_keep_their_bits(home, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).symlink_to(home / "a")
    assert run_average(tmp_path, tmp_path / "mean", runs=("one", "other")) == 0
    jax.tree.map(
        np.testing.assert_array_equal,
        load_trained(tmp_path / "mean").variables,
        load_trained(home / "a").variables,
    )


class Pot:
    """Judges means of runs whose weights are numbers, by a table."""

    def __init__(self, select_by, table):
        """Take the metric of each set of runs."""
        self.select_by, self.table, self.asked = select_by, table, []

    def choose(self, names):
        """Choose greedily among runs; return those that are kept."""
        runs = []
        for number, name in enumerate(names):
            trained = type("Trained", (), {"variables": np.float32(10.0**number)})
            metrics = {"loss": 0.0, self.select_by: self.table[name]}
            runs.append(average.Ingredient(name, trained, metrics))
        places = {name: 10.0**number for number, name in enumerate(names)}

        def judge(mean):
            for key, value in self.table.items():
                if np.isclose(mean, np.mean([places[x] for x in key])):
                    self.asked.append(key)
                    return {"loss": 0.0, self.select_by: value}
            raise AssertionError(mean)

        average._choose(runs, self.select_by, lambda mean: mean, judge)
        return "".join(sorted(run.directory for run in runs if run.is_kept))


@pytest.mark.parametrize("select_by, sign", [("accuracy", 1), ("loss", -1)])
def test_greedy_keeps_what_does_not_make_it_worse(select_by, sign):
    table = {"a": 0.7, "b": 0.9, "c": 0.8, "bc": 0.85, "ab": 0.9}
    pot = Pot(select_by, {key: sign * value for key, value in table.items()})
    # From b on: c makes it worse, a leaves it as it is.
    assert pot.choose("abc") == "ab"
    assert pot.asked == ["b", "bc", "ab"]


def test_greedy_keeps_nothing_without_a_finite_loss():
    nan = float("nan")
    pot = Pot("loss", {"a": nan, "b": 0.2, "c": 0.1, "bc": nan, "ac": 0.05})
    assert pot.choose("abc") == "ac"
    assert pot.asked == ["c", "bc", "ac"]


def test_greedy_never_starts_from_what_is_not_a_number():
    nan = float("nan")
    table = {"a": nan, "b": 0.2, "c": 0.3, "bc": nan, "ac": 0.35}
    pot = Pot("accuracy", table)
    assert pot.choose("abc") == "ac"
    assert pot.asked == ["c", "bc", "ac"]


def test_weights_that_name_no_metric_are_chosen_by_that_of_their_task(home, tmp_path):
    for name in "ab":
        shutil.copytree(home / name, tmp_path / name)
        path = tmp_path / name / "config.json"
        options = json.loads(path.read_text()) | {"select_by": "auto", "loss": "auto"}
        path.write_text(json.dumps(options))
    assert run_average(tmp_path, tmp_path / "mean", "--soup=greedy", runs="ab") == 0
    assert read(tmp_path / "mean")["select_by"] == "accuracy"


def test_a_mean_without_a_finite_loss_is_refused(home, tmp_path, monkeypatch, capsys):
    metrics = {"accuracy": 0.5, "loss": float("inf")}
    monkeypatch.setattr(average, "_make_judge", lambda *args: lambda weights: metrics)
    assert run_average(home, tmp_path / "mean") == 2
    assert "loss of the mean is not finite" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()


def test_of_several_labels_the_mean_has_thresholds_of_its_own(pairs_run, tmp_path):
    """The mean of a run with itself has those that the run has tuned."""
    for name in "ab":
        (tmp_path / name).symlink_to(pairs_run)
    assert run_average(tmp_path, tmp_path / "mean", runs="ab") == 0
    wanted = load_trained(pairs_run).thresholds
    assert len(set(wanted)) > 1
    found = load_trained(tmp_path / "mean").thresholds
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_students_teacher_may_be_gone(home, tmp_path, capsys):
    (tmp_path / "teacher").symlink_to(home / "start")
    changes = {"teacher": str(tmp_path / "teacher"), "distillation_share": 0.5}
    for name in "ab":
        train_run(tmp_path / name, **CHANGES | changes)
    (tmp_path / "teacher").unlink()
    flags = "--recompute_statistics=2", "--soup=greedy"
    assert run_average(tmp_path, tmp_path / "mean", *flags, runs="ab") == 0
    assert capsys.readouterr().err == ""


def test_greedy_and_new_statistics_on_real_runs(home, tmp_path, capsys):
    output = tmp_path / "soup"
    flags = "--soup=greedy", "--recompute_statistics=3"
    assert run_average(home, output, *flags) == 0, capsys.readouterr().err
    result = read(output)
    accuracies = [run["validation"]["accuracy"] for run in result["runs"]]
    assert accuracies == sorted(accuracies, reverse=True) and result["runs"][0]["kept"]
    kept = [run["run"] for run in result["runs"] if run["kept"]]
    parts = [load_trained(path).variables for path in kept]
    mean = jax.tree.map(lambda *x: np.mean(np.float64(x), axis=0), *parts)
    found = load_trained(output).variables
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7),
        found["params"],
        mean["params"],
    )
    near = jax.tree.map(np.allclose, found["batch_stats"], mean["batch_stats"])
    assert not all(jax.tree.leaves(near))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"options": {"widths": [5]}}, "different models: widths=4, and widths=5;"),
        ({"class_names": ("0", "1")}, "different classes: 2, 3, 4, 5, 6 …, and 0, 1;"),
        ({"image_shape": (6, 6, 1)}, "different images: image_shape=8,8,1, and image_"),
        ({"structure": {"mean": (0.5,)}}, "different images: mean="),
        ({"options": {"shuffle_pixels": True}}, "different images: shuffle_pixels="),
    ],
    ids=str,
)
def test_runs_that_differ_are_refused(home, monkeypatch, capsys, changes, message):
    trained = load_trained(home / "b")
    if "options" in changes:
        changes = {"options": trained.options | changes["options"]}
    if "structure" in changes:
        structure = dataclasses.replace(trained.structure, **changes["structure"])
        changes = {"structure": structure}
    other = dataclasses.replace(trained, **changes)

    def load(directory, which):
        return other if directory.name == "b" else load_trained(directory, which)

    monkeypatch.setattr(average, "load_trained", load)
    assert run_average(home, home / "mean") == 2
    error = capsys.readouterr().err
    assert f"{home / 'a'} and {home / 'b'} have {message}" in error
    assert not (home / "mean").exists()


def test_what_cannot_be_meant_is_refused(home, tmp_path, capsys):
    assert run_average(home, tmp_path / "mean", runs=("a",)) == 2
    assert "several runs" in capsys.readouterr().err
    assert run_average(home, "") == 2
    assert "needs --output" in capsys.readouterr().err
    assert run_average(home, home / "b") == 2
    assert "holds something already" in capsys.readouterr().err


def test_of_averages_without_a_validation_set(tmp_path, capsys):
    changes = {"validation_fraction": 0.0, "ema_decay": 0.9}
    train_run(tmp_path / "a", **CHANGES | changes)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert run_average(tmp_path, tmp_path / "mean", "--soup=greedy", runs="ab") == 2
    assert "--soup=greedy chooses on the validation set" in capsys.readouterr().err
    assert run_average(tmp_path, tmp_path / "mean", runs="ab") == 0
    assert read(tmp_path / "mean")["validation"] is None
    found = load_trained(tmp_path / "mean")
    expected = load_trained(tmp_path / "a").variables
    assert found.averaged
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected)


def test_it_is_whole_or_absent(home, tmp_path, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt

    output = tmp_path / "mean"
    with monkeypatch.context() as patched:
        patched.setattr(average.atomic, "write_json", die)
        assert run_average(home, output) != 0
    assert not output.exists()
    assert run_average(home, output) == 0
    assert manifest.find_damage(output / "checkpoints" / "0") == ""
    assert [path.name for path in tmp_path.iterdir()] == ["mean"]


def test_what_a_killed_one_has_left_is_no_part_of_it(home, tmp_path):
    left = tmp_path / ".mean.new"
    (left / "checkpoints" / "7").mkdir(parents=True)
    (left / "result.json").write_text("{}")
    (left / ".lock").write_text("1")
    assert run_average(home, tmp_path / "mean") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mean"]
    assert not (tmp_path / "mean" / "result.json").exists()
    assert [x.name for x in (tmp_path / "mean" / "checkpoints").iterdir()] == ["0"]


def test_an_output_that_cannot_be_written(home, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert run_average(home, tmp_path / "file" / "mean") == 2
    assert f"--output={tmp_path / 'file' / 'mean'} cannot" in capsys.readouterr().err
    output, rename = tmp_path / "mean", os.rename

    def move(new, to):  # another process was faster
        if Path(to) != output:
            return rename(new, to)
        output.mkdir()
        (output / "its.txt").write_text("")
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(os, "rename", move)
    assert run_average(home, output) == 2
    assert f"--output={output} cannot be written" in capsys.readouterr().err
    assert sorted(x.name for x in tmp_path.iterdir()) == ["file", "mean"]
    assert [path.name for path in output.iterdir()] == ["its.txt"]


def test_training_starts_from_it(home, tmp_path):
    assert run_average(home, tmp_path / "mean") == 0
    with pytest.raises(UserError, match="mean of several runs.*--init_from"):
        train_run(tmp_path / "mean", **load_trained(tmp_path / "mean").options)
    result = train_run(tmp_path / "more", **CHANGES, init_from=str(tmp_path / "mean"))
    assert result["steps"] > 0
