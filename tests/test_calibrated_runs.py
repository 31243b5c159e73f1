"""Temperatures kept with runs, and runs averaged: as by hand, and never silently."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from fixtures_runs import run_main, train_run
from PIL import Image
from scipy import optimize, special

import cnn
from cnn import config as config_module
from cnn import predict
from cnn.checkpoints import atomic, workdir
from cnn.data import load_dataset
from cnn.errors import UserError
from cnn.training import steps
from cnn.training.ensemble import Ensemble, Examples
from cnn.training.trained import load_trained

STEPS = "64", "128"  # of the checkpoints
MLP = {"model": "mlp", "mlp_widths": (8,), "ema_decay": 0.0, "log_every_steps": 0}


def evaluate(*flags):
    return run_main("--mode=evaluate", *flags)


def read(path):
    return json.loads(path.read_text())


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_probabilities(path):
    rows = read_csv(path)
    names = [name for name in rows[0] if name.startswith("probability_")]
    return np.array([[float(row[name]) for name in names] for row in rows])


def compute_logits(run, split="test"):
    """Compute a run's logits of a part of its data, float64, and the labels."""
    found = load_trained(run)
    images = getattr(
        load_dataset(config_module.make_config(workdir.read_config(run)).data), split
    )
    pixels = images.read(np.arange(len(images)))
    look = jax.jit(lambda v, x: steps.predict_step(found.structure, v, x))
    return np.asarray(look(found.variables, pixels), np.float64), images.labels


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Return a run with a temperature, evaluated image by image; not to be changed."""
    run = tmp_path_factory.mktemp("calibrated") / "run"
    train_run(run, train_examples=0, epochs=2, checkpoint_every_epochs=1.0, **MLP)
    assert evaluate(f"--workdir={run}", "--calibrate", "--per_image") == 0
    return run


@pytest.fixture
def run(calibrated, tmp_path):
    """Return a copy of it."""
    return shutil.copytree(calibrated, tmp_path / "run")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return a run of another model, scaling and size of image on the same images."""
    run = tmp_path_factory.mktemp("other") / "run"
    train_run(run, scaling="symmetric", image_size=12, epochs=1, **MLP)
    return run


def test_the_temperature_is_scipys(calibrated):
    logits, labels = compute_logits(calibrated, "validation")

    def measure(temperature):
        logs = special.log_softmax(logits / temperature, axis=1)
        return -logs[np.arange(len(labels)), labels].mean()

    options = {"bounds": (0.05, 20), "options": {"xatol": 1e-12}}
    expected = optimize.minimize_scalar(measure, method="bounded", **options)
    (kept,) = read(calibrated / "calibration.json").values()
    assert kept["temperature"] == pytest.approx(expected.x, rel=1e-6)
    assert kept["validation_images"] == len(labels) == 144
    likelihood = kept["negative_log_likelihood"]
    assert likelihood["after"] == pytest.approx(expected.fun, rel=1e-6)
    assert likelihood["before"] == pytest.approx(measure(1), rel=1e-5)
    assert likelihood["after"] < likelihood["before"]


def test_an_evaluation_has_the_numbers_before_and_after(calibrated):
    found, (logits, labels) = (
        read(calibrated / "evaluation.json"),
        compute_logits(calibrated),
    )
    for name, temperature in (("calibration", 1), ("calibrated", found["temperature"])):
        logs = special.log_softmax(logits / temperature, axis=1)
        own = logs[np.arange(len(labels)), labels]
        value = found[name]["negative_log_likelihood"]["value"]
        assert value == pytest.approx(-own.mean(), rel=1e-5)
        assert found[name]["accuracy"]["value"] == found["accuracy"]
        assert sum(x["count"] for x in found[name]["bins"]) == found["count"] == 360
        for measure in ("accuracy", "expected_calibration_error", "brier_score"):
            low, high = found[name][measure]["interval"]
            assert 0 <= low < high <= 2
    assert found["temperature"] != 1


