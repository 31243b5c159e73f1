"""Trained models from Python: `cnn.load`, and docs/python.md line by line."""

import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures_flax import make_variables, rename_modules, save_msgpack
from fixtures_runs import TINY, run_main
from PIL import Image

import cnn
from cnn.errors import UserError
from cnn.training import progress
from cnn.training.trained import load_trained, make_classifier

ROOT = Path(cnn.__file__).parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = re.findall(r"^```bash\npython main.py (.*?)\n```$", PAGE, re.M)


def make_images(count, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def files(tmp_path):
    """Return the paths of images and what is in them."""
    pixels = make_images(3)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    return paths, pixels


def test_a_run_is_what_it_was_trained_to_be(trained, files):
    run, stored = cnn.load(trained), load_trained(trained)
    assert run.class_names == stored.class_names
    assert run.preprocessing["image_shape"] == (8, 8, 1)
    jax.tree.map(np.testing.assert_array_equal, run.params, stored.variables["params"])
    paths, pixels = files
    wanted = make_classifier(stored)(pixels)
    np.testing.assert_array_equal(run.classify(pixels), wanted)
    variables = {"params": run.params, "batch_stats": run.batch_stats}
    logits = run.apply(variables, run.scale(pixels))
    np.testing.assert_allclose(jax.nn.softmax(logits), wanted, atol=1e-6)
    found = run.predict_files(paths)
    assert [x.path for x in found] == [str(path) for path in paths]
    assert run.predict_files([]) == []
    for row, prediction in zip(wanted, found, strict=True):
        np.testing.assert_allclose(prediction.probabilities, row, atol=1e-6)
        assert prediction.class_name == stored.class_names[row.argmax()]


def test_features_are_those_of_each_stage(trained):
    run, pixels = cnn.load(trained), make_images(2)
    found = run.features(pixels)
    assert list(found) == ["stage1", "logits"]
    assert found["stage1"].shape == (2, *found["stage1"].shape[1:3], TINY["widths"][0])
    np.testing.assert_allclose(
        jax.nn.softmax(found["logits"]), run.classify(pixels), atol=1e-6
    )


def test_a_checkpoint_is_loaded_by_its_step_or_its_directory(trained):
    first = min(trained.glob("checkpoints/*"), key=lambda path: int(path.name))
    by_step, by_place = cnn.load(trained, first.name), cnn.load(first)
    assert by_step.trained.step == by_place.trained.step == int(first.name)


def test_mistakes_are_explained(trained, tmp_path):
    with pytest.raises(UserError, match="leave out model"):
        cnn.load(trained, model="mlp")
    with pytest.raises(UserError, match="does not exist"):
        cnn.load(tmp_path / "absent")
    theirs = save_msgpack(tmp_path / "theirs", make_variables(model="mlp"))
    with pytest.raises(UserError, match="--momentum=0.5 would have no effect"):
        cnn.load(theirs, model="mlp", momentum=0.5)
    stray = tmp_path / "stray"
    shutil.copytree(next(trained.glob("checkpoints/*")), stray)
    with pytest.raises(UserError, match="checkpoint of no run"):
        cnn.load(stray)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png: "):
        cnn.load(trained).predict_files([bad])


def test_importing_the_package_imports_nothing_heavy():
    code = "import cnn, sys; print({'jax', 'flax', 'numpy'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = cnn.lode


def test_the_page_runs_as_it_stands(trained, files, tmp_path, monkeypatch, capsys):
    """Its examples, in one session, on a tiny run instead of runs/digits."""

    theirs = make_variables(model="mlp", mlp_widths=(16,))
    theirs = rename_modules(theirs, {"dense1": "Dense_0", "head": "Dense_1"})
    (tmp_path / "their").mkdir()
    save_msgpack(tmp_path / "their" / "checkpoint", theirs)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(trained)
    monkeypatch.chdir(tmp_path)
    names = {"images": make_images(6), "labels": np.arange(6) % 3, "files": files[0]}
    before = {x: signal.getsignal(x) for x in signal.valid_signals()}
    for block in BLOCKS:
        exec(block, names)
    assert {x: signal.getsignal(x) for x in signal.valid_signals()} == before
    assert names["found"].path == str(files[0][-1])
    head = names["theirs"].params["head"]["kernel"]
    np.testing.assert_array_equal(head, theirs["params"]["Dense_1"]["kernel"])
    assert names["params"]["head"]["kernel"].shape == (4, 3)
    assert names["loss"] < np.log(3), "the loop has learnt nothing"
    assert names["augmented"].shape == (6, 8, 8, 1)
    assert len(names["rows"]) == 4 and len(names["finished"]) == 5
    assert names["best"].trained.options["model"].startswith("own.py:Net@")
    assert [{*row} for row in names["table"]] == [{*names["table"][0]}] * 6
    for command in COMMANDS:  # the run that the page has trained
        assert run_main(*command.split()) == 0
        assert "ended     after" in capsys.readouterr().out


def test_a_loop_of_ones_own_is_short():
    (loop,) = (x for x in BLOCKS if "optimizer.update" in x)
    assert len([x for x in loop.splitlines() if x.strip()]) < 30


def test_mistakes_in_keywords_are_those_of_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="did you mean epochs") as caught:
        cnn.train_run("run", epoch=2, learning_rate="fast", batch_size=0)
    for part in ("3 problems", "--learning_rate=fast", "--batch_size=0 is outside"):
        assert part in str(caught.value)
    with pytest.raises(UserError, match="--widths=3 would have no effect"):
        cnn.train_run("run", model="mlp", widths=(3,))
    with pytest.raises(UserError, match="--sweep: 'seed' is no axis"):
        cnn.run_sweep("seed", "run", epochs=1)
    with pytest.raises(UserError, match="nowhere is no directory"):
        cnn.list_runs("nowhere")
    with pytest.raises(UserError, match="workdir is empty"):
        cnn.train_run("", epochs=1)
    assert not list(tmp_path.iterdir())


SHORT = {"model": "mlp", "mlp_widths": (4,), "train_examples": 40, "epochs": 1}


def test_it_trains_in_another_thread_than_the_main_one(tmp_path):
    with ThreadPoolExecutor() as pool:
        made = pool.submit(cnn.train_run, tmp_path, quiet=True, **SHORT).result()
    assert made.trained.step == 1
    assert [row["state"] for row in cnn.list_runs(tmp_path)] == ["ended"]


def test_ctrl_c_is_the_callers_again_once_everything_is_saved(tmp_path, monkeypatch):
    take = progress.take_epoch

    def press(*args):
        signal.raise_signal(signal.SIGINT)
        return take(*args)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(progress, "take_epoch", press)
    with pytest.raises(KeyboardInterrupt):
        cnn.train_run(tmp_path, quiet=True, **SHORT)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    assert not (tmp_path / "result.json").exists()
    assert cnn.train_run(tmp_path, quiet=True, **SHORT).trained.step == 1
