"""Curves: metrics.jsonl in, series out; damage is noted and the rest is drawn."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cnn.checkpoints import workdir
from cnn.config import make_config
from cnn.errors import UserError
from cnn.visualize.compute import curves
from cnn.visualize.draw import curves as draw_curves
from cnn.visualize.draw import picture
from cnn.visualize.subject import Subject


def draw(folder, *directories):
    """Draw the curves; returns the pictures and the notes."""
    folder.mkdir(exist_ok=True)
    subject = Subject(make_config(), list(directories))
    with picture.use_style():
        pictures = draw_curves.draw(subject, folder)
    return pictures, subject.take_notes()


def copy_run(trained, directory, text=None):
    """Copy a run without its checkpoints, with another metrics.jsonl if given."""
    directory.mkdir()
    shutil.copy(trained / "config.json", directory)
    if text is None:
        text = (trained / "metrics.jsonl").read_text()
    (directory / "metrics.jsonl").write_text(text)
    return directory


def test_series_are_what_was_written(trained):
    history = curves.read_history(trained)
    lines = [
        json.loads(x) for x in (trained / "metrics.jsonl").read_text().splitlines()
    ]
    for name in ("train_loss", "validation_accuracy", "images_per_second", "loss"):
        written = [(x["step"], x[name]) for x in lines if name in x]
        steps, values = history.series[name]
        assert list(zip(steps.tolist(), values.tolist(), strict=True)) == written
    assert history.num_damaged == 0
    last = [line for line in lines if "epoch" in line][-1]
    assert history.steps_per_epoch * last["epoch"] == last["step"] > 0
    assert "example_ids_hash" not in history.series


def test_learning_rates_are_those_of_the_run(trained):
    """The run logged each step's rate: the schedule must give the same."""
    history = curves.read_history(trained)
    steps, logged = history.series["learning_rate"]
    assert len(steps) > 5 and len(set(logged)) > 5
    stored = workdir.read_config(trained)
    # A line's step counts the step just taken, the schedule from 0.
    found = curves.compute_learning_rates(stored, history.steps_per_epoch, steps - 1)
    np.testing.assert_allclose(found, logged, rtol=1e-5)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"schedule": "constant"}, [0.1, 0.1, 0.1]),
        ({"schedule": "linear"}, [0.1, 0.075, 0.05]),
        ({"schedule": "constant", "warmup_epochs": 1.0}, [0.02, 0.1, 0.1]),
        ({"schedule": "step", "milestones": (1.0, 2.0)}, [0.1, 0.01, 0.001]),
    ],
)
def test_schedules(changes, expected):
    stored = make_config({"epochs": 4, "learning_rate": 0.1}, changes).to_flat()
    found = curves.compute_learning_rates(stored, 5, np.array([0, 5, 10]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_damaged_lines_are_left_out_and_noted(trained, tmp_path):
    whole = (trained / "metrics.jsonl").read_text()
    damaged = '{"step": 1, "lo\n[1, 2]\n{"loss": 3}\n' + whole + '{"step": 7, "trai'
    run = copy_run(trained, tmp_path / "run", damaged)
    history = curves.read_history(run)
    assert history.num_damaged == 4
    expected = curves.read_history(trained).series
    assert set(history.series) == set(expected)
    pictures, notes = draw(tmp_path / "pictures", run)
    assert len(pictures) == 1
    assert "4 damaged lines are left out" in notes[0]


@pytest.mark.parametrize("text", ["", "\n", "no metrics\n", "\x00\xff\n"])
def test_a_file_without_metrics_is_refused(trained, tmp_path, text):
    run = copy_run(trained, tmp_path / "run", text)
    with pytest.raises(UserError, match="holds no line of metrics; train the run"):
        draw(tmp_path / "pictures", run)


def test_absent_metrics_are_noted_and_the_other_run_is_drawn(trained, tmp_path):
    absent = tmp_path / "converted"
    with pytest.raises(UserError, match=r"metrics.jsonl cannot be read"):
        draw(tmp_path / "pictures", absent)
    pictures, notes = draw(tmp_path / "pictures", absent, trained)
    assert len(pictures) == 1 and len(notes) == 1
    assert "converted/metrics.jsonl cannot be read" in notes[0]


def test_a_damaged_config_costs_the_learning_rate_alone(trained, tmp_path):
    run = copy_run(trained, tmp_path / "run")
    (run / "config.json").write_text("{")
    pictures, notes = draw(tmp_path / "pictures", run)
    assert len(pictures) == 1 and "no learning rate" in notes[0]


def test_a_run_of_one_evaluation_can_be_drawn(trained, tmp_path):
    first = (trained / "metrics.jsonl").read_text().splitlines()[0]
    run = copy_run(trained, tmp_path / "run", first + "\n")
    pictures, notes = draw(tmp_path / "pictures", run)
    assert len(pictures) == 1 and not notes


def test_picture_is_written_as_png_and_svg_without_a_display(
    trained, tmp_path, monkeypatch
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    (drawn,), _ = draw(tmp_path, trained)
    with Image.open(drawn.path) as image:
        assert image.width > 800 and len(image.convert("RGB").getcolors(10**6)) > 20
    assert drawn.path.with_suffix(".svg").read_text().startswith("<?xml")


def test_a_plateau_lowers_the_rates_that_follow():
    series = {"rate_factor": (np.array([5, 10]), np.array([0.5, 0.25]))}
    history = curves.History(series, steps_per_epoch=5, num_damaged=0)
    found = curves.find_rate_factors(history, np.array([0, 4, 5, 9, 10, 14]))
    np.testing.assert_array_equal(found, [1, 1, 0.5, 0.5, 0.25, 0.25])
    found = curves.find_rate_factors(curves.History({}, 5, 0), np.array([0, 9]))
    np.testing.assert_array_equal(found, [1, 1])


def test_shares_near_one_are_as_far_apart_as_others():
    shares = np.array([0, 0.5, 0.9, 0.99, 0.999, 1])
    places = curves.stretch(shares)
    np.testing.assert_allclose(places[[0, -1]], [-np.log10(1.001), 3])
    assert np.all(np.diff(places) > 0.25), places
    np.testing.assert_allclose(curves.unstretch(places), shares, atol=1e-12)


def test_long_series_keep_their_ends():
    steps, values = np.arange(10_000), np.arange(10_000) / 2
    found = curves.thin_out((steps, values), 100)
    assert len(found[0]) == 100 and found[0][0] == 0 and found[0][-1] == 9999
    np.testing.assert_array_equal(found[1], found[0] / 2)
    assert len(curves.thin_out((steps[:0], values[:0]), 100)[0]) == 0


@pytest.mark.parametrize("accuracy, is_stretched", [(0.85, False), (0.99, True)])
def test_an_accuracy_near_one_has_an_axis_that_shows_it(
    trained, tmp_path, accuracy, is_stretched
):
    line = {"step": 5, "epoch": 1, "train_accuracy": 0.5, "train_loss": 1.0}
    last = line | {"step": 10, "epoch": 2, "train_accuracy": accuracy}
    text = "".join(json.dumps(x) + "\n" for x in (line, last))
    run = copy_run(trained, tmp_path / "run", text)
    (drawn,), _ = draw(tmp_path / "pictures", run)
    assert ("stretched towards 100 %" in drawn.caption) == is_stretched


def test_the_page_gets_the_numbers_of_the_lines(trained, tmp_path):
    other = copy_run(trained, tmp_path / "other")
    (drawn,), _ = draw(tmp_path / "pictures", trained, other)
    data = json.loads(drawn.path.with_suffix(".json").read_text())
    assert [panel["name"] for panel in data["panels"]] == [
        *("loss", "accuracy", "rate", "speed")
    ]
    history = curves.read_history(trained)
    steps, values = history.series["validation_accuracy"]
    lines = [
        x
        for x in data["lines"]
        if (x["panel"], x["name"]) == ("accuracy", "validation")
    ]
    assert [line["group"] for line in lines] == [trained.name, "other"]
    for line in lines:
        np.testing.assert_allclose(line["x"], steps / history.steps_per_epoch, 1e-5)
        np.testing.assert_allclose(line["y"], values, 1e-5)
