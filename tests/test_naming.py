"""Names of runs: directories that shells and systems take, labels that tell apart."""

import json
import re

import pytest

from cnn.checkpoints import naming


def name(overrides, preset="digits"):
    return naming.name_directory(preset, overrides)[0].name


def test_default_name_tells_what_differs():
    assert name({}) == "digits"
    overrides = {"learning_rate": 0.05, "widths": (8, 16), "batch_norm": False}
    assert name(overrides) == "digits,learning_rate=0.05,widths=8,16,batch_norm=false"


@pytest.mark.parametrize(
    "overrides, wanted",
    [
        ({"dataset": "npz:/data/x.npz"}, "digits,dataset=x.npz"),
        ({"dataset": "folder:~/my photos/flowers/"}, "digits,dataset=flowers"),
        ({"dataset": "tfds:cifar10"}, "digits,dataset=cifar10"),
        (
            {"init_from": "hf:timm/resnet18.a1_in1k"},
            "digits,init_from=resnet18.a1_in1k",
        ),
        (
            {"epochs": 3, "sweep": "learning_rate=log(1e-3,1,8); seed=0:4"},
            "digits,epochs=3,sweep=learning_rate+seed",
        ),
        ({"freeze": ("stage(1|2)", "head")}, "digits,freeze=stage_1_2_,head"),
        ({"dataset": "folder:" + "x" * 300}, "digits,dataset=" + "x" * 32),
        ({"dataset": "folder:data\udcff"}, "digits,dataset=data"),
    ],
)
def test_what_is_long_or_disliked_is_shortened(overrides, wanted):
    assert re.fullmatch(re.escape(wanted) + ",[0-9a-f]{6}", name(overrides))


def test_many_options_are_cut_and_told_apart():
    overrides = {f"option_{n}": n / 7 for n in range(40)}
    others = overrides | {"option_39": 0}
    assert len(name(overrides)) < 90 and "_more," in name(overrides)
    assert name(overrides) == name(dict(overrides)) != name(others)


def save_options(directory, **options):
    directory.mkdir(parents=True)
    about = {"model": "mlp", "dataset": "digits"} | options
    (directory / "config.json").write_text(json.dumps(about))
    return directory


def test_labels_are_names_or_directories_without_their_hash(tmp_path):
    long = save_options(tmp_path / "photos,dataset=flowers,293bf9")
    named = save_options(tmp_path / "run", name="with a\tname")
    labels = naming.label_runs([long, named, tmp_path / "absent"])
    assert labels == ["photos,dataset=flowers", "with a\\tname", "absent"]


def test_labels_that_are_alike_become_parts_of_paths(tmp_path):
    runs = [tmp_path / part / "run" for part in "ab"]
    assert naming.label_runs(runs) == ["a/run", "b/run"]
    hashed = [tmp_path / f"x,{text * 6}" for text in "01"]
    assert naming.label_runs(hashed) == ["x,000000", "x,111111"]
    same = [save_options(x, name="base") for x in runs]
    assert naming.label_runs(same) == ["a/run", "b/run"]


def test_a_trial_is_called_by_its_sweep(tmp_path):
    save_options(tmp_path / "digits,sweep=seed,0a1b2c" / "sweep", name="")
    save_options(tmp_path / "run" / "sweep", name="rates")
    trials = [
        tmp_path / "digits,sweep=seed,0a1b2c/sweep/best",
        tmp_path / "run/sweep/best",
        save_options(tmp_path / "run/sweep/kept/3", name="rates"),
    ]
    wanted = ["digits,sweep=seed/best", "rates/best", "rates/3"]
    assert naming.label_runs(trials) == wanted
