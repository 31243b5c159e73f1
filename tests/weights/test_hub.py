"""Weights of the Hugging Face Hub, in a cache that is laid out by hand."""

import json

import huggingface_hub
import numpy as np
import pytest
from fixtures_runs import run_main
from huggingface_hub import constants, errors
from safetensors.numpy import save

import cnn
from cnn import models
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables
from cnn.weights import exchange, hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a function that puts files of a repository into an offline cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def write(repo, files):
        folder = tmp_path / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        snapshot = folder / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        for name, content in files.items():
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).write_bytes(content)
        return snapshot

    return write


def test_a_path_is_a_path():
    assert hub.fetch("some/file", "--source")[1] == []


@pytest.mark.parametrize("source", ["hf:a/b", "hf:a/b@main", f"hf:a/b@{COMMIT}"])
def test_the_best_file_of_a_repository_is_taken(place, source):
    files = {name: b"x" for name in ("pytorch_model.bin", "model.safetensors")}
    snapshot = place("a/b", files | {"config.json": b"{}"})
    path, said = hub.fetch(source, "--source")
    assert path == snapshot / "model.safetensors"
    assert said == [f"model.safetensors of a/b at {COMMIT}"]


def test_a_file_of_another_name_and_no_config_are_said(place):
    snapshot = place("a/b", {"sub/last.bin": b"x"})
    path, said = hub.fetch("hf:a/b/sub/last.bin@main", "--source")
    assert path == snapshot / "sub" / "last.bin" and "no config.json" in said[1]


@pytest.mark.parametrize(
    "source, message",
    [
        ("hf:a", "write hf:OWNER/NAME"),
        ("hf:a/b@", "write hf:OWNER/NAME"),
        ("hf:a/c", "not in the cache.*hf download a/c"),
        ("hf:a/b@v2", "not in the cache"),
        ("hf:a/b/other.bin", "other.bin is not in the cache"),
    ],
)
def test_what_is_not_there_is_told(place, source, message):
    place("a/b", {"model.safetensors": b"x"})
    with pytest.raises(UserError, match=f"--init_from={source}.*{message}"):
        hub.fetch(source, "--init_from")


@pytest.mark.parametrize(
    "error, message",
    [
        ("GatedRepoError", "gated.*HF_TOKEN"),
        ("RepositoryNotFoundError", "not there, or private"),
        ("RevisionNotFoundError", "no revision v1"),
        ("HfHubHTTPError", "cannot be downloaded"),
        ("EntryNotFoundError", "no file model.safetensors or .*hf:a/b/FILE"),
    ],
)
def test_what_the_hub_answers_is_told(monkeypatch, error, message):
    kind = getattr(errors, error)
    found = kind.__new__(kind)

    def fail(*args, **kwargs):
        raise found

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match=message):
        hub.fetch("hf:a/b@v1", "--source")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    asked = []

    def fail(*args, local_files_only, **kwargs):
        asked.append(local_files_only)
        raise errors.LocalEntryNotFoundError("no answer")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match="does not answer .no answer"):
        hub.fetch("hf:a/b", "--source")
    assert asked == [False, True, True]


CONFIG = {
    "architecture": "small",
    "label_names": ["ant", "bee", "cow"],
    "pretrained_cfg": {
        "input_size": [3, 8, 8],
        "crop_pct": 0.8,
        "interpolation": "bicubic",
        "mean": [0.25, 0.5, 0.75],
        "std": [0.5, 0.25, 0.125],
    },
}
MODEL = {"model": "simple_cnn", "widths": (3, 4), "head": "global_average"}
MODEL |= {"downsampling": "max_pool"}
FLAGS = ["--model=simple_cnn", "--widths=3,4", "--head=global_average"]
FLAGS += ["--downsampling=max_pool"]


@pytest.fixture
def published(place):
    """Put weights of a small model, with timm's config, into the cache."""
    model = models.create_model(ModelOptions(**MODEL), 3)
    tensors = exchange.export_state_dict(
        "simple_cnn", create_variables(model, 0, (8, 8, 3)), 0
    )
    files = {"model.safetensors": save(tensors), "config.json": json.dumps(CONFIG)}
    place(
        "a/b", {n: x if isinstance(x, bytes) else x.encode() for n, x in files.items()}
    )
    return tensors


def test_a_model_of_the_hub_is_converted_as_its_config_says(
    published, tmp_path, capsys
):
    flags = ["--source=hf:a/b", f"--workdir={tmp_path / 'run'}"]
    assert run_main("--mode=convert", *flags, *FLAGS) == 0
    out = capsys.readouterr().out
    assert "--resize_size=10 --resize_interpolation=bicubic" in out
    assert "3 names of classes" in out and COMMIT in out
    loaded = cnn.load(tmp_path / "run")
    assert loaded.class_names == ("ant", "bee", "cow")
    assert loaded.preprocessing == {
        "image_shape": (8, 8, 3),
        "mean": (0.25, 0.5, 0.75),
        "std": (0.5, 0.25, 0.125),
        "resize_mode": "crop",
        "resize_size": 10,
        "resize_interpolation": "bicubic",
    }
    direct = cnn.load("hf:a/b", **MODEL)
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    np.testing.assert_array_equal(loaded.classify(images), direct.classify(images))
    assert direct.class_names == loaded.class_names


def test_what_is_given_goes_before_what_the_config_says(published, tmp_path):
    loaded = cnn.load("hf:a/b", **MODEL, image_size=12, mean=(0.5,), std=(0.5,))
    found = loaded.preprocessing
    assert found["image_shape"] == (12, 12, 3) and found["mean"] == (0.5,) * 3
    assert found["resize_size"] == 0 and found["resize_interpolation"] == "bilinear"
    with pytest.raises(UserError, match="differently shaped: stage1_conv.weight"):
        cnn.load("hf:a/b", **MODEL, channels=1, mean=(0.5,), std=(0.5,))


def test_fine_tuning_scales_as_the_config_says(published, tmp_path, capsys):
    flags = ["--init_from=hf:a/b", *FLAGS, "--channels=3"]
    size = ["--epochs=1", "--train_examples=20", "--batch_size=10"]
    run = f"--workdir={tmp_path / 'run'}"
    assert run_main("--mode=train", *flags, *size, run) == 0
    out = capsys.readouterr().out
    assert "config.json says: --image_size=8" in out
    assert "mean 0.25,0.5,0.75, std 0.5,0.25,0.125; as config.json says" in out
