"""A user's own model in a file, `--model=FILE.py:NAME`, and the run that keeps it."""

import functools
import hashlib
import json
import re
import shutil
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import make_setup, run_main
from test_resume import Stopper

import cnn
from cnn import models, own_code, train
from cnn.checkpoints import workdir
from cnn.config import load_preset, make_config
from cnn.errors import UserError
from cnn.optim import freezing
from cnn.runtime.interrupt import Interrupted

# As somebody writes it who has read nothing of this project.
NET = """from __future__ import annotations

import flax.linen as nn


class Net(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(3, (3, 3), strides=2)(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.1)(x, deterministic=not train)
        return nn.Dense(self.num_classes)(x.reshape((x.shape[0], -1)))
"""
SMALL = {"train_examples": 60, "batch_size": 20, "epochs": 2, "learning_rate": 0.05}
FLAGS = [f"--{name}={value}" for name, value in SMALL.items()]


def forget():
    """Forget every file, as a new process has none."""
    for digest in own_code._kept:
        sys.modules.pop(f"own_code_{digest}", None)
    own_code._kept.clear()
    own_code._execute.cache_clear()


@pytest.fixture
def forgotten():
    """Begin and end without any file that was read before."""
    forget()
    yield
    forget()


def write(directory, text=NET, name="own.py"):
    path = directory / name
    path.write_text(text)
    return path


def make(path, **options):
    return make_config(load_preset("digits"), SMALL, {"model": f"{path}:Net"}, options)


def read_result(run):
    return json.loads((run / "result.json").read_text())


@pytest.fixture(scope="module")
def own_run(tmp_path_factory):
    """Return a run of a model whose file is gone; not to be changed."""
    place = tmp_path_factory.mktemp("own")
    path = write(place)
    assert run_main(f"--model={path}:Net", f"--workdir={place / 'run'}", *FLAGS) == 0
    path.unlink()
    return place / "run"


def test_a_run_keeps_the_file_and_names_it_by_its_content(own_run):
    digest = hashlib.sha256(NET.encode()).hexdigest()[:12]
    assert (own_run / "own_model.py").read_text() == NET
    assert workdir.read_config(own_run)["model"] == f"own.py:Net@{digest}"
    assert read_result(own_run)["steps"] == 6


def test_the_copy_is_whole_before_anything_refers_to_it(tmp_path, monkeypatch):
    def look(path, found):
        assert path.with_name("own_model.py").read_text() == NET
        raise KeyboardInterrupt

    monkeypatch.setattr(workdir.atomic, "write_json", look)
    with pytest.raises(KeyboardInterrupt):
        workdir.write_config(tmp_path, make(write(tmp_path)).to_flat())


def test_a_stopped_run_resumes_to_the_same_bits_without_the_file(
    own_run, tmp_path, forgotten, monkeypatch
):
    path, run = write(tmp_path), tmp_path / "run"
    with pytest.raises(Interrupted):
        train.train(make(path), run, Stopper(3, signal.SIGTERM))
    assert not (run / "result.json").exists()
    path.unlink()
    forget()
    monkeypatch.chdir(tmp_path)
    command = ["--model=own.py:Net", "--workdir=run", *FLAGS]
    assert run_main(*command) == 0
    found = read_result(run)
    assert found["state_sha256"] == read_result(own_run)["state_sha256"]
    # Wherever the file lies, and whatever it is called.
    for model in (write(tmp_path, name="moved.py"), run / "own_model.py"):
        assert run_main(f"--model={model}:Net", *command[1:]) == 0


def test_a_changed_file_is_another_model(own_run, tmp_path, forgotten, capsys):
    run = shutil.copytree(own_run, tmp_path / "run")
    path = write(tmp_path, f"# changed\n{NET}")
    command = [f"--workdir={run}", *FLAGS]
    assert run_main(f"--model={path}:Net", *command) == 2
    said = capsys.readouterr().err
    kept = workdir.read_config(run)["model"]
    for part in (str(path), str(run / "own_model.py"), f"--model={kept} resumes it"):
        assert part in said
    assert run_main(f"--model={kept}", *command) == 0


