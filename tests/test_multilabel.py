"""Several labels an image: metrics, thresholds, runs, sweeps and what comes of them."""

import csv
import dataclasses
import json
import shutil
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_pairs import SMALL, make_answers
from fixtures_runs import read_lines, run_main, train_run
from PIL import Image
from sklearn import metrics as theirs
from test_resume import Stopper

import cnn
import main
from cnn import train
from cnn.checkpoints import manifest
from cnn.config import load_preset, make_config
from cnn.data import load_dataset
from cnn.errors import UserError
from cnn.runtime import devices
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep.executors import Loop, Stacked
from cnn.training import epoch, losses, multilabel, tasks
from cnn.training.options import LossOptions
from cnn.training.steps import Structure, create_train_sums
from cnn.training.trained import load_trained, make_classifier
from cnn.visualize.compute import mistakes


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed):
    logits, labels, example_losses = make_answers(seed=seed)
    found = multilabel.summarise(logits, labels, example_losses)
    for average, name in (("macro", "mean"), ("micro", "micro")):
        expected = theirs.average_precision_score(labels, logits, average=average)
        assert found[f"{name}_average_precision"] == pytest.approx(expected, rel=1e-12)
    own = [x["average_precision"] for x in found["per_class"]]
    each = theirs.average_precision_score(labels, logits, average=None)
    np.testing.assert_allclose(own, each, rtol=1e-12)


def test_counts_at_thresholds_are_those_of_scikit_learn():
    logits, labels, example_losses = make_answers()
    thresholds = (0.1, 0.3, 0.5, 0.6, 0.96)
    found = multilabel.summarise(logits, labels, example_losses, thresholds)
    chosen = 1 / (1 + np.exp(-np.float64(logits))) >= thresholds
    for average, name in (("macro", "f1"), ("micro", "micro_f1")):
        expected = theirs.f1_score(labels, chosen, average=average, zero_division=0)
        assert found[name] == pytest.approx(expected, rel=1e-12)
    shares = ["precision", "recall", "f1"]
    *expected, counts = theirs.precision_recall_fscore_support(
        labels, chosen, zero_division=0
    )
    for name, values in zip(shares, expected, strict=True):
        np.testing.assert_allclose([x[name] for x in found["per_class"]], values)
    assert [x["count"] for x in found["per_class"]] == counts.tolist()
    assert [x["threshold"] for x in found["per_class"]] == list(thresholds)
    assert found["exact_match"] == theirs.accuracy_score(labels, chosen)
    assert found["loss"] == pytest.approx(example_losses.mean())


def test_a_class_without_images_is_in_no_mean():
    logits, labels, example_losses = make_answers()
    whole = multilabel.summarise(logits, labels, example_losses)
    empty = np.pad(labels, [(0, 0), (0, 1)])
    wider = np.pad(logits, [(0, 0), (0, 1)], constant_values=9)
    found = multilabel.summarise(wider, empty, example_losses)
    for name in ("mean_average_precision", "f1"):
        assert found[name] == whole[name] > 0
    assert json.dumps(found["per_class"][-1]["average_precision"]) == "null"


def test_thresholds_maximise_f1_and_the_highest_is_taken():
    logits, labels, _ = make_answers()
    labels[:, 4] = 0
    found = multilabel.tune_thresholds(logits, labels)
    probabilities = multilabel.compute_probabilities(logits)
    for k in range(4):
        values = np.unique(probabilities[:, k])
        f1 = [
            theirs.f1_score(labels[:, k], probabilities[:, k] >= value)
            for value in values
        ]
        best = np.flatnonzero(np.isclose(f1, max(f1)))[-1]
        low = values[best - 1] if best else 0
        assert low < found[k] == (np.float64(low) + values[best]) / 2 < values[best]
    assert found[4] == multilabel.THRESHOLD
    # F1 is 2 / 3 with the first alone, and with all four.
    ranked, there = np.float32([[2], [0], [-1], [-2]]), np.array([[1], [0], [0], [1]])
    (threshold,) = multilabel.tune_thresholds(ranked, there)
    first, second = multilabel.compute_probabilities(ranked[:2, 0]).astype(float)
    assert threshold == (first + second) / 2


