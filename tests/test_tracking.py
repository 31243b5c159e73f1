"""Trackers: each line once, also when a run is resumed, and no error ends the run.

Those that no requirement brings are played by fakes that stand for their modules.
"""

import json
import os
import sys
import types

import numpy as np
import pytest
from fixtures_events import read_scalars
from fixtures_runs import ROOT, TINY, make_flags, run_main, train_run
from test_readme import list_commands

from cnn.errors import UserError
from cnn.runtime import tracking
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.runtime.metrics_log import MetricsLog
from cnn.runtime.tracking import TRACKERS, Tracking

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
PACKAGES |= {"trackio": "trackio"}
KEEPING = [name for name in PACKAGES if name != "tensorboard"]


class Kept:
    """What a fake tracker has been given.

    Attributes:
        points: run, step, name and value, in order.
        runs: options by run.
        results: numbers by run.
        closed: runs, each time that one is closed.
        asked: how the last run was opened.
    """

    def __init__(self):
        self.points, self.runs, self.results, self.closed = [], {}, {}, []
        self.asked, self.images, self.broken = {}, [], False

    def take(self, run, step, values):
        if self.broken:
            raise ConnectionError("the line is dead")
        for name, value in values.items():
            if isinstance(value, Picture):
                self.images.append((run, name, value.image))
            elif name.startswith("result/"):
                self.results.setdefault(run, {})[name[7:]] = value
            else:
                self.points.append((run, step, name, value))


class Picture:
    def __init__(self, image):
        self.image = image


def fake_wandb(kept):
    def init(id=None, config=None, resume=None, **rest):
        run = id or f"run{len(kept.runs)}"
        assert resume == "allow"
        kept.runs.setdefault(run, config)
        kept.asked = rest
        return types.SimpleNamespace(
            id=run,
            log=lambda values, step: kept.take(run, step, values),
            summary=types.SimpleNamespace(
                update=lambda x: kept.results.setdefault(run, {}).update(x)
            ),
            finish=lambda: kept.closed.append(run),
        )

    return {"init": init, "Settings": dict, "Image": Picture}


def fake_trackio(kept):
    def init(name, config, resume, **rest):
        assert resume == "allow"
        kept.runs.setdefault(name, config)
        kept.asked = rest
        return types.SimpleNamespace(
            log=lambda values, step: kept.take(name, step, values),
            finish=lambda: kept.closed.append(name),
        )

    return {"init": init, "Image": Picture}


def fake_mlflow(kept):
    class Client:
        def get_experiment_by_name(self, name):
            kept.asked = {"project": name}
            return None

        def create_experiment(self, name):
            return "7"

        def create_run(self, experiment, run_name):
            run = f"run{len(kept.runs)}"
            kept.runs[run] = {}
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run))

        def update_run(self, run, status):
            assert run in kept.runs and status == "RUNNING"

        def log_batch(self, run, metrics=(), params=()):
            assert len(params) <= 100
            kept.runs[run] |= dict(params)
            for name, value, _, step in metrics:
                kept.take(run, step, {name: value})

        def log_image(self, run, image, file):
            kept.images.append((run, file.removesuffix(".png"), image))

        def set_terminated(self, run):
            kept.closed.append(run)

    entities = types.SimpleNamespace(
        Metric=lambda *parts: parts, Param=lambda *pair: pair
    )
    return {"MlflowClient": Client, "entities": entities}


@pytest.fixture(params=KEEPING)
def fake(request, monkeypatch):
    """Return the name of a tracker, whose module is a fake, and what it is given."""
    name, kept = request.param, Kept()
    module = types.ModuleType(name)
    vars(module).update(globals()[f"fake_{name}"](kept))
    monkeypatch.setitem(sys.modules, name, module)
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    return name, kept