def test_probabilities_are_calibrated_everywhere(run, tmp_path, capsys):
    logits, _ = compute_logits(run)
    (kept,) = read(run / "calibration.json").values()
    wanted = {
        "auto": special.softmax(logits / kept["temperature"], axis=1),
        "off": special.softmax(logits, axis=1),
    }
    assert np.abs(wanted["auto"] - wanted["off"]).max() > 0.01
    images = load_dataset(config_module.make_config(workdir.read_config(run)).data).test
    pixels = images.read(np.arange(5))
    Image.fromarray(pixels[0, ..., 0]).save(tmp_path / "0.png")
    for choice, shares in wanted.items():
        flags = f"--workdir={run}", f"--calibration={choice}"
        assert evaluate(*flags, "--per_image") == 0
        assert ("calibrated, T=" in capsys.readouterr().out) == (choice == "auto")
        found = read_probabilities(run / "evaluation.csv")
        np.testing.assert_allclose(found, shares, rtol=1e-4, atol=1e-7)
        assert ("calibrated" in read(run / "evaluation.json")) == (choice == "auto")
        files = f"--predict_images={tmp_path}/0.png"
        assert run_main("--mode=predict", *flags, files) == 0
        assert ("calibrated, T=" in capsys.readouterr().out) == (choice == "auto")
        (row,) = read_csv(run / "predictions.csv")
        assert float(row["probability"]) == pytest.approx(shares[0].max(), abs=2e-6)
        for found in (
            predict.load_classifier(run, calibration=choice)(pixels),
            cnn.load(run, calibration=choice).classify(pixels),
            cnn.load(run / "checkpoints" / STEPS[1], calibration=choice).classify(
                pixels
            ),
        ):
            np.testing.assert_allclose(found, shares[:5], rtol=1e-4, atol=1e-7)


def test_a_temperature_of_other_weights_is_not_used(run, capsys):
    step, kept = next(iter(read(run / "calibration.json").items()))
    assert evaluate(f"--workdir={run}", f"--checkpoint={STEPS[0]}") == 0
    capsys.readouterr()
    assert "temperature" not in read(run / f"evaluation,checkpoint={STEPS[0]}.json")
    changed = {step: kept | {"weights_sha256": "0" * 64}}
    (run / "calibration.json").write_text(json.dumps(changed))
    assert evaluate(f"--workdir={run}") == 0
    assert "is of other weights of step 128" in capsys.readouterr().out
    assert "temperature" not in read(run / "evaluation.json")


def test_each_checkpoint_has_a_temperature_of_its_own(run):
    before = read(run / "calibration.json")
    flags = f"--workdir={run}", f"--checkpoint={STEPS[0]}", "--calibrate"
    assert evaluate(*flags) == 0
    after = read(run / "calibration.json")
    assert after.keys() == set(STEPS) and after.items() >= before.items()
    assert after[STEPS[0]]["temperature"] != after[STEPS[1]]["temperature"]


@pytest.mark.parametrize("text", ["{", "[]", '{"128": 3}', '{"temperature"}'])
def test_a_damaged_file_is_refused_and_can_be_left_out(run, capsys, text):
    kept = read(run / "calibration.json")[STEPS[1]]
    if "temperature" in text:
        text = json.dumps({STEPS[1]: kept | {"temperature": -1.0}})
    (run / "calibration.json").write_text(text)
    assert evaluate(f"--workdir={run}") == 2
    error = capsys.readouterr().err
    assert "calibration.json is damaged" in error and "remove it, and fit it" in error
    assert evaluate(f"--workdir={run}", "--calibration=off") == 0


def test_without_validation_nothing_is_fitted(run, capsys):
    stored = workdir.read_config(run)
    atomic.write_json(run / "config.json", stored | {"validation_fraction": 0.0})
    assert evaluate(f"--workdir={run}", "--calibrate") == 2
    assert "--validation_fraction=0.1 sets aside" in capsys.readouterr().err


def test_images_that_were_trained_on_are_refused(run, capsys):
    (run / "calibration.json").unlink()
    stored = workdir.read_config(run)
    atomic.write_json(run / "config.json", stored | {"split_seed": 1})
    assert evaluate(f"--workdir={run}", "--calibrate") == 2
    error = capsys.readouterr().err
    assert "the run was trained on 1" in error and "of the 144 validation" in error
    assert not (run / "calibration.json").exists()


