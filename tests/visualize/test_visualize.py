"""The mode as a whole: what is drawn goes into the report, what is not is noted."""

import base64
import json
import re
import shutil

import pytest
from fixtures_events import read_events
from fixtures_runs import ROOT, run_main

from cnn.visualize import visualize

# A PNG of one grey pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5E"
    "rkJggg=="
)


def draw(*flags):
    """Call the mode on the command line; returns its exit code."""
    return run_main("--mode=visualize", *flags)


@pytest.fixture
def fast(monkeypatch):
    """Draw only the least sure hits of `mistakes`: enough to see what was loaded."""
    module, make = visualize.mistakes, visualize.picture.make_figure
    monkeypatch.setattr(module, "draw_confusion", lambda *given: {})
    for name in ("_draw_classes", "_draw_reliability"):
        monkeypatch.setattr(module, name, lambda *given: make(1, 1))


def test_the_lecture_is_a_page_of_its_own_and_needs_no_run(
    tmp_path, monkeypatch, capsys
):
    kept = "Images as numbers", "Feature detectors"
    parts = {name: visualize.slides.PARTS[name] for name in kept}
    monkeypatch.setattr(visualize.slides, "PARTS", parts)
    assert draw("--pictures=lecture", f"--output={tmp_path}") == 0
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {f"{x}.svg" for x in parts[kept[0]][1]} | {
        *("filters.png", "filters.webp", "feature_detectors.svg")
    }
    assert f"written to {tmp_path / 'lecture.html'}" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()
    text = (tmp_path / "lecture.html").read_text()
    assert text.count("<figure") == text.count("<pre") == 5
    assert 'href="#result"' not in text


def test_the_lecture_stands_beside_the_report(trained, tmp_path, fast, monkeypatch):
    monkeypatch.setattr(visualize.slides, "PARTS", {})
    flags = (f"--workdir={trained}", f"--output={tmp_path}")
    assert draw("--pictures=lecture,mistakes", *flags) == 0
    assert {"report.html", "lecture.html"} <= {x.name for x in tmp_path.iterdir()}
    assert 'id="lecture' not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("flag", [None, "--rotation_degrees=15"])
def test_epochs_are_drawn_where_a_flag_varies_images(
    flag, tmp_path, monkeypatch, capsys
):
    flags = ["--pictures=augmentation", f"--output={tmp_path / 'new'}"]
    assert draw(*flags, *([flag] if flag else [])) == (0 if flag else 2)
    names = {path.name for path in (tmp_path / "new").glob("pictures/*")}
    assert names == ({"augmentation.png", "sections.json"} if flag else set())
    assert ("no augmentation flag is set" in capsys.readouterr().err) != bool(flag)


def test_a_run_shows_its_own_images_and_augmentation(trained, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    options = json.loads((trained / "config.json").read_text())
    options |= {"vertical_flip_probability": 1.0, "classes": [3, 8]}
    (run / "config.json").write_text(json.dumps(options))
    assert draw("--pictures=augmentation", f"--workdir={run}") == 0
    text = (run / "report.html").read_text()
    assert "--vertical_flip_probability=1.0" in text and "<h1>run<" in text
    assert draw("--pictures=augmentation", f"--workdir={run}", "--config=digits") == 2
    assert "take the options of the run" in capsys.readouterr().err


def test_transformations_are_drawn_without_any_flag(tmp_path, monkeypatch):
    module = visualize.transformations
    monkeypatch.setattr(
        module, "list_strengths", lambda: {"flip_probability": (0.5, 1.0)}
    )
    monkeypatch.setattr(module, "POLICIES", ())
    assert draw("--pictures=transformations", f"--output={tmp_path}") == 0
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"transformations.png", "sections.json"}


@pytest.mark.parametrize("more", ["", ",lecture"])
def test_all_is_what_is_of_the_run(more, trained, tmp_path, monkeypatch, capsys):
    drawn = []

    def note(name, subject, folder):
        drawn.append(name)
        path = folder / "one.png"
        path.write_bytes(PNG)
        section = visualize.Section
        return [section(name, name, (visualize.picture.Picture(path, "", ""),))]

    monkeypatch.setattr(visualize, "_draw", note)
    output = f"--output={tmp_path}"
    assert draw(f"--pictures=all{more}", f"--workdir={trained}", output) == 0
    left_out = (*visualize.ON_REQUEST, "fine_tuning", "suspects")
    of_run = [name for name in visualize.PICTURES if name not in left_out]
    assert drawn == of_run + ["lecture"] * bool(more)
    assert not set(of_run) & {"transformations", "lecture"}
    printed, total = capsys.readouterr().out, len(drawn)
    assert f"drawing curves (1 of {total}, {total - 1} more after it)" in printed
    assert f"drawing {drawn[-1]} ({total} of {total}, the last)" in printed