def test_other_modes_find_the_model_in_the_run(
    own_run, tmp_path, forgotten, monkeypatch, capsys
):
    run = shutil.copytree(own_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert run_main("--mode=evaluate", "--workdir=run") == 0
    np.save("x.npy", np.zeros((8, 8), np.uint8))
    tuned = ["--model=own.py:Net", "--init_from=run", "--workdir=tuned", "--epochs=1"]
    tuned += ["--classes=0,1,2", "--train_examples=40", "--batch_size=20"]
    forget()
    assert run_main(*tuned, "--train_only=Dense_0") == 0
    kept = (tmp_path / "tuned" / "own_model.py").read_text()
    assert kept == NET
    forget()
    loaded = cnn.load(run)
    assert loaded.classify(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)


@pytest.mark.slow
def test_every_other_mode_finds_it_too(own_run, tmp_path, forgotten, monkeypatch):
    shutil.copytree(own_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for kind in ("stablehlo", "onnx", "torch"):
        assert (
            run_main("--mode=export", "--workdir=run", f"--export_format={kind}") == 0
        )
    forget()
    longer = ["--extend=run", "--epochs=3", "--workdir=longer"]
    assert run_main(*longer) == 0
    both = "--workdir=run,longer"
    assert run_main("--mode=average", both, "--output=mean") == 0
    assert (tmp_path / "mean" / "own_model.py").read_text() == NET
    assert run_main("--mode=compare", both) == 0
    assert run_main("--mode=replay", "--workdir=longer", "--step=2") == 0


def test_whoever_reads_options_finds_the_copy_beside_them(own_run, tmp_path, forgotten):
    model = workdir.read_config(own_run)["model"]
    assert own_code.get_content(model) == NET.encode()
    forget()
    shutil.copy(own_run / "own_model.py", tmp_path)
    preset = write(tmp_path, f"options = {{'model': {model!r}}}\n", "best.py")
    assert load_preset(str(preset)) == {"model": model}
    assert own_code.get_content(model) == NET.encode()
    assert own_code.find_file(model) == str(tmp_path / "own_model.py")


def test_a_missing_copy_is_named(own_run, tmp_path, forgotten, capsys):
    run = shutil.copytree(own_run, tmp_path / "run")
    (run / "own_model.py").unlink()
    assert run_main("--mode=evaluate", f"--workdir={run}") == 2
    assert "keeps it as own_model.py, which is absent" in capsys.readouterr().err


def test_a_file_of_the_user_is_not_overwritten(tmp_path):
    config = make(write(tmp_path))
    write(tmp_path, "mine = 1\n", "own_model.py")
    with pytest.raises(UserError, match="own_model.py holds another model"):
        workdir.write_config(tmp_path, config.to_flat())


@pytest.mark.slow
def test_a_sweep_trains_it(tmp_path, forgotten):
    model = f"--model={write(tmp_path)}:Net"
    axes = "--sweep=learning_rate=0.01,0.05"
    more = [f"--workdir={tmp_path / 's'}", "--epochs=1", "--executor=loop"]
    command = ["--mode=sweep", axes, model, *more, *FLAGS[:2]]
    assert run_main(*command) == 0
    best = tmp_path / "s" / "sweep" / "best"
    (tmp_path / "own.py").unlink()
    forget()
    assert (best / "own_model.py").read_text() == NET
    assert run_main("--mode=evaluate", f"--workdir={best}") == 0
    forget()
    assert run_main(*command) == 0
    forget()
    tried = ["--mode=describe", f"--workdir={tmp_path / 'd'}"]
    for start in (f"--from_trial={tmp_path / 's'}:1", f"--config={best}.py"):
        forget()
        assert run_main(*tried, start) == 0


def test_equal_files_give_equal_models_and_are_executed_once(
    tmp_path, monkeypatch, forgotten
):
    mark = tmp_path / "mark"
    text = NET + f"\nwith open({str(mark)!r}, 'a') as file:\n    file.write('x')\n"
    (tmp_path / "other").mkdir()
    names = [make(write(place, text)).model for place in (tmp_path, tmp_path / "other")]
    one, two = (models.create_model(name, 10) for name in names)
    assert (one, hash(one)) == (two, hash(two)) and names[0] == names[1]
    assert mark.read_text() == "x"
    assert one != models.create_model(make(write(tmp_path)).model, 10)


def test_a_function_creates_a_model(tmp_path, forgotten):
    text = NET + "\n\ndef create(options, num_classes, dtype):\n"
    text += "    return Net(num_classes)\n"
    options = make_config({"model": f"{write(tmp_path, text)}:create"}).model
    one, two = (models.create_model(options, 10) for _ in range(2))
    assert one == two and type(one).__name__ == "Net"


def replace(old, new):
    assert old in NET
    return NET.replace(old, new)


CALL = "def __call__(self, x, train=False)"
WRONG = {
    "absent": (None, "own.py:Net", "there is no file"),
    "no name": (NET, "own.py", r"own\.py: name what .*own.py defines.*own.py:Net"),
    "other name": (NET, "own.py:Nett", "has no Nett; did you mean Net?"),
    "fails": (f"{NET}\n\n1 / 0\n", "own.py:Net", r"own.py:17: ZeroDivisionError"),
    "syntax": ("class Net(:\n", "own.py:Net", r"own.py:1: SyntaxError"),
    "imports": ("import my_layers\n\nNet = 1\n", "own.py:Net", "a run keeps one file"),
    "no module": ("Net = 3\n", "own.py:Net", "Net is int 3; give a class of"),
    "no classes": (
        replace("num_classes: int", "units: int = 10").replace(
            "self.num_classes", "self.units"
        ),
        "own.py:Net",
        "has no attribute num_classes; write",
    ),
    "no default": (
        replace("num_classes: int", "num_classes: int\n    width: int"),
        "own.py:Net",
        "the attribute width needs a default",
    ),
    "shape": (
        replace("nn.Dense(self.num_classes)", "nn.Dense(7)"),
        "own.py:Net",
        r"returns \(2, 7\) for 2 images of 8x8x1; return logits",
    ),
    "no train": (
        replace(CALL, "def __call__(self, x, training=False)").replace(
            "not train", "not training"
        ),
        "own.py:Net",
        "has no argument train=False; write",
    ),
    "call fails": (
        replace("nn.relu(", "nn.relu(None + "),
        "own.py:Net",
        r"own.py:11: TypeError",
    ),
    "no parameters": (
        replace(
            "x = nn.relu",
            "return x.reshape((x.shape[0], -1))[:, :10]\n        x = nn.relu",
        ),
        "own.py:Net",
        "has no parameters",
    ),
    "function": (
        f"{NET}\n\ndef create(options, num_classes, dtype):\n    return num_classes\n",
        "own.py:create",
        "create returns int; return a flax.linen.Module",
    ),
}


@pytest.mark.parametrize("text, name, match", WRONG.values(), ids=WRONG)
def test_what_is_no_model_is_refused_before_anything_is_written(
    text, name, match, tmp_path, forgotten, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        write(tmp_path, text)
    assert run_main(f"--model={name}", "--workdir=run", *FLAGS) == 2
    said = capsys.readouterr().err
    assert f"--model={name.partition(':')[0]}" in said and "own.py" in said
    assert re.search(match, said.replace("\n", " ")), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flag",
    ["dropout_rate=0.1", "stochastic_depth_rate=0.1", "convolution=plain"]
    + ["bn_epsilon=0.1", "precision=bfloat16", "recompute_statistics=2"],
)
def test_an_option_that_it_has_no_place_for_is_refused(
    flag, tmp_path, forgotten, capsys
):
    model = f"--model={write(tmp_path)}:Net"
    run = tmp_path / "run"
    flags = [f"--{flag}", "--canary=off", *FLAGS]
    assert run_main(model, f"--workdir={run}", *flags) == 2
    assert f"--{flag.partition('=')[0]}" in capsys.readouterr().err
    assert not run.exists()


def test_what_a_model_declares_is_given_to_it(tmp_path, forgotten):
    text = replace("num_classes: int", "num_classes: int\n    layers: Layers")
    text = text.replace(
        "import flax.linen as nn",
        "import flax.linen as nn\nfrom cnn.models.layers import Layers",
    )
    options = make(write(tmp_path, text), bn_epsilon=0.1).model
    model = models.create_model(options, 4, jnp.bfloat16)
    assert (model.layers.epsilon, model.layers.dtype) == (0.1, jnp.bfloat16)


def test_frozen_normalisations_of_flax_keep_their_statistics(tmp_path, forgotten):
    model = models.create_model(make(write(tmp_path)).model, 4)
    images = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(1), images)

    @functools.partial(jax.jit, static_argnums=0)
    def run(moving):
        phase = freezing.Phase(0, frozenset(), frozenset(moving))
        with freezing.hold_statistics(phase):
            return model.apply(
                variables,
                images,
                train=True,
                rngs={"dropout": jax.random.key(2)},
                mutable=["batch_stats"],
            )[1]["batch_stats"]

    held, moved = run(()), run(("BatchNorm_0",))
    jax.tree.map(np.testing.assert_array_equal, held, variables["batch_stats"])
    assert (moved["BatchNorm_0"]["mean"] != held["BatchNorm_0"]["mean"]).all()


def test_the_program_of_other_runs_is_the_same(tmp_path, forgotten):
    def write_down():
        setup = make_setup(SMALL)
        state = jax.eval_shape(setup.phases[0].create, setup.numbers, {})
        return str(jax.tree.map(jnp.shape, state)), str(
            jax.make_jaxpr(setup.phases[0].create)(setup.numbers, {})
        )

    before = write_down()
    models.create_model(make(write(tmp_path)).model, 10)
    assert write_down() == before


def test_names_of_files():
    digest = "0123456789ab"
    assert own_code.split("a/b.py:Net") == ("a/b.py", "Net", "")
    assert own_code.split(f"b.py:Net@{digest}") == ("b.py", "Net", digest)
    assert own_code.split("resnet50") is None
    assert own_code.read_name("model", "wrn_16_2") == "wrn_16_2"
    assert models.get_published_input(f"b.py:Net@{digest}") == (8, 1, 10)
