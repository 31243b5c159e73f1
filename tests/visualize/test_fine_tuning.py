"""The picture of fine-tuning: what of a run was kept, replaced, frozen and trained."""

import dataclasses
import json
import shutil

import pytest
from fixtures_runs import run_main

from cnn.config import make_config
from cnn.errors import UserError
from cnn.training.trained import load_trained
from cnn.visualize import named_run, visualize
from cnn.visualize.compute import fine_tuning
from cnn.visualize.compute.fine_tuning import LayerPlan
from cnn.visualize.subject import Subject

GRADUAL = {"epochs": 5, "freeze_through": "stage1", "unfreeze": ("stage1_norm:3",)}
HEAD = {"source": "runs/a <b>", "reset": ["params/head/kernel", "params/head/bias"]}


@pytest.fixture(scope="module")
def tune(trained):
    """Return a function that makes a run as if it had been fine-tuned."""
    run = load_trained(trained)

    def change(transfer=HEAD, options=GRADUAL):
        transfer = {"adapted": ["params/stage1_conv/kernel"]} | transfer
        return dataclasses.replace(
            run, transfer=transfer, options=run.options | options
        )

    return change


def test_each_layer_has_its_source_and_its_phases(tune):
    assert fine_tuning.plan_layers(tune()) == (
        [0, 3],
        [
            LayerPlan("stage1_conv", 1, 36, "adapted", ("frozen", "frozen")),
            LayerPlan("stage1_norm", 1, 8, "kept", ("frozen", "trains")),
            LayerPlan("head", 1, 50, "replaced", ("trains", "trains")),
        ],
    )


def test_without_freezing_everything_trains_from_the_first_epoch_on(tune):
    first_epochs, plans = fine_tuning.plan_layers(tune(options={}))
    assert first_epochs == [0]
    assert {plan.phases for plan in plans} == {("trains",)}
    bias = {"freeze": ("head/bias",)}
    assert fine_tuning.plan_layers(tune(options=bias))[1][-1].phases == ("partly",)


def test_what_cannot_be_drawn_is_explained(tune, trained):
    with pytest.raises(UserError, match="not started from other weights"):
        fine_tuning.plan_layers(load_trained(trained))
    old = dataclasses.replace(tune(), transfer={"source": "a"})
    with pytest.raises(UserError, match="earlier version"):
        fine_tuning.plan_layers(old)


def test_layers_of_one_plan_are_folded():
    def plan(name, start="kept", count=3):
        return LayerPlan(name, 1, count, start, ("frozen",))

    plans = [plan("a"), plan("b"), plan("c", count=4), plan("d", "replaced"), plan("e")]
    assert fine_tuning.fold(plans) == [
        LayerPlan("a … c", 3, 10, "kept", ("frozen",)),
        plans[3],
        plans[4],
    ]


def test_the_picture_says_it_in_words(tune, trained, tmp_path):
    run = named_run.NamedRun("mine", trained, tune())
    subject = Subject(make_config(), [trained])
    with visualize.picture.use_style():
        (drawn,) = visualize.fine_tuning._draw_run(subject, run, tmp_path)
    assert drawn.title == "mine, fine-tuned from a <b>"
    assert {x.name for x in tmp_path.iterdir()} == {
        *("fine_tuning.png", "fine_tuning.svg")
    }


@pytest.mark.parametrize("source", ["", "runs/a"])
def test_all_has_it_for_runs_that_were_fine_tuned(source, trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    options = json.loads((trained / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(options | {"init_from": source}))
    names = visualize._choose_names(("all",), [tmp_path / "absent", run])
    assert ("fine_tuning" in names) == bool(source)
    assert "fine_tuning" in visualize._choose_names(("fine_tuning",), [trained])


def test_it_is_noted_where_a_run_was_not_fine_tuned(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    flags = (f"--workdir={run}", "--pictures=fine_tuning")
    assert run_main("--mode=visualize", *flags) == 2
    assert "was not started from other weights" in capsys.readouterr().err
