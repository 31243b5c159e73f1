"""Data that change under a run: refused, said, or of no effect; never in silence."""

import json
import os
import random
import re
import shutil

import numpy as np
import pytest
from fixtures_folders import edit_at_random
from fixtures_runs import make_flags, run_main, train_run
from PIL import Image

from cnn.checkpoints import atomic, manifest
from cnn.errors import UserError
from cnn.training import setup as run_module

OPTIONS = {
    "model": "mlp",
    "mlp_widths": (4,),
    "validation_fraction": 0.2,
    "train_examples": 0,
    "batch_size": 8,
    "epochs": 2,
    "checkpoint_every_epochs": 1.0,
    "keep_checkpoints": 9,
}
LABELS = {"ant": 40, "bee": 120, "cow": 200}


def write_image(path, draws, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.frombuffer(draws.randbytes(16), np.uint8).reshape(4, 4) // 8 + value
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_folder(root, each=15, seed=0):
    draws = random.Random(seed)
    for name, value in LABELS.items():
        for i in range(each):
            write_image(root / name / f"{i}.png", draws, value)
    return root


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Return the directory of an ended run, and of its images; not to be changed."""
    home = tmp_path_factory.mktemp("changed")
    write_folder(home / "images")
    train(home, "run")
    return home


def train(home, name, **changes):
    folder = changes.pop("dataset", f"folder:{home}/images")
    return train_run(home / name, **OPTIONS | {"dataset": folder} | changes)


@pytest.fixture
def home(ended, tmp_path):
    """Return a copy of the run and its images, which have moved with it."""
    copy = shutil.copytree(ended, tmp_path / "home")
    for name in ("config.json", "dataset.json"):
        stored = json.loads((copy / "run" / name).read_text())
        stored["dataset"] = f"folder:{copy}/images"
        atomic.write_json(copy / "run" / name, stored)
    return copy


@pytest.fixture
def nothing_compiles(monkeypatch):
    """Fail where a run would begin to compute."""

    def refuse(*args):
        raise AssertionError("something was about to be compiled")

    monkeypatch.setattr(run_module, "make_create", refuse)


def forget_end(home, name="run"):
    """Let a run be one that was killed after its first epoch."""
    steps = manifest.list_steps(home / name / "checkpoints")
    shutil.rmtree(home / name / "checkpoints" / str(steps[-1]))
    (home / name / "result.json").unlink()


def list_files(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def read_evaluation(directory):
    (path,) = directory.glob("evaluation*.json")
    return json.loads(path.read_text())


def read_result(directory):
    return json.loads((directory / "result.json").read_text())


def add(root):
    for i in range(10):
        write_image(root / f"bee/new{i}.png", random.Random(i), LABELS["bee"])


EDITS = {
    "add": (add, "10 added"),
    "remove": (lambda root: (root / "bee/3.png").unlink(), "1 removed (bee/3.png)"),
    "rename": (
        lambda root: (root / "bee/3.png").rename(root / "bee/x.png"),
        "1 renamed (bee/3.png to bee/x.png)",
    ),
    "relabel": (
        lambda root: (root / "bee/3.png").rename(root / "cow/x.png"),
        "1 relabelled (cow/x.png: bee, now cow)",
    ),
    "rename a class": (
        lambda root: (root / "bee").rename(root / "dog"),
        "class bee renamed to dog",
    ),
    "delete": (shutil.rmtree, "there is no such directory"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_ended_run_is_not_touched(home, capsys, nothing_compiles, edit):
    EDITS[edit][0](home / "images")
    before = list_files(home / "run")
    result = train(home, "run")
    assert result == read_result(home / "run")
    printed = capsys.readouterr().out
    assert "ended " in printed and f"{result['test_accuracy']:.2%}" in printed
    assert list_files(home / "run") == before


@pytest.mark.parametrize("is_last", [True, False])
def test_an_ended_run_without_checkpoints_is_not_touched(
    home, nothing_compiles, is_last
):
    steps = manifest.list_steps(home / "run/checkpoints")
    for step in steps[-1:] if is_last else steps:
        shutil.rmtree(home / "run/checkpoints" / str(step))
    before = list_files(home / "run")
    assert train(home, "run") == read_result(home / "run")
    assert list_files(home / "run") == before


def test_evaluation_of_data_that_have_moved_is_that_of_the_run(home):
    (home / "images").rename(home / "moved")
    flags = [f"--workdir={home}/run", f"--dataset=folder:{home}/moved"]
    assert run_main("--mode=evaluate", *flags) == 0
    found = json.loads((home / "run/evaluation.json").read_text())
    assert found["loss"] == read_result(home / "run")["test_loss"]
    assert found["trained_images"] == 0 and not found["dataset_changed"]


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_result_is_written_again(home, text):
    expected = read_result(home / "run")["state_sha256"]
    (home / "run/result.json").write_text(text)
    assert train(home, "run")["state_sha256"] == expected
    assert read_result(home / "run")["state_sha256"] == expected


@pytest.mark.parametrize("edit", EDITS)
def test_resuming_is_refused(home, nothing_compiles, edit):
    forget_end(home)
    EDITS[edit][0](home / "images")
    before = list_files(home / "run")
    with pytest.raises(UserError, match=re.escape(EDITS[edit][1])) as refused:
        train(home, "run")
    if edit not in ("delete", "rename a class"):
        assert "--allow_changed_data" in str(refused.value)
        assert "another --workdir" in str(refused.value)
    after = list_files(home / "run")
    assert after.pop(home / "run/.lock") and before.pop(home / "run/.lock")
    assert after == before


@pytest.mark.parametrize("edit", EDITS)
def test_evaluation_is_the_same_or_says_so(home, capsys, edit):
    result = read_result(home / "run")
    EDITS[edit][0](home / "images")
    code = run_main("--mode=evaluate", f"--workdir={home}/run")
    printed = capsys.readouterr()
    if edit in ("rename a class", "delete"):
        assert code == 2 and not list((home / "run").glob("evaluation*"))
        return
    found = read_evaluation(home / "run")
    is_same = found["loss"] == result["test_loss"]
    assert code == 0 and found["dataset_changed"] == (not is_same)
    assert ("other     images than the run's test set" in printed.out) != is_same
    assert found["trained_images"] == 0
    assert (found["dataset_fingerprint"] != result["dataset_fingerprint"]) or is_same


def test_trained_images_among_those_that_are_evaluated(home, capsys):
    record = json.loads((home / "run/dataset.json").read_text())
    for number, name in enumerate(record["parts"]["train"]["names"]):
        # Under another name and root, they are the images that the run was trained on.
        for part in ("train", "test") if number % 5 else ("train",):
            target = home / "other" / part / name.partition("/")[0]
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(home / "images" / name, target / f"{number}.png")
    flags = [f"--workdir={home}/run", f"--dataset=folder:{home}/other"]
    assert run_main("--mode=evaluate", *flags) == 0
    found = read_evaluation(home / "run")
    assert found["trained_images"] == found["count"] > 10 and found["dataset_changed"]
    count = found["count"]
    warning = f"the run was trained on {count} of these {count} images: test/ant/"
    assert warning in capsys.readouterr().out


def test_labels_that_would_mean_other_classes_are_refused_whatever_is_allowed(home):
    forget_end(home)
    (home / "images/ant").rename(home / "images/zebra")
    with pytest.raises(UserError, match="ant renamed to zebra.*mean other classes"):
        train(home, "run", allow_changed_data=True)
    (home / "images/zebra").rename(home / "images/ape")  # in its place
    train(home, "run", allow_changed_data=True)
    changes = read_result(home / "run")["dataset_changes"]
    assert "class ant renamed to ape" in changes[0]["changes"]


def test_changed_data_may_be_allowed(home, capsys):
    mean = json.loads(next((home / "run").rglob("description.json")).read_text())[
        "mean"
    ]
    old = read_result(home / "run")["dataset_fingerprint"]
    forget_end(home)
    add(home / "images")
    result = train(home, "run", allow_changed_data=True)
    assert "changed   the data, from here on: 10 added" in capsys.readouterr().out
    (change,) = result["dataset_changes"]
    assert change["from"] == old and change["to"] == result["dataset_fingerprint"]
    assert change["changes"] and change["step"] > 0
    described = [
        json.loads(path.read_text())
        for path in (home / "run").rglob("description.json")
    ]
    assert len(described) > 2 and all(x["mean"] == mean for x in described)
    stored = json.loads((home / "run/dataset.json").read_text())
    assert stored["changes"] == [change]
    assert [x["fingerprint"] for x in stored["earlier"]] == [old]
    # Resumed once more, it is the same data now, and the change is not forgotten.
    (home / "run/result.json").unlink()
    again = train(home, "run")
    assert again["dataset_changes"] == [change]


def test_classes_that_come_are_refused_whatever_is_allowed(home):
    forget_end(home)
    write_image(home / "images/dog/1.png", random.Random(0), 0)
    with pytest.raises(UserError, match="1 classes added .dog.*mean other classes"):
        train(home, "run", allow_changed_data=True)


def test_the_checkpoint_alone_knows_the_data(home):
    forget_end(home)
    (home / "run/dataset.json").unlink()
    shutil.copytree(home / "run", home / "whole")
    add(home / "images")
    with pytest.raises(UserError, match="the train set had .* examples and has"):
        train(home, "run")
    for i in range(10):
        (home / f"images/bee/new{i}.png").unlink()
    assert train(home, "whole")["dataset_changes"] == []
    assert (home / "whole/dataset.json").exists()


def test_an_ended_run_is_not_that_of_other_data(home):
    other = f"folder:{shutil.copytree(home / 'images', home / 'other')}"
    add(home / "other")
    before = list_files(home / "run")
    for allowed in (False, True):
        with pytest.raises(UserError, match="(?s)10 added|result is not theirs"):
            train(home, "run", dataset=other, allow_changed_data=allowed)
    assert list_files(home / "run") == before


@pytest.mark.parametrize("has_ended", [True, False])
def test_the_same_data_under_another_path_are_the_same_run(home, tmp_path, has_ended):
    expected = read_result(home / "run")["state_sha256"]
    shutil.copytree(home / "images", tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(home / "images")
    for number, spelled in enumerate(
        [
            f"{home}/./images/",
            os.path.relpath(home / "images"),
            tmp_path / "link",
            tmp_path / "elsewhere",
        ]
    ):
        shutil.copytree(home / "run", home / f"copy{number}")
        if not has_ended:
            forget_end(home, f"copy{number}")
        result = train(home, f"copy{number}", dataset=f"folder:{spelled}")
        assert result["state_sha256"] == expected
    add(tmp_path / "elsewhere")
    before = list_files(home / "run")
    with pytest.raises(UserError) as refused:
        train(home, "run", dataset=f"folder:{tmp_path}/elsewhere")
    assert re.search(
        r"--dataset=folder:\S+/images \(fingerprint \w+\), than are there now, "
        rf"--dataset=folder:{tmp_path}/elsewhere \(fingerprint \w+\): 10 added",
        str(refused.value),
    )
    assert list_files(home / "run") == before


def test_another_data_set_before_the_first_checkpoint(home):
    (home / "run/result.json").unlink()
    shutil.rmtree(home / "run/checkpoints")
    with pytest.raises(UserError, match="saw other data.*Give its own"):
        train(home, "run", dataset="digits")
    add(home / "images")  # nothing was learned from the others
    assert train(home, "run")["dataset_changes"] == []


def test_a_run_of_an_earlier_version_is_not_mixed(home, capsys):
    forget_end(home)
    (home / "run/dataset.json").unlink()
    for path in (home / "run/checkpoints").iterdir():
        description = json.loads((path / "description.json").read_text())
        del description["data"]
        (path / "description.json").write_text(json.dumps(description))
        (path / "manifest.json").unlink()
        manifest.finish(path.rename(path.with_name(f"{path.name}.new")))
    with pytest.raises(UserError, match="split them otherwise.*--allow_changed_data"):
        train(home, "run")
    flags = make_flags({"mode": "evaluate", "workdir": home / "run"})
    assert run_main(*flags) == 0
    found = read_evaluation(home / "run")
    assert found["dataset_changed"] is None and found["trained_images"] is None
    result = train(home, "run", allow_changed_data=True)
    assert result["dataset_changes"][0]["from"] == ""


def test_the_source_of_weights_is_known_by_its_weights(home, tmp_path):
    source = home / "run"
    train(home, "fine", init_from=str(source), learning_rate=0.01)
    shutil.copytree(source, tmp_path / "moved")
    train(home, "other", seed=5)
    for name, spelled in (
        ("slash", f"{source}/"),
        ("moved", f"{tmp_path}/moved"),
        ("relative", os.path.relpath(source)),
    ):
        shutil.copytree(home / "fine", home / name)
        forget_end(home, name)
        train(home, name, init_from=spelled, learning_rate=0.01)
    with pytest.raises(UserError, match=f"took --init_from={source} .weights .*others"):
        train(home, "fine", init_from=f"{home}/other", learning_rate=0.01)
    with pytest.raises(UserError, match=f"--init_from={source} .now .\\."):
        train(home, "fine", learning_rate=0.01)


def test_images_to_test_on_that_a_source_was_trained_on(home, capsys):
    train(home, "fine", init_from=f"{home}/run", split_seed=1)
    printed = capsys.readouterr().out
    assert re.search(r"warning .*/run was trained on \d+ of the \d+ test im", printed)
    train(home, "same", init_from=f"{home}/run", learning_rate=0.01)
    assert "was trained on" not in capsys.readouterr().out


@pytest.mark.slow
def test_200_random_edits_never_mix_two_data_sets(home, tmp_path):
    expected = read_result(home / "run")
    forget_end(home)
    outcomes = {"refused": 0, "the same": 0}
    for seed in range(200):
        draws = random.Random(seed)
        copy = shutil.copytree(home, tmp_path / f"{seed}")
        for _ in range(draws.randint(1, 3)):
            if (copy / "images/bee").is_dir():
                edit_at_random(copy / "images", draws)
        try:
            result = train(copy, "run")
        except UserError as error:
            assert "saw other data" in str(error) or "differ in size" in str(error)
            assert not (copy / "run/result.json").exists()
            outcomes["refused"] += 1
        else:
            for name in ("state_sha256", "dataset_fingerprint", "test_loss"):
                assert result[name] == expected[name]
            outcomes["the same"] += 1
        shutil.rmtree(copy)
    assert outcomes["refused"] > 100 and outcomes["the same"] > 10
