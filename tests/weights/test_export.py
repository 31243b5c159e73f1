"""Mode export: what is written beside the weights, and how others read them."""

import json
import os
import re
import stat
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures_flax import Listener, make_variables, save_msgpack
from flax.traverse_util import flatten_dict

from cnn import config as config_module
from cnn import models
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.training.trained import load_trained, make_classifier
from cnn.weights import convert, export, leaf, load

ROOT = Path(__file__).parents[2]
MODEL = {"model": "mlp", "mlp_widths": (6,), "image_size": 8, "channels": 1}
MODEL |= {"scaling": "symmetric", "num_classes": 10}
FLAX = ("orbax", "msgpack")
FORMS = [x for x in export.FORMATS if x != "onnx" or find_spec("onnx")]
USED = [x for x in FORMS if x != "torch" and (x != "onnx" or find_spec("onnxruntime"))]


def make_run(directory, seed=0):
    """Make a run of random weights."""
    source = save_msgpack(directory / f"w{seed}", make_variables(seed, **MODEL))
    run, options = directory / f"run{seed}", MODEL | {"source": str(source)}
    convert.convert(config_module.make_config(options), run, Terminal())
    return run


def run_export(directory, form="msgpack", terminal=None):
    stored = json.loads((directory / "config.json").read_text())
    config = config_module.make_config(stored, {"export_format": form})
    return export.export(config, directory, terminal or Terminal())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a run that is exported in every form, under a strict umask."""
    directory = make_run(tmp_path_factory.mktemp("run"))
    before = os.umask(0o077)
    try:
        for form in FORMS:
            run_export(directory, form)
    finally:
        os.umask(before)
    return directory


def read_model(directory):
    return json.loads((directory / "model.json").read_text())


def read_files(directory):
    return {path.name: path.read_bytes() for path in directory.glob("model.*")}


def test_model_json_says_what_the_weights_need(exported):
    found, trained = read_model(exported), load_trained(exported)
    assert found["model"] == "mlp" and found["options"]["mlp_widths"] == [6]
    assert "wrn_block" not in found["options"], "an option of another model"
    assert found["classes"] == list("0123456789")
    assert found["input"]["shape"] == ["N", 8, 8, 1]
    assert (found["input"]["mean"], found["input"]["std"]) == ([0.5], [0.5])
    assert found["weights"]["step"] == trained.step
    assert found["dataset"] == "", "nobody noted what converted weights have seen"
    assert found["num_parameters"] == 64 * 6 + 6 + 6 * 10 + 10
    files = {export.FORMATS[x].file for x in FORMS}
    assert set(found["files"]) == files | {"model.py"}


def test_everyone_may_read_what_is_exported(exported):
    names = [*read_model(exported)["files"], "model.json", "README.md"]
    paths = [exported / name for name in names]
    paths += (exported / "model.orbax").rglob("*")
    assert len(paths) > 10
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_metrics_are_those_of_the_weights(tmp_path):
    directory = make_run(tmp_path)
    measured = {"step": 0, "averaged": False, "accuracy": 0.75, "split": "validation"}
    others = {"split=all": {"step": 7}, "split=train": {"averaged": True}}
    for name, other in ({"": {}} | others).items():
        text = json.dumps(measured | {"tta": "flip"} | other)
        (directory / f"evaluation,{name}.json").write_text(text)
    result = {"steps": 7, "best_step": 0, "best_test_loss": 1.5, "test_loss": 2.0}
    result |= {"command": "python main.py --model=mlp", "best_test_top5": None}
    (directory / "result.json").write_text(json.dumps(result))
    run_export(directory)
    validation, test = read_model(directory)["metrics"]
    assert validation["metrics"] == {"accuracy": 0.75}
    assert validation["split"] == "validation"
    assert validation["conditions"]["tta"] == "flip"
    assert test["metrics"] == {"loss": 1.5}
    card = (directory / "README.md").read_text()
    assert "accuracy 0.75" in card and "python main.py --model=mlp" in card


def test_other_weights_are_not_exported_over(tmp_path):
    directory, other = make_run(tmp_path, 0), make_run(tmp_path, 1)
    run_export(directory)
    before = {path.name: path.read_bytes() for path in directory.glob("model.*")}
    run_export(directory)
    assert before == {
        path.name: path.read_bytes() for path in directory.glob("model.*")
    }
    (directory / "checkpoints").rename(directory / "old")
    (other / "checkpoints").rename(directory / "checkpoints")
    for form in ("msgpack", "torch"):
        with pytest.raises(UserError) as caught:
            run_export(directory, form)
    command = re.search(r"rm -r .*", str(caught.value))[0].split()[2:]
    assert command == [str(directory / x) for x in ("model.json", "model.msgpack")]
    assert before == {
        path.name: path.read_bytes() for path in directory.glob("model.*")
    }
    for path in command:
        Path(path).unlink()
    run_export(directory)
    assert before["model.json"] != (directory / "model.json").read_bytes()


def test_an_export_that_was_killed_is_written_again(tmp_path, monkeypatch):
    def die(*args):
        raise KeyboardInterrupt

    run = make_run(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(export.card, "write", die)
        with pytest.raises(KeyboardInterrupt):
            run_export(run)
    assert (run / "model.msgpack").exists()
    run_export(run)
    assert read_model(run)["files"].keys() == {"model.msgpack"}


def test_what_nobody_describes_is_not_written_over(tmp_path):
    directory = make_run(tmp_path)
    (directory / "model.msgpack").write_bytes(b"mine")
    with pytest.raises(UserError, match="no model.json says"):
        run_export(directory)
    assert (directory / "model.msgpack").read_bytes() == b"mine"
    (directory / "model.msgpack").unlink()
    (directory / "model.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match="is not what an export writes"):
        run_export(directory)


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({"strided_padding": "same"}, "--strided_padding=same"),
        ({"bn_epsilon": 1e-3}, "--bn_epsilon=0.001"),
        ({"width_multiplier": 2.0}, "--width_multiplier=2.0"),
        ({"bn_epsilon": 1e-5}, ""),  # as libraries have it
        ({}, ""),
    ],
)
def test_it_is_said_where_no_library_computes_the_same(changes, others, tmp_path):
    options = {"model": "wrn_10_1", "image_size": 8, "scaling": "unit"}
    options |= {"channels": 1} | changes
    source = save_msgpack(tmp_path / "w", make_variables(0, **options))
    config = config_module.make_config(options | {"source": str(source)})
    convert.convert(config, tmp_path / "run", Terminal())
    listener = Listener()
    run_export(tmp_path / "run", "torch", listener)
    if others:
        assert f"class computes otherwise than {others}:" in listener.text
    else:
        assert "names of" in listener.text and "otherwise" not in listener.text


def test_a_card_of_the_user_is_kept(tmp_path):
    directory, terminal = make_run(tmp_path), Listener()
    card = directory / "README.md"
    run_export(directory)
    run_export(directory, "torch")
    assert "model.safetensors" in card.read_text()
    card.write_text("mine")
    for form in FLAX:
        run_export(directory, form, terminal)
        assert card.read_text() == "mine"
    assert terminal.text.count("is kept") == 2


def test_a_model_without_a_line_of_pytorch_is_exported_without_source(
    tmp_path, monkeypatch
):
    """An older model.py goes, which would be taken for that of this export."""
    directory, terminal = make_run(tmp_path), Listener()
    run_export(directory, "torch")
    assert (directory / "model.py").exists()

    def refuse(*args):
        raise UserError("no line is known")

    monkeypatch.setattr(export.torch_file, "make_source", refuse)
    run_export(directory, "torch", terminal)
    assert "model.py is not written: no line is known" in terminal.text
    assert not (directory / "model.py").exists()
    assert set(read_model(directory)["files"]) == {"model.safetensors"}


@pytest.mark.parametrize("form", FLAX)
def test_a_tree_comes_back(form, exported):
    path = exported / export.FORMATS[form].file
    found = load.load_weights(path, "--init_from", "latest", "").leaves
    wanted = flatten_dict(load_trained(exported).variables, sep="/")
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(leaf.read(found[name]), array)


def list_python(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


@pytest.mark.parametrize("form", USED)
@pytest.mark.parametrize("page", ["card", "docs"])
def test_the_lines_that_are_shown_work(form, page, exported, monkeypatch):
    """Those of the model card, and those of docs/weights.md."""
    monkeypatch.chdir(exported)
    file = export.FORMATS[form].file
    text = Path("README.md").read_text()
    if page == "docs":
        text = (ROOT / "docs" / "weights.md").read_text()
    (code,) = [x for x in list_python(text) if file in x]
    trained = load_trained(exported)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    options = config_module.make_config(MODEL).make_static().model
    names = {"Path": Path, "images": images, "mean": 0.5, "std": 0.5}
    names["model"] = models.create_model(options, 10)
    exec(code, names)
    if form in ("stablehlo", "onnx"):
        found = names["probabilities"]
    else:
        found = jax.nn.softmax(names["logits"])
    np.testing.assert_allclose(found, make_classifier(trained)(images), atol=1e-5)
    assert len(code.strip().splitlines()) <= 5