def test_a_tracker_gets_lines_options_and_the_result(fake, tmp_path):
    name, kept = fake
    options = {f"option{i}": i for i in range(150)} | {"widths": [1, 2], "a": "\x1b"}
    log = MetricsLog(tmp_path, 0, 0, name, options)
    log.write(0, {"epoch": 0, "validation_loss": 2.0})
    log.write(1, {"loss": 0.5, "example_ids_hash": "ab"})
    log.write(1, {"epoch": 1, "train_loss": 0.75})
    log.write_result({"steps": 1, "test_accuracy": 0.5, "device": "cpu"})
    log.close()
    (run,) = kept.runs
    assert kept.points == [
        (run, 0, "epoch", 0.0),
        (run, 0, "validation/loss", 2.0),
        (run, 1, "loss", 0.5),
        (run, 1, "epoch", 1.0),
        (run, 1, "train/loss", 0.75),
    ]
    assert kept.results == {run: {"steps": 1.0, "test_accuracy": 0.5}}
    assert len(kept.runs[run]) == 152 and kept.closed == [run]
    assert str(kept.runs[run]["widths"]) == "[1, 2]" and kept.runs[run]["a"] == r"\x1b"
    assert kept.asked["project"] == "cnn"


def test_a_resumed_run_goes_into_the_same_one_and_repeats_nothing(fake, tmp_path):
    name, kept = fake
    log = MetricsLog(tmp_path, 0, 0, name)
    log.write(1, {"loss": 0.5})
    length = log.sync()
    log.write(1, {"epoch": 1})  # behind the checkpoint
    log.write(2, {"loss": 0.25})
    log.close()
    log = MetricsLog(tmp_path, length, 1, name)
    log.write(1, {"epoch": 1})
    log.write(2, {"loss": 0.25})
    log.write(3, {"loss": 0.125})
    log.write_result({"steps": 3, "best": 1})
    log.close()
    log = MetricsLog(tmp_path, length, 1, name)  # killed before result.json was there
    log.write(3, {"loss": 0.125})
    log.write_result({"steps": 3, "best": 1})
    (run,) = kept.runs
    wanted = [(1, "loss"), (1, "epoch"), (2, "loss"), (3, "loss")]
    assert [(run, *x) for x in wanted] == [point[:3] for point in kept.points]


def test_one_that_was_damaged_or_deleted_begins_another_run(fake, tmp_path):
    name, kept = fake
    for text in ('{"wandb": 3}', "[", json.dumps({name: ["x", ["a"]]}), ""):
        (tmp_path / tracking.STATE_FILE).write_text(text)
        log = MetricsLog(tmp_path, 0, 0, name)
        log.write(1, {"loss": 0.5})
        log.close()
    assert len({point[0] for point in kept.points}) == 4


def test_what_a_tracker_raises_is_said_once(fake, tmp_path, capsys):
    name, kept = fake
    log = MetricsLog(tmp_path, 0, 0, name)
    log.write(1, {"loss": 0.5})
    kept.broken = True
    for step in (2, 3):
        log.write(step, {"loss": 0.5})
    log.write_result({"steps": 3})
    log.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"note: --track={name} of {tmp_path} is written no further" in line
    assert "the line is dead" in line
    assert len(log_lines(tmp_path)) == 3 and len(kept.points) == 1
    kept.broken = False
    log = MetricsLog(tmp_path, 0, 0, name)  # what was missed comes with a resumed run
    for step in (1, 2, 3):
        log.write(step, {"loss": 0.5})
    assert [point[1] for point in kept.points] == [1, 2, 3]


