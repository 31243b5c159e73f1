"""Trials of a sweep as an ensemble: as by hand, with what was kept, or refused."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from fixtures_runs import ROOT, make_flags, run_main
from scipy import special
from test_readme import check_command, list_commands

from cnn import config as config_module
from cnn.checkpoints import proof, workdir
from cnn.data import load_dataset
from cnn.data.chunks import Loader
from cnn.evaluation import judge, several
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep import members, sweep
from cnn.training import epoch, steps
from cnn.training.trained import load_trained

OPTIONS = {
    "sweep": "model=mlp,logistic_regression; seed=0:2",
    "executor": "map",
    "keep_trials": "all",
    "mlp_widths": (8,),
    "train_examples": 100,
    "batch_size": 20,
    "epochs": 2,
    "validation_fraction": 0.1,
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Return the directory of a sweep that has kept all trials; not to be changed."""
    directory = tmp_path_factory.mktemp("swept") / "run"
    preset = config_module.load_preset("digits")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cnn.sweep.plots.draw_plots", lambda *_: [])
        config = config_module.make_config(preset, OPTIONS)
        assert sweep.sweep(config, directory, Terminal()) == 0
    return directory


@pytest.fixture
def copy(swept, tmp_path):
    """Return a copy of it."""
    return shutil.copytree(swept, tmp_path / "run")


def run_ensemble(directory, *flags):
    return run_main("--mode=evaluate", f"--workdir={directory}", "--ensemble", *flags)


def read(path):
    return json.loads(path.read_text())


def read_test_images(run):
    config = config_module.make_config(workdir.read_config(run))
    return load_dataset(config.data).test


def compute_probabilities(run):
    """Compute a run's probabilities of the test images by numpy, float64."""
    trained, images = load_trained(run), read_test_images(run)
    pixels = images.read(np.arange(len(images)))
    look = jax.jit(lambda v, x: steps.predict_step(trained.structure, v, x))
    logits = np.asarray(look(trained.variables, pixels), np.float64)
    return special.softmax(logits, axis=1)