def test_a_damaged_run_is_noted_and_the_others_are_drawn(
    trained, tmp_path, fast, capsys
):
    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    shutil.rmtree(damaged / "checkpoints")
    (damaged / "result.json").write_text("{")
    (damaged / "metrics.jsonl").write_text("")
    output = tmp_path / "compared"
    flags = ("--pictures=curves,mistakes", f"--output={output}")
    assert draw(f"--workdir={trained},{damaged}", *flags) == 0
    printed = capsys.readouterr().out
    assert "curves: " in printed and "holds no line of metrics" in printed
    assert "mistakes: " in printed and "checkpoint" in printed
    text = (output / "report.html").read_text()
    assert "result.json is damaged" in text
    drawn = list((output / "pictures").glob("*.png"))
    assert text.count("<figure") == len(drawn) + 1 > 2, "the table of mistakes too"
    assert "2 runs compared" in text


def test_a_fault_of_the_program_is_noted_reported_and_raised_at_the_end(
    trained, tmp_path, fast, monkeypatch, capsys
):
    def fail(*given):
        raise TypeError("no such thing")

    monkeypatch.setattr(visualize.features, "draw_run", fail)
    monkeypatch.setattr(visualize.kernels, "draw_shift", fail)
    flags = ("--pictures=features,kernels,mistakes", f"--workdir={trained}")
    with pytest.raises(ExceptionGroup, match="not drawn") as caught:
        draw(*flags, f"--output={tmp_path}")
    assert [str(error) for error in caught.value.exceptions] == ["no such thing"] * 2
    note = "not drawn, for a fault of the program: TypeError: no such thing"
    printed, text = capsys.readouterr().out, (tmp_path / "report.html").read_text()
    for what in (f"features: {trained.name}", "kernels: shift"):
        assert f"{what}: {note}" in printed
    assert text.count(note) == 2 and "Kernels" in text
    assert (tmp_path / "pictures" / "kernels_first.png").is_file()
    assert (tmp_path / "pictures" / "doubtful_hits.png").is_file()


def test_a_full_disk_is_no_fault_of_a_picture(trained, tmp_path, monkeypatch, capsys):
    def fail(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(visualize.features, "draw_run", fail)
    flags = ("--pictures=features", f"--workdir={trained}", f"--output={tmp_path}")
    assert draw(*flags) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_without_any_whole_run_nothing_is_made(trained, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(trained / "config.json", empty)
    output = tmp_path / "output"
    flags = ("--pictures=curves,mistakes", f"--workdir={empty}", f"--output={output}")
    assert draw(*flags) == 2
    assert "Nothing could be drawn" in capsys.readouterr().err
    assert not output.exists()


def test_tensorboard_gets_the_pictures(trained, tmp_path, fast):
    flags = ("--pictures=mistakes", f"--workdir={trained}", f"--output={tmp_path}")
    assert draw(*flags, "--track=tensorboard") == 0
    events = read_events(tmp_path / "tensorboard")
    seen = {x.tag: x.image for event in events for x in event.summary.value}
    assert seen["mistakes/doubtful_hits"].colorspace == 3


def test_unknown_pictures_are_refused_with_a_suggestion(trained, capsys):
    assert draw("--pictures=mistake", f"--workdir={trained}") == 2
    assert "did you mean mistakes?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "room, above",
    [
        ("compute", "draw|lecture|page|subject|named_run"),
        ("draw", "lecture|page"),
        ("lecture", "page|subject|named_run"),
    ],
)
def test_a_room_imports_no_room_above_it(room, above):
    files = sorted((ROOT / "cnn" / "visualize" / room).glob("*.py"))
    pattern = re.compile(rf"from cnn\.visualize(\.| import )({above})\b")
    assert len(files) > 3
    assert not [file.name for file in files if pattern.search(file.read_text())]
