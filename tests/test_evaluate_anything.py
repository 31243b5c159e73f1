"""Any labelled data is evaluated, and the number says all that it depends on."""

import csv
import json
import shutil
import types

import numpy as np
import pytest
from fixtures_runs import run_main, train_run
from PIL import Image

from cnn import data
from cnn.checkpoints import atomic, workdir
from cnn.config import make_config
from cnn.data.images import concatenate, from_array
from cnn.errors import UserError
from cnn.training import tasks
from cnn.training.trained import match_labels
from cnn.visualize.subject import Subject

CLASSES = ("ant", "bee", "cat")
SMALL = {
    "model": "mlp",
    "mlp_widths": (16,),
    "validation_fraction": 0.0,
    "train_examples": 0,
    "batch_size": 16,
    "epochs": 1,
    "ema_decay": 0.0,
    "log_every_steps": 0,
}


def write_images(root, classes, count, start=0):
    """Write `count` images a class, each in the colour of its class's name."""
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(sum(name.encode()))
        for i in range(start, start + count):
            pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")


def write_table(path, rows, columns="path,label"):
    path.write_text("\n".join([columns, *(",".join(row) for row in rows)]))
    return f"csv:{path}"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a directory with data and a run on it; not to be changed."""
    root = tmp_path_factory.mktemp("anything")
    write_images(root / "own" / "train", CLASSES, 8)
    write_images(root / "own" / "test", CLASSES, 4)
    write_images(root / "alone", CLASSES, 5)
    train_run(root / "run", dataset=f"folder:{root}/own", **SMALL)
    return root


@pytest.fixture
def evaluate(base, tmp_path):
    """Return a function from flags to what evaluating a copy of the run wrote."""
    run = shutil.copytree(base / "run", tmp_path / "run")

    def call(*flags):
        before = set(run.iterdir())
        assert run_main("--mode=evaluate", f"--workdir={run}", *flags) == 0
        (path,) = [x for x in set(run.iterdir()) - before if x.suffix == ".json"]
        found = json.loads(path.read_text())
        rows = []
        if "per_image" in found:
            with open(run / found["per_image"], newline="") as file:
                rows = list(csv.DictReader(file))
        path.unlink()
        call.name = path.name
        return found, rows

    return call


@pytest.fixture
def refuse(base, capsys):
    """Return a function from flags to the error that evaluating the run ends in."""

    def call(*flags):
        code = run_main("--mode=evaluate", f"--workdir={base}/run", *flags)
        assert code == 2
        return capsys.readouterr().err

    return call


def test_the_number_says_what_it_depends_on(base, evaluate):
    found, _ = evaluate()
    description = json.loads(
        next((base / "run").glob("checkpoints/*/description.json")).read_text()
    )
    assert found["mean"] == description["mean"] and found["std"] == description["std"]
    expected = {
        "dataset": f"folder:{base}/own",
        "split": "test",
        "whole_dataset": False,
        "count": 12,
        "excluded_count": 0,
        "excluded_files": [],
        "checkpoint": "latest",
        "step": 1,
        "averaged": False,
        "scaling": "standardize",
        "precision": "float32",
        "loss_function": "softmax",
        "tta": "none",
        "image_shape": [6, 6, 3],
        "channels": 3,
        "resize_mode": "crop",
        "resize_size": 0,
        "storage_size": 0,
        "class_names": list(CLASSES),
    }
    assert {name: found[name] for name in expected} == expected
    assert "dataset_fingerprint" in found and found["versions"]["pillow"]


@pytest.mark.parametrize("folder", ["test", "val", ""])
def test_a_folder_without_training_images_is_a_test_set(
    folder, base, evaluate, tmp_path
):
    write_images(tmp_path / "other" / folder, CLASSES[1:], 3)
    (tmp_path / "other" / folder / "ant").mkdir()  # a class without images
    dataset = f"--dataset=folder:{tmp_path}/other"
    found, rows = evaluate(dataset, "--per_image=true")
    assert found["count"] == 6 and found["whole_dataset"]
    assert [x["count"] for x in found["per_class"]] == [0, 3, 3]
    prefix = f"{folder}/" if folder else ""
    assert rows[0]["path"] == f"{prefix}bee/0.png"
    assert evaluate(dataset, "--split=all")[0]["count"] == 6


def test_everything_is_evaluated_once(base, evaluate):
    found, rows = evaluate("--split=all", "--per_image=true")
    assert found["count"] == 36 == len({row["path"] for row in rows})
    assert {row["path"].split("/")[0] for row in rows} == {"train", "test"}
    assert evaluate(f"--dataset=folder:{base}/alone", "--split=all")[0]["count"] == 15


def test_own_data_under_another_spelling_keep_their_division(base, evaluate):
    dataset = f"--dataset=folder:{base}/alone/../own/"
    assert evaluate(dataset)[0]["count"] == 12
    assert evaluate.name == "evaluation.json"


def test_a_table_without_training_rows_keeps_its_order(base, evaluate, tmp_path):
    files = [("cat", 3), ("ant", 1), ("cat", 0)]
    rows = [(f"{base}/alone/{name}/{i}.png", name) for name, i in files]
    dataset = write_table(tmp_path / "a.csv", rows)
    found, lines = evaluate(f"--dataset={dataset}", "--per_image=true")
    assert found["count"] == 3
    assert [(x["path"], x["label"]) for x in lines] == rows
    split = write_table(
        tmp_path / "b.csv", [(*row, "test") for row in rows], "path,label,split"
    )
    again, _ = evaluate(f"--dataset={split}")
    assert again["confusion"] == found["confusion"] and again["loss"] == found["loss"]


def test_an_archive_with_a_test_set_alone(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", x_test=pixels, y_test=np.arange(9) % 3 + 4)
    flags = [f"--dataset=npz:{tmp_path}/a.npz", "--per_image=true"]
    assert run_main("--mode=evaluate", f"--workdir={run}", *flags) == 0
    (path,) = run.glob("evaluation*.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"test/{i}" for i in range(9)]
    assert [row["label"] for row in rows] == ["4", "5", "6"] * 3
    found = json.loads(path.with_suffix(".json").read_text())
    assert found["averaged"] and found["count"] == 9


@pytest.mark.parametrize("views", ["none", "flip"])
def test_lines_of_images_add_up_to_the_number(evaluate, views):
    flags = ("--split=all", "--batch_size=7", f"--tta={views}")
    found, rows = evaluate(*flags, "--per_image=true")
    plain, _ = evaluate(*flags)
    assert plain["loss"] == pytest.approx(found["loss"], rel=1e-6)
    names = found["class_names"]
    confusion = np.zeros((3, 3), int)
    for row in rows:
        confusion[names.index(row["label"]), names.index(row["prediction"])] += 1
    assert confusion.tolist() == found["confusion"] == plain["confusion"]
    losses = np.array([float(row["loss"]) for row in rows])
    assert losses.mean() == pytest.approx(found["loss"], rel=1e-6)
    shares = np.array(
        [[float(row[f"probability_{name}"]) for name in names] for row in rows]
    )
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-7)
    own = shares[np.arange(len(rows)), [names.index(row["label"]) for row in rows]]
    np.testing.assert_allclose(losses, -np.log(own), rtol=1e-4)
    for row, share in zip(rows, shares, strict=True):
        assert names[share.argmax()] == row["prediction"]


def test_files_that_were_left_out_are_named(evaluate, tmp_path):
    write_images(tmp_path / "other" / "train", CLASSES, 2)
    write_images(tmp_path / "other" / "test", CLASSES, 2)
    (tmp_path / "other" / "test" / "bee" / "bad.png").write_text("no image")
    (tmp_path / "other" / "train" / "bee" / "worse.png").write_text("no image")
    flags = (f"--dataset=folder:{tmp_path}/other", "--bad_images=skip")
    found, _ = evaluate(*flags)
    assert (found["count"], found["excluded_count"]) == (6, 1)
    assert found["excluded_files"] == ["test/bee/bad.png"]
    assert evaluate(*flags, "--split=all")[0]["excluded_count"] == 2


def test_own_files_that_were_left_out_are_named(tmp_path):
    write_images(tmp_path / "train", CLASSES, 2)
    write_images(tmp_path / "val", CLASSES, 2)
    (tmp_path / "val" / "bee" / "bad.png").write_text("no image")
    options = data.DataOptions(dataset=f"folder:{tmp_path}", bad_images="skip")
    for split, names in (("test", ("val/bee/bad.png",)), ("train", ())):
        excluded = data.load_evaluated(options, split, ()).excluded
        assert tuple(bad.name for bad in excluded) == names


def test_grey_data_are_colour_to_a_run_of_colour(base, evaluate, tmp_path):
    (tmp_path / "other" / "bee").mkdir(parents=True)
    Image.new("L", (6, 6), 77).save(tmp_path / "other" / "bee" / "0.png")
    assert evaluate(f"--dataset=folder:{tmp_path}/other")[0]["channels"] == 3


def test_unknown_classes_are_named_with_what_leaves_them_out(
    refuse, evaluate, tmp_path
):
    write_images(tmp_path / "other", ("Ant", "bee", "cow", "cat"), 2)
    dataset = f"--dataset=folder:{tmp_path}/other"
    error = refuse(dataset)
    assert "does not know the classes Ant, cow" in error
    assert "--classes=1,2" in error
    found, _ = evaluate(dataset, "--classes=1,2")
    assert [x["count"] for x in found["per_class"]] == [0, 2, 2]


def test_classes_called_by_numbers_keep_their_names(tmp_path):
    numbers = ("1", "2", "10")
    write_images(tmp_path / "own/train", numbers, 8)
    write_images(tmp_path / "own/test", numbers, 4)
    write_images(tmp_path / "other", numbers[1:], 3)
    train_run(tmp_path / "run", dataset=f"folder:{tmp_path}/own", **SMALL)
    files = [(f"other/{name}/{i}.png", name) for name in numbers[1:] for i in range(3)]
    table = write_table(tmp_path / "a.csv", files)
    predict = ["--mode=predict", f"--predict_images={tmp_path}/other/*/*.png"]
    assert run_main(*predict, f"--workdir={tmp_path}/run") == 0
    with open(tmp_path / "run/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    predicted = {row["path"].partition("other/")[2]: row["class"] for row in rows}
    for dataset in (f"folder:{tmp_path}/other", table):
        flags = (f"--dataset={dataset}", "--per_image=true")
        assert run_main("--mode=evaluate", f"--workdir={tmp_path}/run", *flags) == 0
        (path,) = (tmp_path / "run").glob("evaluation*.csv")
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        path.unlink()
        found = json.loads(path.with_suffix(".json").read_text())
        assert found["class_names"] == ["1", "10", "2"]
        for row in rows:
            name = row["path"].removeprefix("other/")
            assert row["label"] == name.partition("/")[0]
            assert row["prediction"] == predicted[name]


@pytest.mark.parametrize(
    ("named", "here", "expected"),
    [
        (False, ("0", "1", "10", *"23456789"), [0, 1, 10, *range(2, 10)]),
        (False, ("2", "10"), [2, 10]),
        (False, tuple("abcdefghijk"), list(range(11))),
        (True, ("2", "10"), [2, 10]),
    ],
)
def test_numbers_mean_the_classes_of_a_run_without_names(named, here, expected):
    run = types.SimpleNamespace(
        class_names=tuple(map(str, range(11))),
        classes_are_named=named,
        structure=types.SimpleNamespace(task=tasks.MULTICLASS),
    )
    images = from_array(np.zeros((len(here), 2, 2, 1), np.uint8), np.arange(len(here)))
    evaluated = data.Evaluated("folder:x", here, images)
    assert match_labels(run, evaluated).tolist() == expected
    unknown = data.Evaluated("folder:x", ("11", *here[1:]), images)
    if here[0] != "a":
        remedy = "as the run does" if named else "--class_names=FILE"
        with pytest.raises(UserError, match=f"know the class 11 .*{remedy}"):
            match_labels(run, unknown)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--mean=0.9"], "--mean=0.9 would have no effect"),
        (["--train_examples=9"], "--train_examples=9 would have no"),
        (["--split_seed=1"], "--split_seed=1 would have no"),
        (["--split=validation"], "folder:{base}/own has no such set"),
        (["--dataset=folder:{base}/alone", "--split=train"], "has only test"),
        (["--dataset=folder:{base}/alone/bee"], "5 images in no class folder"),
        (["--dataset=csv:{base}/absent.csv"], "No such file"),
    ],
)
def test_what_is_not_read_or_not_there_is_refused(base, refuse, flags, message):
    error = refuse(*(flag.format(base=base) for flag in flags))
    assert message.format(base=base) in error


def test_classes_do_not_change_the_division(tmp_path):
    options = data.DataOptions(validation_fraction=0.1, classes=(3, 5))
    whole = data.load_dataset(data.DataOptions(validation_fraction=0.1))
    part = data.load_evaluated(options, "validation", ())
    wanted = whole.validation.take(
        np.flatnonzero(np.isin(whole.validation.labels, (3, 5)))
    )
    positions = np.arange(len(wanted))
    np.testing.assert_array_equal(part.images.read(positions), wanted.read(positions))
    assert part.class_names == ("3", "5")


def test_joined_sets_are_read_in_any_order():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (9, 2, 2, 1), np.uint8)
    parts = [from_array(x, np.arange(len(x))) for x in (pixels[:4], pixels[4:])]
    positions = random.permutation(9)
    np.testing.assert_array_equal(concatenate(parts).read(positions), pixels[positions])


def test_runs_of_a_pattern_are_evaluated_in_turn(base, tmp_path, capsys):
    for name in ("a[1]", "b"):
        shutil.copytree(base / "run", tmp_path / name)
    assert run_main("--mode=evaluate", f"--workdir={tmp_path}/*") == 0
    printed = capsys.readouterr().out
    assert printed.count("accuracy") == 3 and printed.count("(") == 2
    for name in ("a[1]", "b"):
        assert f"{tmp_path}/{name}: test: accuracy" in printed
        assert (tmp_path / name / "evaluation.json").exists()
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    (tmp_path / "b" / "evaluation.json").unlink()
    assert run_main("--mode=evaluate", f"--workdir={tmp_path}/*") == 1
    printed = capsys.readouterr().out
    assert "holds no checkpoint" in printed and "1 of 2 runs failed" in printed
    assert run_main("--mode=evaluate", f"--workdir={tmp_path}/c*") == 2
    assert "matches no directory that holds a run" in capsys.readouterr().err


def test_a_number_is_printed_though_its_file_cannot_be_written(
    base, monkeypatch, capsys
):
    def fail(path, text):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(atomic, "write_text", fail)
    assert run_main("--mode=evaluate", f"--workdir={base}/run") == 2
    assert "of 12)" in capsys.readouterr().out


def test_pictures_are_of_any_data_too(base, tmp_path, make_subject):
    write_images(tmp_path / "other", ("cat", "bee"), 3)
    subject = make_subject(dataset=f"folder:{tmp_path}/other")
    (run,) = subject.comparable_runs
    assert subject.get_labels(run).tolist() == [1, 1, 1, 2, 2, 2]
    assert len(make_subject(split="all").split) == 36


@pytest.fixture
def make_subject(base):
    """Return a function from options to the subject of pictures of the run."""

    def make(**given):
        stored = workdir.read_config(base / "run")
        stored = data.forget_dataset(stored, given.get("dataset", stored["dataset"]))
        return Subject(make_config(stored, given), [base / "run"])

    return make