def test_an_ensemble_is_the_mean_of_its_members(run, other, capsys):
    assert evaluate(f"--workdir={run},{other}", "--ensemble", "--per_image") == 0
    assert "ensemble of 2" in capsys.readouterr().out
    found = read(run / "ensemble.json")
    shares = [read_probabilities(x / "evaluation.csv") for x in (run, other)]
    # The other one sees other sizes: by its own evaluation.
    logits, labels = compute_logits(run)
    kept = read(run / "calibration.json")[STEPS[1]]["temperature"]
    wanted = special.softmax(logits / kept, axis=1)
    np.testing.assert_allclose(shares[0], wanted, rtol=1e-4, atol=1e-7)
    mean = np.mean(shares, axis=0)
    np.testing.assert_allclose(
        read_probabilities(run / "ensemble.csv"), mean, rtol=1e-6, atol=1e-9
    )
    own = mean[np.arange(len(labels)), labels]
    assert found["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-6)
    assert found["accuracy"] == (mean.argmax(axis=1) == labels).mean()
    assert found["top5"] == ((mean > own[:, None]).sum(axis=1) < 5).mean()
    assert [x["count"] for x in found["per_class"]] == np.bincount(labels).tolist()
    accuracies = [member["accuracy"] for member in found["members"]]
    assert found["gain_over_best"] == found["accuracy"] - max(accuracies)
    assert found["gain_over_mean"] == pytest.approx(
        found["accuracy"] - np.mean(accuracies)
    )
    differ = (shares[0].argmax(axis=1) != shares[1].argmax(axis=1)).mean()
    assert found["disagreement"] == differ > 0
    assert [x["temperature"] for x in found["members"]] == [kept, None]
    assert [x["image_shape"] for x in found["members"]] == [[8, 8, 1], [12, 12, 1]]
    brier = ((mean - np.eye(10)[labels]) ** 2).sum(axis=1).mean()
    assert found["calibration"]["brier_score"]["value"] == pytest.approx(brier)


def test_an_ensemble_replaces_no_file_of_others(run, other, tmp_path, capsys):
    copy = shutil.copytree(other, tmp_path / "copy")
    assert evaluate(f"--workdir={run},{other}", "--ensemble") == 0
    before = read(run / "ensemble.json")
    assert evaluate(f"--workdir={run},{other}", "--ensemble") == 0
    assert evaluate(f"--workdir={run},{copy}", "--ensemble") == 2
    assert "ensemble.json is of other runs" in capsys.readouterr().err
    assert read(run / "ensemble.json") == before
    (run / "ensemble.json").write_text('{"mine": 1}')
    assert evaluate(f"--workdir={run},{other}", "--ensemble") == 2


def test_runs_that_cannot_be_averaged(run, other, tmp_path, capsys):
    assert evaluate(f"--workdir={run}", "--ensemble") == 2
    assert "give --workdir=A,B" in capsys.readouterr().err
    empty = shutil.copytree(other, tmp_path / "empty")
    shutil.rmtree(empty / "checkpoints")
    assert evaluate(f"--workdir={run},{empty}", "--ensemble") == 1
    printed = capsys.readouterr().out
    assert "1 of 2 runs failed: no ensemble" in printed
    assert not (run / "ensemble.json").exists()
    (run / "ensemble.json").write_text("of others, which no ensemble would replace")
    assert evaluate(f"--workdir={empty},{run}", "--ensemble") == 1


def make_examples(class_names, labels, shares, stamps="abc"):
    return Examples(
        class_names=tuple(class_names),
        names=np.array(["x", "y", "z"], object),
        stamps=np.array(list(stamps), object),
        labels=np.array(labels),
        log_probabilities=np.log(np.array(shares)),
    )


def test_classes_are_matched_by_name():
    mean = Ensemble()
    mean.add("a", make_examples("uv", [0, 1, 0], [[0.9, 0.1]] * 3))
    mean.add("b", make_examples("vu", [1, 0, 1], [[0.3, 0.7]] * 3))
    found = mean.average()
    np.testing.assert_allclose(np.exp(found.log_probabilities), [[0.8, 0.2]] * 3)
    assert found.class_names == ("u", "v") and found.labels.tolist() == [0, 1, 0]
    assert mean.compare("ab").tolist() == [[0, 0], [0, 0]]
    mean.add("c", make_examples("uv", [0, 1, 0], [[0.1, 0.9]] * 3))
    assert mean.compare("cab").tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_runs_of_different_tasks_are_refused():
    mean = Ensemble()
    mean.add("a", make_examples("uv", [0, 1, 0], [[0.9, 0.1]] * 3))
    several = make_examples("uv", np.eye(2)[[0, 1, 0]], [[[0.9, 0.1]] * 2] * 3)
    with pytest.raises(UserError, match="b is a multilabel run, and the first one a"):
        mean.add("b", several)


@pytest.mark.parametrize(
    "names, labels, stamps, message",
    [
        ("uw", [0, 1, 0], "abc", "b knows the classes u, w, and the first run u, v"),
        ("uv", [1, 1, 0], "abc", "images of b are not the 3 of the first run"),
        ("uv", [0, 1, 0], "abd", "images of b are not the 3 of the first run"),
    ],
)
def test_other_images_or_classes_are_refused(names, labels, stamps, message):
    mean = Ensemble()
    mean.add("a", make_examples("uv", [0, 1, 0], [[0.9, 0.1]] * 3))
    with pytest.raises(UserError, match=message):
        mean.add("b", make_examples(names, labels, [[0.9, 0.1]] * 3, stamps))
