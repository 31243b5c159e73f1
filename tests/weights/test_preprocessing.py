"""Images are prepared as published weights were evaluated, unless flags differ."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest
from fixtures_flax import Listener

from cnn import models
from cnn.checkpoints import atomic
from cnn.config import make_config
from cnn.errors import UserError
from cnn.models import published
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables
from cnn.weights import convert, exchange, preprocessing, safetensors_file

MODEL = "squeezenet1_1"  # the smallest file
V1 = {"image_size": 224, "resize_mode": "crop", "resize_size": 256}
V1 |= {"resize_interpolation": "bilinear", "mean": published.IMAGENET_MEAN}
V1 |= {"std": published.IMAGENET_STD}
OTHER = published.Weights("OTHER", "", size=192, resize=200, by="bicubic")


@pytest.fixture(scope="module")
def tensors():
    model = models.create_model(ModelOptions(model=MODEL), 1000)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (64, 64, 3)))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return exchange.export_state_dict(MODEL, zeros, 0)


@pytest.fixture
def path(tensors, tmp_path):
    safetensors_file.save_safetensors(tmp_path / "w.safetensors", tensors)
    return tmp_path / "w.safetensors"


def make_two(monkeypatch, *more):
    """Have two published files of the model; returns them."""
    entry = published.PUBLISHED[MODEL]
    weights = *entry.weights, dataclasses.replace(OTHER, **dict(more))
    changed = {MODEL: dataclasses.replace(entry, weights=weights)}
    monkeypatch.setattr(published, "PUBLISHED", published.PUBLISHED | changed)
    return weights


def take(path, **options):
    """Convert; returns what became of the options of images, and what is said."""
    given = {"model": MODEL, "source": str(path)} | options
    taken = convert.take(make_config(given))
    data = taken.config.data
    return {name: getattr(data, name) for name in V1}, "\n".join(taken.notes)


def resolve(path, directory, **options):
    """Resolve options as training does; returns the options of images, and the text."""
    said = Listener()
    given = {"model": MODEL, "init_from": str(path)} | options
    data = preprocessing.resolve(make_config(given), directory, said).data
    return {name: getattr(data, name) for name in V1}, data.preprocessing, said.text


def test_published_weights_are_converted_with_their_evaluation(path, tmp_path):
    found, said = take(path)
    assert found == V1
    assert "evaluation of IMAGENET1K_V1" in said and "--resize_size=256" in said


def test_training_from_published_weights_takes_the_same(path, tmp_path):
    found, name, said = resolve(path, tmp_path / "run")
    assert (found, name) == (V1, "IMAGENET1K_V1") and "--image_size=224" in said


@pytest.mark.parametrize(
    ("options", "same", "other"),
    [
        ({"image_size": 96}, ("mean", "std"), {"resize_size": 0}),
        ({"mean": (0.5,), "std": (0.5,)}, (*V1,)[:4], {"mean": (0.5,) * 3}),
        ({"preprocessing": "given"}, ("mean", "std"), {"resize_size": 0}),
    ],
)
def test_what_is_given_wins(options, same, other, path):
    found, _ = take(path, **options)
    assert {n: found[n] for n in same} == {n: V1[n] for n in same}
    assert {n: found[n] for n in other} == other


def test_weights_of_other_classes_are_not_published(tensors, tmp_path):
    few = {n: x[:7] if x.shape[0] == 1000 else x for n, x in tensors.items()}
    safetensors_file.save_safetensors(tmp_path / "w", few)
    assert take(tmp_path / "w")[0]["resize_size"] == 0
    assert resolve(tmp_path / "w", tmp_path / "run")[1] == "auto"
    found, _ = take(tmp_path / "w", preprocessing="published")
    assert found == V1


def test_what_stands_beside_the_file_goes_before(path):
    beside = {"image_size": [64, 64], "channels": 3, "mean": [0.5] * 3}
    beside |= {"std": [0.25] * 3, "resize_mode": "squash", "resize_size": 0}
    content = {"files": {path.name: "torch"}, "classes": [], "classes_are_named": False}
    beside |= {"interpolation": "bicubic"}
    path.with_name("model.json").write_text(json.dumps(content | {"input": beside}))
    assert take(path)[0]["resize_mode"] == "squash"
    assert resolve(path, path.parent / "run")[1] == "auto"
    assert take(path, preprocessing="published")[0] == V1


@pytest.mark.parametrize("how", ["hash", "name", "content", "flag"])
def test_which_weights_a_file_is(how, path, monkeypatch):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    start = digest if how == "content" else "0123abcd"
    make_two(monkeypatch, ("sha256", start))
    names = {"hash": "net-0123abcd.pth", "name": "net_other.pth"}
    path = path.rename(path.with_name(names.get(how, "w")))
    options = {"preprocessing": "OTHER"} if how == "flag" else {}
    found, said = take(path, **options)
    assert found == OTHER.options and "evaluation of OTHER" in said
    ways = {"content": "SHA-256 says", "flag": "as given"}
    assert ways.get(how, "name says") in said


def test_a_file_that_does_not_say_which_it_is_has_the_oldest(path, monkeypatch):
    make_two(monkeypatch)
    found, said = take(path)
    assert found == V1 and "does not say" in said and "OTHER" in said


def test_a_resumed_run_keeps_what_it_took(path, tmp_path, monkeypatch):
    make_two(monkeypatch)
    stored = make_config({"model": MODEL, "preprocessing": "OTHER"})
    atomic.write_json(tmp_path / "config.json", stored.to_flat())
    path.unlink()
    for wanted in ("auto", "published"):
        found, name, said = resolve(path, tmp_path, preprocessing=wanted)
        assert (found, name, said) == (OTHER.options, "OTHER", "")
    old = {n: x for n, x in stored.to_flat().items() if n != "preprocessing"}
    atomic.write_json(tmp_path / "config.json", old)
    assert resolve(path, tmp_path)[1] == "auto"


def test_a_sweep_goes_before_the_evaluation(path, tmp_path):
    found, name, _ = resolve(path, tmp_path / "run", sweep="image_size=64,96")
    assert found["image_size"] == found["resize_size"] == 0 and found["mean"]
    assert resolve(path, tmp_path / "run", sweep="model=a,b")[1] == "auto"
    with pytest.raises(UserError, match="depends on --model, which --sweep varies"):
        resolve(path, tmp_path, sweep="model=a,b", preprocessing="published")


def test_a_run_from_scratch_may_take_it(tmp_path):
    assert resolve("", tmp_path / "run", preprocessing="published")[0] == V1
    assert resolve("", tmp_path / "run")[1] == "auto"


@pytest.mark.parametrize(
    ("model", "wanted", "message"),
    [
        ("mlp", "published", "no weights of --model=mlp were published"),
        ("resnet18", "IMAGENET1K_V2", "unknown for --model=resnet18.*IMAGENET1K_V1"),
    ],
)
def test_what_a_model_does_not_have_is_refused(model, wanted, message):
    with pytest.raises(UserError, match=message):
        preprocessing.check(model, wanted)
