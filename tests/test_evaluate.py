"""Evaluation equals numpy for every batch size, and lies beside earlier ones."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from fixtures_runs import ROOT, TINY, run_main

from cnn import config as config_module
from cnn import predict
from cnn.checkpoints import atomic, workdir
from cnn.data import forget_dataset, load_dataset
from cnn.errors import UserError
from cnn.evaluation import evaluate, written
from cnn.runtime import devices
from cnn.runtime.terminal import Terminal
from cnn.training import steps


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """Return a copy of the trained run that evaluations may be written into."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("evaluate") / "run")


def evaluate_run(directory, **changes):
    stored = workdir.read_config(directory)
    stored = forget_dataset(stored, changes.get("dataset", stored["dataset"]))
    config = config_module.make_config(stored, changes)
    return evaluate.evaluate(config, directory, Terminal())


@pytest.fixture(scope="module")
def expected(run):
    """Compute the test set's metrics in numpy, float64, from the logits."""
    found = predict.load_trained(run)
    images = load_dataset(config_module.make_config(TINY).data).test
    pixels = images.read(np.arange(len(images)))
    logits = jax.jit(lambda v, x: steps.predict_step(found.structure, v, x))(
        found.variables, pixels
    )
    logits, labels = np.asarray(logits, np.float64), images.labels
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    right = log_probabilities[np.arange(len(labels)), labels]
    predicted = logits.argmax(1)
    rank = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, predicted), 1)
    return {
        "loss": -right.mean(),
        "correct": int((predicted == labels).sum()),
        "count": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "top5": float((rank < 5).mean()),
        "confusion": confusion.tolist(),
    }


@pytest.fixture
def one_device(monkeypatch):
    """Let everything run on the first device alone, as odd batch sizes need."""
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    monkeypatch.setattr(devices, "make_mesh", lambda axes="": mesh)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_equals_numpy_for_odd_batch_sizes(run, expected, one_device, batch_size):
    check_evaluation(run, expected, batch_size)


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_equals_numpy_on_two_devices(run, expected, batch_size):
    check_evaluation(run, expected, batch_size)


def check_evaluation(run, expected, batch_size):
    found = evaluate_run(run, batch_size=batch_size)
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    for name in ("correct", "count", "accuracy", "top5", "confusion"):
        assert found[name] == expected[name], name
    assert json.loads((run / "evaluation.json").read_text()) == found
    assert found["step"] == 15 and found["split"] == "test"


def test_result_of_the_run_is_the_same(run, expected):
    result = json.loads((run / "result.json").read_text())
    assert result["test_correct"] == expected["correct"]
    assert result["test_count"] == expected["count"] == 360
    assert result["test_loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_a_second_evaluation_lies_beside_the_first(run):
    names = set()
    for changes in (
        {},
        {"split": "validation"},
        {"split": "train", "checkpoint": "best"},
        {"image_size": 10},
        {"dataset": "npz:/a/b/x.npz"},
        {"dataset": "npz:/a_b/x.npz"},
        {"dataset": f"npz:{run}/a/{'long/' * 60}x.npz"},
    ):
        stored = workdir.read_config(run)
        base = forget_dataset(stored, changes.get("dataset", "digits"))
        config = config_module.make_config(base, changes)
        name = written.name_evaluation(config, stored)
        assert re.fullmatch(r"[\w.,=+-]{1,255}", name, re.ASCII), name
        names.add(name)
    assert len(names) == 7
    assert "evaluation.json" in names
    assert "evaluation,split=train,checkpoint=best.json" in names


def test_other_split_and_checkpoint(run):
    before = (run / "evaluation.json").read_text() if run else ""
    steps_saved = [int(p.name) for p in (run / "checkpoints").iterdir()]
    found = evaluate_run(run, split="validation", checkpoint=str(min(steps_saved)))
    assert found["count"] == 144 and found["step"] == min(steps_saved)
    assert (run / "evaluation.json").read_text() == before
    name = f"evaluation,split=validation,checkpoint={min(steps_saved)}.json"
    assert json.loads((run / name).read_text()) == found


def test_best_checkpoint_has_the_best_validation_metric(run):
    result = json.loads((run / "result.json").read_text())
    found = evaluate_run(run, split="validation", checkpoint="best")
    assert found["step"] == result["best_step"]
    assert found["accuracy"] == result["best_validation"]


def save_npz(path, count=30, shape=(8, 8), classes=10):
    labels = np.arange(count) % classes
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    parts = {"x_train": pixels, "y_train": labels, "x_test": pixels, "y_test": labels}
    np.savez(path, **parts)
    return f"npz:{path}"


def test_other_data_of_the_same_classes(run, tmp_path):
    found = evaluate_run(
        run, dataset=save_npz(tmp_path / "a.npz"), train_examples=0, batch_size=10
    )
    assert found["count"] == 30
    for size in (8, 12):
        found = evaluate_run(run, image_size=size)
        assert found["count"] == 360


@pytest.mark.parametrize(
    "data, message",
    [
        ({"classes": 12}, "not know the classes 10, 11 of npz.*0, 1, 2, 3, 4, … \\(10"),
        ({"shape": (8, 8, 3)}, "trained on images of 8x8x1 and cannot take 8x8x3"),
    ],
)
def test_data_that_does_not_fit_is_refused(run, tmp_path, data, message):
    dataset = save_npz(tmp_path / "a.npz", **data)
    with pytest.raises(UserError, match=message):
        evaluate_run(run, dataset=dataset, train_examples=0, validation_fraction=0.0)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--split=tset"], "--split=tset is unknown; did you mean test?"),
        (["--checkpoint=7777"], "--checkpoint=7777 is not there"),
        (["--checkpoint=newest"], "has latest, best and steps"),
        (["--workdir=/nowhere/run"], "--workdir=/nowhere/run holds no run"),
        ([f"--workdir={ROOT}"], "holds no run (config.json is missing)"),
    ],
)
def test_mistakes_are_told(run, capsys, flags, message):
    before = sorted(path.name for path in run.iterdir())
    code = run_main("--mode=evaluate", f"--workdir={run}", *flags)
    assert code == 2 and message in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_set_that_is_not_there(tmp_path, trained, capsys):
    stored = workdir.read_config(trained) | {"validation_fraction": 0.0}
    run = shutil.copytree(trained, tmp_path / "run")
    atomic.write_json(run / "config.json", stored)
    code = run_main("--mode=evaluate", f"--workdir={run}", "--split=validation")
    assert code == 2 and "digits has no such set" in capsys.readouterr().err


def test_a_number_that_cannot_be_written_is_printed(tmp_path, trained, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "evaluation.json").mkdir()
    with pytest.raises(UserError, match="evaluation.json cannot be written"):
        evaluate_run(run)
    assert "test: accuracy " in capsys.readouterr().out


def test_a_stored_value_that_no_flag_allows_is_told_of_its_file(
    trained, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    stored = json.loads((run / "config.json").read_text())
    atomic.write_json(run / "config.json", stored | {"max_trials": -1000})
    assert run_main("--mode=evaluate", f"--workdir={run}") == 2
    message = capsys.readouterr().err
    assert "run/config.json: --max_trials=-1000 is outside" in message