def test_targets_weights_and_training_counts():
    labels = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [1, 0, 1]], np.uint8)
    targets = losses.make_targets(jnp.asarray(labels), 3, None)
    assert targets.dtype == jnp.float32 and targets.tolist() == labels.tolist()
    smooth = losses.make_targets(jnp.asarray(labels), 3, jnp.float32(0.2))
    np.testing.assert_allclose(smooth, np.where(labels, 0.9, 0.1), rtol=1e-6)
    options = LossOptions(class_weights="balanced")
    weights = losses.compute_class_weights(options, labels, 3)
    np.testing.assert_allclose(weights, [5 / (2 * 3), 0, 5 / (2 * 2)])
    assert losses.sum_weights("bce", weights, jnp.asarray(labels), False) == 4
    logits = jnp.float32([[1, -1, -1], [0, 1, -1], [-1, -1, -1], [1, -1, 1]])
    task = tasks.MULTILABEL
    sums = task.count(logits, jnp.asarray(labels))
    start = create_train_sums(task, 3)
    assert {name: x.shape for name, x in sums.items()} == {
        name: x.shape for name, x in task.create_counts(3).items()
    }
    loss, f1, count = task.divide(start | sums | {"count": 4, "loss": 2.0})
    expected = theirs.f1_score(labels, logits >= 0, average=None, zero_division=0)
    assert (loss, count) == (0.5, 4)
    assert f1 == pytest.approx((expected[0] + expected[2]) / 2)


def test_mean_probabilities_of_views():
    views = [jnp.float32([[-3.0, 0.5]]), jnp.float32([[2.0, 40.0]])]
    found = tasks.MULTILABEL.to_probabilities(tasks.MULTILABEL.average(views))
    each = [tasks.MULTILABEL.to_probabilities(x) for x in views]
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2, rtol=1e-5)


def test_default_structure_has_one_class_an_image():
    fields = {x.name: x.default for x in dataclasses.fields(Structure)}
    assert fields["task"] is tasks.MULTICLASS
    assert tasks.get_task({}) is tasks.MULTICLASS


def test_run_writes_its_metrics_and_thresholds(pairs_run):
    result = json.loads((pairs_run / "result.json").read_text())
    assert result["task"] == "multilabel" and "test_accuracy" not in result
    assert result["test_count"] == 90 and len(result["thresholds"]) == 10
    line = read_lines(pairs_run)[-1]
    assert {"train_f1", "validation_f1", "validation_mean_average_precision"} <= {*line}
    newest, _ = manifest.find_newest(pairs_run / "checkpoints")
    said = manifest.read_description(newest)
    assert said["thresholds"] == result["thresholds"]
    stored = json.loads((pairs_run / "config.json").read_text())
    assert stored["loss"] == "bce"
    assert stored["select_by"] == "mean_average_precision"


@pytest.mark.parametrize("batch_size", [7, 90])
def test_evaluation_is_that_of_the_run_whatever_the_batch(pairs_run, batch_size):
    code = run_main(
        "--mode=evaluate", f"--workdir={pairs_run}", f"--batch_size={batch_size}"
    )
    found = json.loads((pairs_run / "evaluation.json").read_text())
    result = json.loads((pairs_run / "result.json").read_text())
    assert code == 0
    for name in tasks.MULTILABEL.tested:
        assert found[name] == pytest.approx(result[f"test_{name}"], rel=1e-5)
    assert [x["threshold"] for x in found["per_class"]] == result["thresholds"]


def test_threshold_overrides(pairs_run):
    arguments = f"--workdir={pairs_run}", "--threshold=1", "--per_image"
    assert run_main("--mode=evaluate", *arguments) == 0
    path = pairs_run / "evaluation,threshold=1.0.json"  # the run's own stays
    found = json.loads(path.read_text())
    assert found["f1"] == 0 < found["mean_average_precision"]
    assert found["threshold"] == 1
    rows = list(csv.DictReader(path.with_suffix(".csv").open()))
    assert {row["prediction"] for row in rows} == {""}
    assert {len(row["label"].split("|")) for row in rows} == {1, 2}


def test_threshold_is_refused_for_one_class_an_image(trained, capsys):
    arguments = "--mode=evaluate", f"--workdir={trained}", "--threshold=0.5"
    assert run_main(*arguments) == main.USAGE_ERROR
    assert "--threshold=0.5 would have no effect" in capsys.readouterr().err