def log_lines(directory):
    text = (directory / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_one_that_cannot_be_opened_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    def refuse(**given):
        raise RuntimeError("no key")

    module = types.ModuleType("wandb")
    module.init, module.Settings = refuse, dict
    monkeypatch.setitem(sys.modules, "wandb", module)
    log = MetricsLog(tmp_path, 0, 0, "wandb")
    log.write(1, {"loss": 0.5})
    log.close()
    assert capsys.readouterr().err.count("no key") == 1
    assert len(log_lines(tmp_path)) == 1


def test_nothing_leaves_the_machine_unless_it_is_asked_for(monkeypatch, tmp_path):
    kept, module = Kept(), types.ModuleType("wandb")
    vars(module).update(fake_wandb(kept))
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    Tracking("wandb", tmp_path, {})
    assert kept.asked["mode"] == "offline" and kept.asked["dir"] == str(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "online")
    Tracking("wandb", tmp_path, {})
    assert kept.asked["mode"] == "online"


@pytest.mark.parametrize(
    "name, variable, off",
    [
        ("wandb", "WANDB_ERROR_REPORTING", "false"),
        ("mlflow", "MLFLOW_DISABLE_TELEMETRY", "true"),
    ],
)
def test_nothing_is_reported_to_makers(name, variable, off, monkeypatch):
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setenv(variable, "")
    monkeypatch.delenv(variable)
    tracking.check(name)
    assert os.environ[variable] == off
    monkeypatch.setenv(variable, "mine")
    tracking.check(name)
    assert os.environ[variable] == "mine"


def test_pictures_go_to_every_tracker(fake, tmp_path):
    name, kept = fake
    image = np.zeros((2, 3, 3), np.uint8)
    tracked = Tracking(name, tmp_path, {})
    tracked.add_images({"kernels/first": image})
    tracked.close()
    ((run, title, given),) = kept.images
    assert title == "kernels/first" and given is image and run in kept.runs


@pytest.mark.parametrize("name", PACKAGES)
def test_one_that_is_absent_is_refused_before_anything_else(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(UserError, match=f"pip install -U {PACKAGES[name]}, or leave"):
        tracking.check(name)
    code = run_main(f"--track={name}", "--model=mlp", f"--workdir={tmp_path}/run")
    captured = capsys.readouterr()
    assert code == 2 and f"pip install -U {PACKAGES[name]}" in captured.err
    assert "dataset" not in captured.out and not (tmp_path / "run/config.json").exists()


def test_every_tracker_is_a_choice():
    from cnn.config import list_fields

    assert list_fields()["track"].metadata["choices"] == ("none", *TRACKERS)


def test_a_run_that_is_stopped_and_resumed_is_one_run_of_the_tracker(
    tmp_path, monkeypatch
):
    kept, module = Kept(), types.ModuleType("wandb")
    vars(module).update(fake_wandb(kept))
    monkeypatch.setitem(sys.modules, "wandb", module)
    looks = iter(range(100))

    def check(stop):
        if next(looks) == 6:
            raise Interrupted(15)

    with monkeypatch.context() as patched:
        patched.setattr(Stop, "check", check)
        with pytest.raises(Interrupted):
            train_run(tmp_path / "run", track="wandb")
    assert kept.points and len(kept.closed) == 1
    result = train_run(tmp_path / "run", track="wandb")
    (run,) = kept.runs
    names = {"seconds", "images_per_second", "epoch"}
    sent = [(x[1], x[2].replace("/", "_"), x[3]) for x in kept.points]
    lines = log_lines(tmp_path / "run")
    wanted = [
        (line["step"], name, value)
        for line in lines
        for name, value in line.items()
        if isinstance(value, int | float) and name != "step"
    ]
    assert [x for x in sent if x[1] not in names] == [
        x for x in wanted if x[1] not in names
    ]
    assert kept.results[run]["test_accuracy"] == result["test_accuracy"]
    assert kept.runs[run]["model"] == "simple_cnn" and "track" not in kept.runs[run]


def test_the_flag_of_before_leads_to_this_one(capsys):
    assert run_main("--tensorboard") == 2
    assert "did you mean --track?" in capsys.readouterr().err


def test_the_page_says_what_works(tmp_path, monkeypatch):
    page = (ROOT / "docs/trackers.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in TRACKERS)
    (words,) = [x for x in list_commands(page) if x[:2] == ["python", "main.py"]]
    monkeypatch.chdir(tmp_path)
    fast = make_flags({**TINY, "epochs": 1, "workdir": "run"})
    assert run_main(*words[2:], *fast) == 0
    shown, lines = (
        read_scalars(tmp_path / "run/tensorboard"),
        log_lines(tmp_path / "run"),
    )
    steps = [line["step"] for line in lines if "validation_loss" in line]
    assert [step for step, _ in shown["validation_loss"]] == steps