def test_it_is_the_mean_of_all_trials(copy, monkeypatch, capsys):
    compute, stacks = judge.compute_stacked, []

    def note(structure, weights, *rest):
        stacks.append(len(weights))
        return compute(structure, weights, *rest)

    monkeypatch.setattr(judge, "compute_stacked", note)
    assert run_ensemble(copy, "--per_image") == 0
    assert stacks == [2, 2], "one program for each structure"
    home, runs = copy / "sweep", [copy / "sweep/kept" / str(n) for n in range(4)]
    found, shares = read(home / "ensemble.json"), list(map(compute_probabilities, runs))
    with open(home / "ensemble.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    written = [[float(row[f"probability_{k}"]) for k in range(10)] for row in rows]
    mean, labels = np.mean(shares, axis=0), read_test_images(runs[0]).labels
    np.testing.assert_allclose(written, mean, rtol=0, atol=1e-6)
    assert found["accuracy"] == (mean.argmax(axis=1) == labels).mean()
    own = mean[np.arange(len(labels)), labels]
    assert found["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
    accuracies = [(x.argmax(axis=1) == labels).mean() for x in shares]
    assert [x["accuracy"] for x in found["members"]] == accuracies
    assert found["best_member"] == str(runs[np.argmax(accuracies)])
    assert found["best_accuracy"] == max(accuracies)
    assert found["mean_accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["gain_over_best"] == found["accuracy"] - max(accuracies)
    votes = [x.argmax(axis=1) for x in shares]
    pairs = [[(one != other).mean() for other in votes] for one in votes]
    np.testing.assert_allclose(found["disagreement_of_pairs"], pairs)
    upper = np.array(pairs)[np.triu_indices(4, 1)]
    assert found["disagreement"] == pytest.approx(upper.mean()) and upper.mean() > 0
    hashes = [proof.hash_variables(load_trained(run).variables) for run in runs]
    assert [x["weights_sha256"] for x in found["members"]] == hashes
    brier = ((mean - np.eye(10)[labels]) ** 2).sum(axis=1).mean()
    assert found["calibration"]["brier_score"]["value"] == pytest.approx(brier)
    assert "over its best member" in capsys.readouterr().out


def test_what_the_page_says_to_type_works(swept, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    section = page.partition("## A sweep as an ensemble")[2].partition("\n## ")[0]
    sweeping, *evaluating = list_commands(section)
    check_command(sweeping[2:], capsys)
    assert "--keep_trials=all" in sweeping and "--workdir=runs/rates" in sweeping
    monkeypatch.chdir(tmp_path)
    shutil.copytree(swept, "runs/rates")
    counts = []
    for words in evaluating:
        assert run_main(*words[2:]) == 0, words
    for name in ("ensemble", "ensemble,members=seeds"):
        found = read(tmp_path / f"runs/rates/sweep/{name}.json")
        counts.append(len(found["members"]))
    assert counts == [4, 2]


def test_stacked_models_compute_the_bits_of_each(swept):
    runs = [load_trained(swept / "sweep/kept" / str(n)) for n in range(2)]
    images = read_test_images(swept / "sweep/kept/0")
    options = config_module.load_preset("digits")
    data = config_module.make_config(options).data
    loader = Loader(images, data, devices.make_mesh())
    structure, weights = runs[0].structure, [run.variables for run in runs]
    together = epoch.compute_stacked(structure, weights, loader, 64, Stop(), [None] * 2)
    for (metrics, found), variables in zip(together, weights, strict=True):
        examples = {}
        alone = epoch.compute_metrics(
            structure, variables, loader, 64, Stop(), examples
        )
        assert metrics == alone
        for name, parts in examples.items():
            np.testing.assert_array_equal(found[name], np.concatenate(parts))


def test_what_does_not_fit_together_comes_after_each_other(copy, monkeypatch):
    assert run_ensemble(copy) == 0
    together = read(copy / "sweep/ensemble.json")
    monkeypatch.setattr(several, "_STACKED_BYTES", 1)
    monkeypatch.setattr(judge, "compute_stacked", None)
    assert run_ensemble(copy) == 0
    apart = read(copy / "sweep/ensemble.json")
    for one, other in zip(*(x.pop("members") for x in (together, apart)), strict=True):
        assert one.pop("loss") == pytest.approx(other.pop("loss"), rel=1e-6)
        assert one == other
    assert together == apart


def test_the_seeds_of_the_best_setting(copy, capsys):
    setting = read(copy / "sweep/best.json")["setting"]
    assert run_ensemble(copy, "--members=seeds") == 0
    found = read(copy / "sweep/ensemble,members=seeds.json")
    numbers = [int(x["workdir"].rpartition("/")[2]) for x in found["members"]]
    assert numbers == setting["trials"] and len(numbers) == 2
    assert not (copy / "sweep/ensemble.json").exists()


def test_trials_without_weights_are_left_out_and_said(copy, capsys):
    kept = copy / "sweep/kept"
    shutil.rmtree(kept / "1")
    assert run_ensemble(copy) == 0
    said = capsys.readouterr().out
    assert "3 of 4 trials have weights; left out: 1 (--keep_trials=all" in said
    assert len(read(copy / "sweep/ensemble.json")["members"]) == 3
    for number in (0, 2):
        shutil.rmtree(kept / str(number))
    assert run_ensemble(copy) == 2
    assert f"only {kept / '3'} has weights" in capsys.readouterr().err
    shutil.rmtree(kept / "3")
    assert run_ensemble(copy) == 2
    error = capsys.readouterr().err
    assert "has kept no weights of the 4 trials" in error
    assert "--keep_trials=all of a new sweep" in error


def test_trials_that_came_or_went_replace_the_sweeps_own_ensemble(copy, tmp_path):
    assert run_ensemble(copy) == 0
    shutil.rmtree(copy / "sweep/kept/0")
    assert run_ensemble(copy) == 0
    assert len(read(copy / "sweep/ensemble.json")["members"]) == 3
    other = {"members": [{"workdir": str(tmp_path / "other")}]}
    (copy / "sweep/ensemble.json").write_text(json.dumps(other))
    assert run_ensemble(copy) == 2
    assert read(copy / "sweep/ensemble.json") == other


def test_what_cannot_be_meant_is_refused(copy, capsys):
    one = copy / "sweep/kept/0"
    assert run_ensemble(one) == 2
    assert "give --workdir=A,B" in capsys.readouterr().err
    two = f"{one},{copy / 'sweep/kept/1'}"
    assert run_ensemble(two, "--members=seeds") == 2
    assert "--workdir names none" in capsys.readouterr().err
    assert run_main("--mode=evaluate", f"--workdir={one}", "--members=seeds") == 2
    assert "--members=seeds would have no effect" in capsys.readouterr().err
    assert run_main("--mode=evaluate", f"--workdir={copy}") == 2
    assert "it holds a sweep: give a run of it, as" in capsys.readouterr().err
    with workdir.lock(copy):
        assert run_ensemble(copy) == 2
        assert "is in use by process" in capsys.readouterr().err
    with workdir.lock(one):
        assert run_ensemble(two) == 2
        assert "is in use by process" in capsys.readouterr().err
    for path in (copy / "sweep").glob("trials.*"):
        path.unlink()
    assert run_ensemble(copy) == 2
    assert "no trial of" in capsys.readouterr().err


def test_a_sweep_keeps_the_choice_it_began_with(copy, capsys):
    flags = make_flags(OPTIONS | {"keep_trials": "best"})
    assert run_main("--mode=sweep", f"--workdir={copy}", *flags) == 2
    assert "--keep_trials=all (now best)" in capsys.readouterr().err
    assert (copy / "sweep/kept/0/result.json").exists()


def test_trials_of_a_studys_workers_are_found(copy):
    home, worker = copy / "sweep", copy / "sweep/workers/one"
    worker.mkdir(parents=True)
    for name in ("trials.jsonl", "kept"):
        (home / name).rename(worker / name)
    found = members.find_members([copy], "all", Terminal())
    assert found.directories == tuple(worker / "kept" / str(n) for n in range(4))
    assert found.place == home
    one = home / "best"
    mixed = members.find_members([one, copy], "seeds", Terminal())
    assert mixed.directories[0] == one and len(mixed.directories) == 3
    assert mixed.place is None
