"""Photos of a user's own, by one command: sizes, weights of classes, what is next."""

import dataclasses
import json

import numpy as np
import pytest
from fixtures_runs import run_main
from PIL import Image

from cnn import config as config_module
from cnn.checkpoints import atomic
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.training import losses
from cnn.training.options import LossOptions
from cnn.weights import preprocessing, proposed_sizes

SMALL = ["--model=simple_cnn", "--widths=2,2", "--batch_size=4", "--epochs=1"]


def write_photos(root, counts, low=40, high=60):
    """Write random photos of random sizes, so many of each class."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            height, width = random.integers(low, high, 2)
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    counts = {"cat": 24, "dog": 8}
    return write_photos(tmp_path_factory.mktemp("photos") / "pets", counts)


def test_one_command_trains_and_says_what_it_has_chosen(photos, tmp_path, capsys):
    flags = ["--config=photos", f"--dataset=folder:{photos}", *SMALL]
    directory = tmp_path / "run"
    assert run_main(*flags, f"--workdir={directory}") == 0
    printed = capsys.readouterr().out
    assert "sizes     --image_size=32 --storage_size=40: of 32 files the" in printed
    assert "classes are weighted in the loss, as some are rare: cat 0." in printed
    assert "dog" in printed.partition("as some are rare")[2].partition("\n")[0]
    where = f"--workdir={directory}"
    predict = f"next: python main.py --mode=predict {where}"
    assert f"next: python main.py --mode=visualize {where}" in printed
    assert predict in printed and "--predict_images='new/*.jpg'" in printed
    stored = json.loads((directory / "config.json").read_text())
    assert (stored["image_size"], stored["storage_size"]) == (32, 40)
    # A resumed run keeps its sizes, whatever files there are by then.
    taken = stored | {"image_size": 48, "storage_size": 56}
    atomic.write_json(directory / "config.json", taken)
    given = config_module.make_config({n: stored[n] for n in ("dataset", "model")})
    given = given.change({"choose_sizes": "files"})
    found = preprocessing.resolve(given, directory, Terminal()).data
    assert (found.image_size, found.storage_size) == (48, 56)


@pytest.mark.parametrize(
    "shorter, size, stored",
    [(500, 224, 256), (256, 224, 256), (150, 128, 152), (90, 64, 80), (20, 32, 40)],
)
def test_sizes_suit_files(shorter, size, stored):
    assert proposed_sizes.find_size(shorter) == size
    assert proposed_sizes.find_stored_size(size) == stored


def propose(photos, directory, **options):
    options = {"choose_sizes": "files", "dataset": f"folder:{photos}"} | options
    config = config_module.make_config(options)
    data = proposed_sizes.propose(config, directory, Terminal()).data
    return data.image_size, data.storage_size


def test_weights_say_the_size_before_files_do(photos, tmp_path):
    assert propose(photos, tmp_path) == (32, 40)
    assert propose(photos, tmp_path, image_size=16) == (16, 0)
    assert propose(photos, tmp_path, choose_sizes="given") == (0, 0)
    published = {"init_from": "resnet18-f37072fd.pth", "model": "resnet18"}
    assert propose(photos, tmp_path, **published) == (224, 256)
    # What the evaluation of published weights has filled in leaves room for crops.
    evaluated = published | {"image_size": 176, "resize_size": 232}
    assert propose(photos, tmp_path, **evaluated) == (176, 208)
    run = tmp_path / "source"
    run.mkdir()
    about = {"model": "mlp", "dataset": "digits", "image_size": 64}
    atomic.write_json(run / "config.json", about)
    assert propose(photos, tmp_path, init_from=str(run)) == (64, 80)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image"):
        propose(tmp_path / "empty", tmp_path)


def test_classes_are_weighted_where_they_are_unbalanced():
    options = LossOptions(class_weights="auto")
    even, rare = np.int32([0, 0, 1, 2, 2]), np.int32([0, 0, 0, 1, 1, 1, 3])
    assert losses.compute_class_weights(options, even, 3) == ()
    balanced = dataclasses.replace(options, class_weights="balanced")
    wanted = losses.compute_class_weights(balanced, rare, 4)
    assert losses.compute_class_weights(options, rare, 4) == wanted != ()
