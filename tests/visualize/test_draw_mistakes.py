"""Pictures of a run's mistakes: what is drawn, what is noted, and what is refused."""

import base64
import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn.checkpoints import workdir
from cnn.config import make_config
from cnn.errors import UserError
from cnn.visualize import named_run
from cnn.visualize.compute.mistakes import count_confusion
from cnn.visualize.draw import mistakes, picture
from cnn.visualize.subject import Subject

NAMES = ["confusion", "classes", "reliability", "confident_errors", "doubtful_hits"]
NAMES.append("mistakes")


def draw(subject, folder):
    folder = folder / "pictures"
    folder.mkdir()
    with picture.use_style():
        return mistakes.draw(subject, folder)


@pytest.fixture
def unwritten(monkeypatch):
    """Draw without writing files, which takes most of the time."""

    def save(figure, path, title, caption, **options):
        return picture.Picture(path, title, caption)

    monkeypatch.setattr(picture, "save", save)


def make_subject(*directories, **changes):
    config = make_config(workdir.read_config(directories[0]), changes)
    return Subject(config, list(directories))


def test_every_picture_of_a_run(trained, tmp_path):
    subject = make_subject(trained)
    pictures = draw(subject, tmp_path)
    assert [drawn.path.stem for drawn in pictures] == NAMES
    for drawn in pictures:
        assert drawn.caption.endswith(".")
        if drawn.path.suffix == ".csv":
            continue
        with Image.open(drawn.path) as image:
            assert len(image.convert("RGB").getcolors(10**6)) > 20, drawn.path.name
    assert subject.take_notes() == ()
    assert (tmp_path / "pictures" / "reliability.svg").exists()


def test_every_mistake_has_a_row_and_the_surest_a_picture(trained, tmp_path, unwritten):
    subject = make_subject(trained)
    pictures = {drawn.path.stem: drawn.path for drawn in draw(subject, tmp_path)}
    assert pictures["mistakes"] == tmp_path / "mistakes.csv"
    with open(pictures["mistakes"], newline="") as file:
        rows = list(csv.DictReader(file))
    logits = subject.compute_logits(subject.runs[0]).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    labels = subject.split.labels
    wrong = np.flatnonzero(shares.argmax(axis=1) != labels)
    assert sorted(int(row["position"]) for row in rows) == wrong.tolist()
    for row in rows:
        i = int(row["position"])
        assert row["path"] == f"#{i}", "digits lie in no files"
        assert row["label"] == str(labels[i])
        assert row["prediction"] == str(shares[i].argmax())
        assert float(row["probability"]) == pytest.approx(shares[i].max(), abs=1e-6)
        assert float(row["loss"]) == pytest.approx(-np.log(shares[i, labels[i]]), 1e-4)
    sureness = [float(row["probability"]) for row in rows]
    assert sureness == sorted(sureness, reverse=True)
    beside = pictures["confident_errors"].with_suffix(".json")
    cards = json.loads(beside.read_text())["cards"]
    assert [card["link"] for card in cards] == [
        f"mistakes-{n + 1}" for n in range(min(24, len(rows)))
    ]
    assert [card["lines"][-1] for card in cards] == [x["path"] for x in rows[:24]]
    image = base64.b64decode(cards[0]["image"].split(",")[1])
    with Image.open(io.BytesIO(image)) as shown:
        expected = subject.read(np.array([int(rows[0]["position"])]))[0, ..., 0]
        np.testing.assert_array_equal(np.asarray(shown), expected)


def test_images_from_files_are_named_after_them(trained, tmp_path, unwritten):
    subject = make_subject(trained)
    count = len(subject.split)
    paths = [Path(f"photos/frog/IMG_{i}.jpg") for i in range(count)]
    images = dataclasses.replace(subject.split, paths=np.array(paths, object))
    vars(subject)["evaluated"] = dataclasses.replace(subject.evaluated, images=images)
    pictures = {drawn.path.stem: drawn.path for drawn in draw(subject, tmp_path)}
    row = pictures["mistakes"].read_text().splitlines()[1].split(",")
    assert row[0] == f"photos/frog/IMG_{row[1]}.jpg"
    beside = pictures["confident_errors"].with_suffix(".json")
    card = json.loads(beside.read_text())["cards"][0]
    assert card["lines"][-1] == f"IMG_{row[1]}.jpg"
    assert all(".jpg" in name for name in subject.chosen.names)


def test_confusion_is_that_of_evaluation(trained, tmp_path, monkeypatch, unwritten):
    """The pictures' predictions are the ones that evaluation counts."""
    seen = []
    plain = mistakes.draw_confusion
    monkeypatch.setattr(
        mistakes, "draw_confusion", lambda *x: (seen.append(x), plain(*x))[1]
    )
    subject = make_subject(trained)
    draw(subject, tmp_path)
    (confusion, names), result = (
        seen[0],
        json.loads((trained / "result.json").read_text()),
    )
    assert names == tuple("0123456789")
    assert confusion.sum() == result["test_count"]
    assert np.trace(confusion) == result["test_correct"]


