"""The loop over epochs: selection, early stopping, what is kept, what is refused."""

import json
import math
import re
import shutil

import jax
import jax.numpy as jnp
import pytest
from fixtures_runs import TINY, make_flags, read_lines, run_main, train_run

from cnn import config as config_module
from cnn.checkpoints import manifest
from cnn.checkpoints.workdir import read_config
from cnn.errors import UserError
from cnn.evaluation import evaluate
from cnn.runtime import tracking
from cnn.runtime.terminal import Terminal
from cnn.training import progress
from cnn.training.counters import Counters
from cnn.training.options import TrainOptions
from cnn.training.state import is_finite
from cnn.training.trained import load_trained

STEPS_PER_EPOCH = TINY["train_examples"] // TINY["batch_size"]


@pytest.fixture
def no_nan_check():
    """Let numbers become NaN without an exception of JAX's own."""
    with jax.debug_nans(False):
        yield


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that sets the validation accuracy of each evaluation."""

    def script(values):
        compute, given = progress.evaluate, iter(values)

        def evaluate(setup, reached, split, stop):
            found = compute(setup, reached, split, stop)
            if split == "validation":
                found["accuracy"] = found["loss"] = next(given)
            return found

        monkeypatch.setattr(progress, "evaluate", evaluate)

    return script


def list_saved(directory):
    return [step // STEPS_PER_EPOCH for step in manifest.list_steps(directory)]


@pytest.mark.parametrize(
    "values, changes, best, last, kept",
    [
        ([0.1, 0.5, 0.4, 0.3, 0.2], {"keep_checkpoints": 1}, 1, 4, [1, 4]),
        ([0.1, 0.5, 0.4, 0.3, 0.2], {"keep_checkpoints": 2}, 1, 4, [1, 3, 4]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], {"keep_checkpoints": 2}, 4, 4, [3, 4]),
        ([0.1, 0.5, 0.5, 0.4, 0.6], {"early_stop_epochs": 2}, 1, 3, [1, 2, 3]),
        ([0.1, 0.5, 0.4, 0.6, 0.5], {"early_stop_epochs": 2}, 3, 4, [3, 4]),
        ([0.5, 0.1, 0.4, 0.6, 0.7], {"select_by": "loss"}, 1, 4, [1, 3, 4]),
        ([0.9, 0.5, 0.4, 0.3, 0.2], {"checkpoint_every_epochs": 2.0}, 0, 4, [0, 2, 4]),
    ],
)
def test_best_and_newest_are_kept(
    tmp_path, scripted, values, changes, best, last, kept
):
    scripted(values)
    options = {"epochs": 4, "checkpoint_every_epochs": 1.0, "model": "mlp"}
    result = train_run(tmp_path, **options | {"mlp_widths": (4,)} | changes)
    assert result["epochs"] == last and result["stopped_early"] == (last < 4)
    assert result["best_step"] == best * STEPS_PER_EPOCH
    assert result["best_validation"] == values[best]
    assert list_saved(tmp_path / "checkpoints") == kept
    step = manifest.find_step(tmp_path, "best")
    assert step == best * STEPS_PER_EPOCH
    lines = [line for line in read_lines(tmp_path) if "epoch" in line]
    assert [line["epoch"] for line in lines] == list(range(last + 1))


def test_a_run_that_stopped_early_stays_so(tmp_path, scripted):
    scripted([0.5] * 2)
    options = {"model": "mlp", "mlp_widths": (4,), "early_stop_epochs": 1}
    first = train_run(tmp_path, **options)
    again = train_run(tmp_path, **options)
    assert first["steps"] == again["steps"] == STEPS_PER_EPOCH
    assert first["state_sha256"] == again["state_sha256"]


def test_without_validation_nothing_is_selected(tmp_path):
    result = train_run(
        tmp_path, model="mlp", mlp_widths=(4,), validation_fraction=0.0, epochs=1
    )
    assert (result["best_step"], result["best_validation"]) == (-1, None)
    assert "best_test_accuracy" not in result
    assert "test_accuracy" in read_lines(tmp_path)[0]
    with pytest.raises(UserError, match="no best checkpoint"):
        manifest.find_step(tmp_path, "best")


def test_evaluations_may_be_rarer(tmp_path):
    train_run(tmp_path, model="mlp", mlp_widths=(4,), eval_every_epochs=2)
    lines = [line for line in read_lines(tmp_path) if "epoch" in line]
    assert ["validation_loss" in line for line in lines] == [True, False, True, True]
    assert all("train_loss" in line for line in lines[1:])


@pytest.mark.parametrize("every", [0.2, 1.0])
def test_loss_that_is_not_finite(tmp_path, capsys, no_nan_check, every):
    directory = tmp_path / "run"
    changes = {"learning_rate": 1e30, "checkpoint_every_epochs": every}
    flags = make_flags(TINY | changes)
    for _ in range(2):
        assert run_main(f"--workdir={directory}", *flags) == 2
        told = capsys.readouterr().err
        step = int(re.search(r"(?:at|update of) step (\d+)", told)[1])
        assert "not finite" in told and step < 5
        assert "Lower --learning_rate" in told and "Traceback" not in told
    assert not (directory / "result.json").exists()
    for path in (directory / "checkpoints").iterdir():
        assert manifest.find_damage(path) == ""
        variables = load_trained(directory, path.name).variables
        assert int(path.name) < step and is_finite(variables)


def test_update_that_is_not_finite_is_never_saved(tmp_path, monkeypatch):
    take = progress.take_epoch

    def spoil(setup, reached, *rest):
        for taken in take(setup, reached, *rest):
            spoiled = jax.tree.map(lambda x: x + jnp.inf, reached.state.params)
            reached.state = reached.state.replace(params=spoiled)
            yield taken

    monkeypatch.setattr(progress, "take_epoch", spoil)
    with pytest.raises(UserError, match="The update of step 1 is not finite"):
        train_run(tmp_path, checkpoint_every_epochs=0.2)
    assert manifest.list_steps(tmp_path / "checkpoints") == [0]


def test_good_checkpoint_outlives_a_loss_that_is_not_finite(
    trained, tmp_path, no_nan_check, monkeypatch
):
    directory = shutil.copytree(trained, tmp_path / "run")
    newest = manifest.list_steps(directory / "checkpoints")[-1]
    shutil.rmtree(directory / "checkpoints" / str(newest))
    (directory / "result.json").unlink()
    take = progress.take_epoch

    def spoil(*args):
        for ids, step_metrics in take(*args):
            yield ids, step_metrics | {"loss": step_metrics["loss"] * float("nan")}

    monkeypatch.setattr(progress, "take_epoch", spoil)
    before = manifest.list_steps(directory / "checkpoints")
    with pytest.raises(UserError, match=f"not finite at step {before[-1] + 1}"):
        train_run(directory)
    assert manifest.list_steps(directory / "checkpoints") == before
    monkeypatch.undo()
    expected = json.loads((trained / "result.json").read_text())["state_sha256"]
    assert train_run(directory)["state_sha256"] == expected


def test_result_says_what_was_done(trained):
    result = json.loads((trained / "result.json").read_text())
    assert result["steps"] == 3 * STEPS_PER_EPOCH and result["epochs"] == 3
    assert result["seed"] == 0 and result["seconds"] > 0
    assert set(result["versions"]) >= {"python", "jax", "jaxlib", "flax", "numpy"}
    assert result["test_accuracy"] == result["test_correct"] / result["test_count"]
    assert len(result["state_sha256"]) == 64


def test_tensorboard_gets_the_options_with_the_result(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        tracking.TRACKERS["tensorboard"],
        "add_result",
        lambda files, step, numbers: seen.append((files._options, numbers)),
    )
    result = train_run(tmp_path / "run", epochs=1, track="tensorboard")
    ((options, numbers),) = seen
    assert numbers.items() <= result.items() and "test_accuracy" in numbers
    assert options["epochs"] == 1 and "track" not in options


def note(counters, values, losses, **changes):
    """Note the metrics of some epochs, from the first; returns the counters."""
    options = TrainOptions(**{"select_by": "accuracy"} | changes)
    for epoch, (value, loss) in enumerate(zip(values, losses, strict=True)):
        counters.note_best(
            options, epoch * 10, epoch, {"accuracy": value, "loss": loss}
        )
    return counters


@pytest.mark.parametrize(
    "values, losses, best",
    [
        ([0.5, 0.9, 0.9, 0.9], [1.0, 0.4, 0.3, 0.35], 2),
        ([0.5, 0.9, 0.9, 0.9], [1.0, 0.3, 0.3, 0.4], 1),
        ([0.5, 0.9, 0.8, 0.9], [1.0, 0.3, 0.1, 0.2], 3),
        ([0.5, 0.4], [1.0, 0.1], 0),
    ],
)
def test_of_equal_metrics_the_lower_loss_is_the_best(values, losses, best):
    counters = note(Counters(), values, losses)
    assert (counters.best_step, counters.best_epoch) == (best * 10, best)
    assert counters.best_value == values[best] and counters.best_loss == losses[best]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("select_by", ["accuracy", "loss"])
def test_what_is_not_finite_is_never_the_best(odd, select_by):
    values = [odd, 0.5, odd, 0.4]
    losses = values if select_by == "loss" else [odd, 1.0, 0.1, 0.1]
    counters = note(Counters(), values[:1], losses[:1], select_by=select_by)
    assert counters.best_step == -1 and counters.best_value == 0.0
    counters = note(Counters(), values, losses, select_by=select_by)
    assert counters.best_epoch == (3 if select_by == "loss" else 1)
    stopping = {"select_by": select_by, "early_stop_epochs": 2}
    assert note(Counters(), [odd] * 3, [odd] * 3, **stopping).stopped_early
    # As a checkpoint of an earlier version has it.
    counters = Counters(best_step=10, best_value=odd, best_loss=odd, best_epoch=1)
    assert note(counters, [0.5], [1.0], select_by=select_by).best_step == 0


def test_a_lower_loss_alone_does_not_put_off_early_stopping():
    values, losses = [0.9, 0.9, 0.9], [0.3, 0.2, 0.1]
    assert not note(Counters(), values, losses, early_stop_epochs=3).stopped_early
    counters = note(Counters(), values, losses, early_stop_epochs=2)
    assert counters.stopped_early and counters.best_epoch == 2


def test_counters_of_an_earlier_version_are_taken():
    stored = {"best_step": 10, "best_value": 0.9, "best_epoch": 1}
    options = TrainOptions(select_by="accuracy", early_stop_epochs=2)
    for epoch, loss in ((2, 0.1), (3, 0.2)):
        counters = Counters(**stored)
        found = {"accuracy": 0.9, "loss": loss}
        counters.note_best(options, 10 * epoch, epoch, found)
        assert counters.best_step == 10, "the loss of the best is not known"
        assert counters.stopped_early == (epoch == 3)


def test_the_best_checkpoint_is_tested_at_the_end(tmp_path, scripted, capsys):
    scripted([0.1, 0.5, 0.4, 0.3])
    result = train_run(tmp_path, model="mlp", mlp_widths=(4,))
    assert result["best_step"] == STEPS_PER_EPOCH < result["steps"]
    config = config_module.make_config(read_config(tmp_path), {"checkpoint": "best"})
    found = evaluate.evaluate(config, tmp_path, Terminal())
    for name in ("loss", "accuracy", "correct", "count", "top5", "balanced_accuracy"):
        assert result[f"best_test_{name}"] == found[name]
    assert result["best_test_loss"] != result["test_loss"]
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "best check" in x]
    assert f"(50.00%): step {STEPS_PER_EPOCH}, test accuracy" in line
    assert f"{found['accuracy']:.2%} ({found['correct']} of 360)" in line


def test_the_last_checkpoint_may_be_the_best(tmp_path, scripted, capsys):
    scripted([0.4, 0.3, 0.2, 0.1])
    result = train_run(tmp_path, model="mlp", mlp_widths=(4,), select_by="loss")
    assert result["best_test_loss"] == result["test_loss"]
    told = capsys.readouterr().out
    assert f"by validation loss (0.1000): step {result['steps']}, the last one" in told


def test_a_best_checkpoint_that_is_gone_does_not_end_the_run(
    tmp_path, scripted, monkeypatch, capsys
):
    scripted([0.1, 0.5, 0.4, 0.3])
    evaluate_best = progress.evaluate_best

    def lose(setup, reached, checkpoints, stop):
        shutil.rmtree(checkpoints / str(reached.counters.best_step))
        return evaluate_best(setup, reached, checkpoints, stop)

    monkeypatch.setattr(progress, "evaluate_best", lose)
    result = train_run(tmp_path, model="mlp", mlp_widths=(4,))
    assert result["best_validation"] == 0.5 and "best_test_loss" not in result
    assert "the best checkpoint is not tested" in capsys.readouterr().out