def test_predictions_name_all_labels(pairs, pairs_run, tmp_path):
    images = load_dataset(make_config({"dataset": pairs}).data).test
    pixels = images.read(np.arange(6))
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{i}.png")
    arguments = f"--workdir={pairs_run}", f"--predict_images={tmp_path}"
    assert run_main("--mode=predict", *arguments) == 0
    rows = list(csv.DictReader((pairs_run / "predictions.csv").open()))
    assert list(rows[0])[:4] == ["path", "labels", "class", "probability"]
    trained = load_trained(pairs_run)
    probabilities = make_classifier(trained)(pixels)
    chosen = probabilities >= np.array(trained.thresholds)
    names = np.array(trained.class_names)
    expected = ["|".join(names[row]) for row in chosen]
    assert [row["labels"] for row in rows] == expected
    assert max(float(row["probability"]) for row in rows) < 1
    model = cnn.load(pairs_run)
    found = model.predict_files(sorted(tmp_path.glob("*.png")))
    assert ["|".join(x.labels) for x in found] == expected
    np.testing.assert_array_equal(model.thresholds, trained.thresholds)


REFUSED = [
    ({"loss": "softmax"}, "--loss=softmax is not for images with several labels"),
    ({"select_by": "accuracy"}, "--select_by=accuracy is no metric of multilabel"),
    ({"task": "multiclass"}, "train example 0 of .* has 2 labels"),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_what_contradicts_the_data_is_refused(pairs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train_run(tmp_path, dataset=pairs, **SMALL | changes)


def test_metrics_of_several_labels_are_refused_for_one(tmp_path):
    with pytest.raises(UserError, match="--select_by=f1 is no metric of multiclass"):
        train_run(tmp_path, select_by="f1")


def test_single_labels_are_taken_as_several_on_request(tmp_path):
    result = train_run(tmp_path, task="multilabel", epochs=1)
    assert result["task"] == "multilabel"


def test_stopped_run_goes_on_to_the_same_bits(pairs, pairs_run, tmp_path, no_pauses):
    with pytest.raises(Interrupted):
        stopper = Stopper(7, signal.SIGTERM)
        train_run(tmp_path, stopper, dataset=pairs, **SMALL)
    result = train_run(tmp_path, dataset=pairs, **SMALL)
    reference = json.loads((pairs_run / "result.json").read_text())
    for name in ("state_sha256", "thresholds", "test_f1"):
        assert json.dumps(result[name]) == json.dumps(reference[name])
    assert read_lines(tmp_path) == read_lines(pairs_run)


def make_pairs_setup(pairs, **changes):
    """Make the setup of a run on the pairs and its config."""
    config = make_config(load_preset("digits"), {"dataset": pairs, **SMALL, **changes})
    config = config.change({"widths": (4,), "batch_size": 20})
    return train.make_setup(config, {}, Terminal(), Stop()), config


@pytest.mark.parametrize("name", ["map", "vmap"])
def test_stacked_trials_are_measured_as_alone(pairs, name):
    setup, config = make_pairs_setup(pairs)
    configs = [config, config.change({"seed": 1, "learning_rate": 0.3})]
    loop, stacked = Loop(setup, Stop(), 2), Stacked(setup, Stop(), name, 2)
    ones, others = loop.create(configs), stacked.create(configs)
    ones, results = loop.train_epoch(ones, configs, 0, [True, True])
    others, found = stacked.train_epoch(others, configs, 0, [True, True])
    for one, other in zip(results, found, strict=True):
        assert other.metric == pytest.approx(one.metric, abs=0.02)
    ones = [one for one in loop.evaluate(ones, "validation", [True, True])]
    others = stacked.evaluate(others, "validation", [True, True])
    for one, other in zip(ones, others, strict=True):
        assert one["count"] == other["count"] == len(setup.loaders["validation"])
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        name = "mean_average_precision"
        assert other[name] == pytest.approx(one[name], rel=1e-2)
        np.testing.assert_allclose(other["thresholds"], one["thresholds"], atol=1e-2)


def test_thresholds_hold_for_the_test_set_alone(pairs):
    setup, config = make_pairs_setup(pairs)
    stacked, loop = Stacked(setup, Stop(), "map", 1), Loop(setup, Stop(), 1)
    for executor in (stacked, loop):
        states = executor.create([config])
        own = [(1.0,) * 10]
        assert executor.evaluate(states, "test", [True], own)[0]["f1"] == 0
        plain = executor.evaluate(states, "test", [True], [None])[0]
        assert [x["threshold"] for x in plain["per_class"]] == [0.5] * 10
        for split in ("test", "validation"):
            found = executor.evaluate(states, split, [True])[0]
            assert ("thresholds" in found) == (split == "validation")


def test_devices_do_not_matter(pairs):
    setup, _ = make_pairs_setup(pairs, mesh="data:1")
    spread, _ = make_pairs_setup(pairs, mesh="data:2")
    assert devices.make_mesh("data:2").size == 2
    found = []
    for one in (setup, spread):
        state = one.phases[0].create(one.numbers, {})
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        structure, loader = one.phases[0].structure, one.loaders["test"]
        found.append(epoch.compute_metrics(structure, variables, loader, 8, Stop()))
    assert found[0]["count"] == found[1]["count"] == 90
    for name in tasks.MULTILABEL.tested:
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5)


def test_weights_of_one_class_an_image_start_a_run_of_several(trained, pairs, tmp_path):
    kept = train_run(tmp_path / "a", dataset=pairs, **SMALL, init_from=str(trained))
    assert kept["task"] == "multilabel"
    other = {"init_from": str(trained), "num_classes": 12}
    train_run(tmp_path / "b", dataset=pairs, **SMALL, **other)
    assert load_trained(tmp_path / "b").structure.num_classes == 12


def test_pictures_show_missing_and_added_labels(pairs_run, tmp_path, capsys):
    arguments = f"--workdir={pairs_run}", f"--output={tmp_path}"
    pictures = "--pictures=mistakes,curves,invariance"
    assert run_main("--mode=visualize", pictures, *arguments) == 0
    names = {path.stem for path in tmp_path.rglob("*.png")}
    assert names == {"curves", "label_classes", "label_errors"}
    said = capsys.readouterr().out
    assert "confusion and reliability" in said
    assert "invariance: not drawn" in said


def test_errors_are_sorted_by_how_sure_they_are():
    probabilities = np.array([[0.9, 0.6], [0.2, 0.8], [0.95, 0.1], [0.4, 0.3]])
    there = np.array([[1, 0], [0, 1], [0, 0], [1, 0]], bool)
    chosen = probabilities >= 0.5
    found = mistakes.find_label_errors(probabilities, chosen, there, 9)
    assert found.tolist() == [2, 0, 3]
    few = mistakes.find_label_errors(probabilities, chosen, there, 1)
    assert few.tolist() == [2]


def read_shares(path):
    """Read each image's labels, bool [N, K], and probabilities of a CSV file."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("probability_")]
    shares = [[float(row[name]) for name in names] for row in rows]
    labels = [row["label"].split("|") for row in rows]
    truth = [[name.partition("_")[2] in own for name in names] for own in labels]
    return np.array(truth), np.array(shares)


def test_an_ensemble_averages_each_class(pairs, pairs_run, tmp_path):
    runs = [shutil.copytree(pairs_run, tmp_path / "a"), tmp_path / "b"]
    train_run(runs[1], dataset=pairs, seed=1, **SMALL)
    names = f"--workdir={runs[0]},{runs[1]}"
    assert run_main("--mode=evaluate", names, "--ensemble", "--per_image") == 0
    found = json.loads((runs[0] / "ensemble.json").read_text())
    shares = [read_shares(run / "evaluation.csv")[1] for run in runs]
    truth, written = read_shares(runs[0] / "ensemble.csv")
    mean = np.mean(shares, axis=0)
    np.testing.assert_allclose(written, mean, rtol=0, atol=1e-6)
    own = [load_trained(run).thresholds for run in runs]
    tuned = np.mean(own, axis=0)
    thresholds = [x["threshold"] for x in found["per_class"]]
    assert thresholds == pytest.approx(tuned.tolist())
    wanted = {
        "mean_average_precision": theirs.average_precision_score(truth, mean),
        "f1": theirs.f1_score(truth, mean >= tuned, average="macro", zero_division=0),
        "loss": -np.where(truth, np.log(mean), np.log1p(-mean)).mean(),
    }
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    one, other = (x >= np.array(y) for x, y in zip(shares, own, strict=True))
    assert found["disagreement"] == (one != other).any(axis=1).mean() > 0
    precisions = [x["mean_average_precision"] for x in found["members"]]
    gain = found["mean_average_precision"] - max(precisions)
    assert found["compared_by"] == "mean_average_precision"
    assert found["gain_over_best"] == gain and found["task"] == "multilabel"
    assert "calibration" not in found