def test_several_runs_have_pictures_of_their_own(trained, tmp_path, unwritten):
    subject = make_subject(trained, trained)
    pictures = draw(subject, tmp_path)
    assert [drawn.path.stem for drawn in pictures] == [
        f"{name}_{place}" for name in NAMES for place in (1, 2)
    ]
    assert all(str(trained) in drawn.title for drawn in pictures)


def change_trained(monkeypatch, **changes):
    plain = named_run.load_trained

    def load(directory, which):
        return dataclasses.replace(plain(directory, which), **changes)

    monkeypatch.setattr(named_run, "load_trained", load)


def test_numbered_classes_take_the_names_of_the_data(
    trained, tmp_path, monkeypatch, unwritten
):
    numbers = tuple(f"class {k}" for k in range(10))
    change_trained(monkeypatch, class_names=numbers, classes_are_named=False)
    assert len(draw(make_subject(trained), tmp_path)) == len(NAMES)


def test_other_classes_are_refused(trained, tmp_path, monkeypatch):
    change_trained(monkeypatch, class_names=tuple("abcdefghij"))
    with pytest.raises(
        UserError, match=r"knows 10 classes \(a, …\).*cannot be compared"
    ):
        draw(make_subject(trained), tmp_path)


def test_without_errors_their_sheet_is_left_out_and_noted(
    trained, tmp_path, monkeypatch, unwritten
):
    def know(self, run):
        return 9 * np.eye(10, dtype=np.float32)[self.split.labels]

    monkeypatch.setattr(Subject, "compute_logits", know)
    subject = make_subject(trained)
    pictures = draw(subject, tmp_path)
    assert [x.path.stem for x in pictures] == [n for n in NAMES if "errors" not in n]
    assert subject.take_notes() == ("the surest errors: there are none",)


CONFIDENCES = [
    (0.4567, "54.3%"),
    (0.0101, "99.0%"),
    (0.0023, "99.77%"),
    (2.34e-6, "99.99977%"),
    (2.36e-6, "99.99976%"),
    (9.96e-8, "99.9999900%"),
    (3.21e-12, "1 − 3.2e-12"),
    (float("nan"), "nan%"),
]


@pytest.mark.parametrize("doubt, text", CONFIDENCES)
def test_no_confidence_below_one_reads_as_a_hundred_percent(doubt, text):
    assert mistakes.format_confidence(doubt) == text


def test_bins_of_few_images_differ_from_full_ones():
    """Of 301 predictions, one has a confidence of 0.6, all others one of 0.9."""
    own = np.r_[0.6, np.full(300, 0.9)]
    probabilities = np.stack([own, 1 - own], axis=1)
    labels = np.r_[0, np.arange(300) % 2]
    with picture.use_style():
        figure = mistakes._draw_reliability(np.log(probabilities), labels)
    above, below = figure.axes
    assert [text.get_text() for text in below.texts if text.get_text()] == ["1", "300"]
    alpha = {round(bar.get_height(), 2): bar.get_alpha() for bar in above.patches}
    assert alpha[1.0] < 0.3 and alpha[0.5] > 0.85
    (bars,) = above.collections
    lengths = [np.ptp(ends, axis=0)[1] for ends in bars.get_segments() if len(ends)]
    assert max(lengths) > 0.75 and min(lengths) < 0.15 and len(lengths) == 2


@pytest.mark.parametrize("count", [2, 41, 300])
def test_any_number_of_classes_can_be_drawn(tmp_path, count):
    """With some classes that never occur and some that are never predicted."""
    labels = np.arange(500) % max(count - 1, 1)
    predictions = np.where(np.arange(500) % 3, labels, 0)
    confusion = count_confusion(labels, predictions, count)
    names = tuple(f"class number {k}" for k in range(count))
    with picture.use_style():
        drawn = mistakes.draw_confusion(confusion, names)
        drawn["classes"] = mistakes._draw_classes(confusion, names)
        for name, figure in drawn.items():
            figure.savefig(tmp_path / f"{name}.png")
    assert list(drawn)[0] == ("confusion" if count < 41 else "confused_classes")


def test_of_many_classes_the_most_confused_are_named():
    confusion = np.diag(np.full(300, 5))
    confusion[7, 3] = 5
    with picture.use_style():
        drawn = mistakes.draw_confusion(confusion, [f"c{k}" for k in range(300)])
    left, right = drawn["confused_classes"].axes[:2]
    assert [text.get_text() for text in left.get_yticklabels()] == ["c7 → c3"]
    assert [text.get_text() for text in left.texts] == ["50%"]
    assert {"c3", "c7"} <= {text.get_text() for text in right.get_yticklabels()}


def test_a_kept_temperature_is_drawn_beside_the_logits_as_they_are():
    logits, labels = np.tile([2.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    with picture.use_style():
        plain = mistakes._draw_reliability(logits, labels)
        figure = mistakes._draw_reliability(logits, labels, 2 / np.log(3))
    assert "at T=" not in plain.axes[0].get_title()
    before, after = figure.axes[0].get_title().split("\n")
    assert "ECE 0.1308" in before and after.startswith("at T=1.82: ECE 0.0000")
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    points = drawn["at T=1.82"].get_xydata()
    np.testing.assert_allclose(points[np.isfinite(points[:, 0])], [[0.75, 0.75]])
