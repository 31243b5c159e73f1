"""Names of any characters are shown as they are, by whatever shows them."""

import csv
import io
import json
import os
import re
import subprocess
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from fixtures_runs import make_flags, run_main
from PIL import Image

from cnn import config as config_module
from cnn import text
from cnn.checkpoints import naming
from cnn.config import Config, make_config
from cnn.data import identity, names
from cnn.errors import suggest
from cnn.runtime import streams
from cnn.runtime.terminal import Terminal
from cnn.sweep import live, outcome, page, plots, table
from cnn.sweep.trials import make_trial
from cnn.visualize.draw import lettering, picture
from cnn.visualize.subject import Subject

BYTES = b"caf\xe9".decode(errors="surrogateescape")
# What each name is shown as; all the others are shown as they are.
ESCAPED = {
    "two\nlines": r"two\nlines",
    "a\ttab\rreturn": r"a\ttab\rreturn",
    "\x1b[31mred\x1b[0m\x9b\x07\x00": r"\x1b[31mred\x1b[0m\x9b\x07\x00",
    "rtl\u202egnp.exe\u2066": r"rtl\u202egnp.exe\u2066",
    "\ufeffmark\u2028\u200b": r"\ufeffmark\u2028\u200b",
    BYTES: r"caf\xe9",
    "\ud800": r"\ud800",
}
PLAIN = [
    "猫",
    "كلب",
    "שלום",
    "🐟 fish",
    "👩🏽\u200d🚀",
    "می\u200cخواهم",
    "e\u0301",
    "no\u00a0break\u3000wide",
    "[red]x[/b]",
    "[/]",
    ":smile:",
    "$1 bill$",
    "a_{b$",
    r"\frac{a}\n",
    r"$\x{$",
    "<b>x</b></script><script>alert(1)</script>&amp;",
    "100% {0} %s",
    '"""\'',
    "_private",
    "--help",
    " ",
]
FOLDERS = ["two\nlines", "a\ttab\rreturn", BYTES, "猫", "كلب", "[red]x[/b]", "_private"]
FOLDERS += [
    r"$\x{$",
    "a_{b$",
    "<b>x</b></script><script>alert(1)</script>&amp;",
    "m" * 99,
]
SETTING = "n mean low high difference difference_low difference_high test_mean".split()
NAMES = [*ESCAPED, *PLAIN, "l" * 200, "é" * 100]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_shown_on_one_line(name):
    shown = text.show_line(name)
    assert shown == ESCAPED.get(name, name)
    assert text.show_line(shown) == shown and shown.encode()
    assert text.show(f"{name}\n{name}") == "\n".join(2 * [text.show(name)])


def test_the_middle_of_a_long_line_is_left_out():
    line = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))
    start, end = text.cut(line, 32).split("…")
    assert len(start) + len(end) == 31 and line.startswith(start) and line.endswith(end)
    assert text.cut(line[:32], 32) == line[:32]
    assert [len(text.cut(line, most)) for most in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_shell_reads_a_quoted_name(name):
    if {"\0", "\ud800"} & set(name):
        pytest.skip("no argument can hold it")
    quoted = text.quote(name)
    assert "\n" not in quoted and text.show_line(quoted) == quoted
    command = ["bash", "-c", f"printf %s {quoted}"]
    said = subprocess.run(command, capture_output=True, check=True).stdout
    assert said == os.fsencode(name)


def test_names_of_files_are_plain_short_and_different():
    made = [text.name_file(name, "short") for name in NAMES + ["A" * 300, "A" * 301]]
    assert len(set(made)) == len(made)
    for name in made:
        assert re.fullmatch(r"[\w.,=+-]{1,220}", name, re.ASCII)
    assert text.name_file("features_stage1.conv1", "x") == "features_stage1.conv1"


def test_a_table_gives_names_back(tmp_path):
    names = [name for name in NAMES if name != "\ud800"]
    rows = [{"name": name, "n": 1} for name in names]
    table.write_rows(tmp_path / "table.csv", ["name", "n"], rows)
    content = (tmp_path / "table.csv").read_bytes().decode(errors="surrogateescape")
    found = list(csv.reader(io.StringIO(content, newline="")))
    assert found == [["name", "n"], *([name, "1"] for name in names)]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_terminal_obeys_no_name(tmp_path, encoding, is_terminal):
    path, row = tmp_path / "said", dict.fromkeys(SETTING) | {"mean": 0.5, "n": 1}
    terminal, raw = Terminal(), io.FileIO(path, "w")
    terminal.console.file = streams._make(io.TextIOWrapper(raw, encoding))
    terminal.console._force_terminal = is_terminal
    terminal.console.width = 400
    for name in NAMES:
        terminal.say(f"dataset {name}!")
        rows = [row | {"options": {"name": name}}]
        terminal.show(live.make_settings_table(rows, "accuracy"))
    terminal.console.file.flush()
    said = path.read_bytes().decode(encoding)
    said = re.sub(r"\x1b\[[0-9;]*m", "", said) if is_terminal else said
    for name in NAMES:
        shown = text.show(name).encode(encoding, "replace").decode(encoding)
        assert f"dataset {shown}!\n" in said
        shown = text.show_line(name).encode(encoding, "replace").decode(encoding)
        assert f"name={shown} " in said
    assert not set(said) & set(map(chr, [*range(10), *range(11, 32), 0x9B, 0x202E]))


@pytest.mark.parametrize("name", ESCAPED)
def test_data_name_their_files_and_classes_on_one_line(name):
    assert names.show([name, "b"]) == f"{ESCAPED[name]}, b"
    assert identity.show([name, "b"]) == f"{ESCAPED[name]}, b"


def test_what_was_written_stands_on_one_line(capsys):
    Terminal().say_written(Path("a/two\nlines"), Path("b"))
    assert capsys.readouterr().out == "written to a/two\\nlines and b\n"


def test_an_error_obeys_no_name(capsys):
    assert run_main("--mode=evaluate", "--workdir=\x1b[31m[red]\x07") == 2
    assert (
        r"--workdir=\x1b[31m[red]\x07 matches no directory" in capsys.readouterr().err
    )
    assert suggest("zzz", ["a\nb", "\x1b"]) == r"; known: \x1b, a\nb"


def collect_texts(figure):
    """Return what a figure shows when it is drawn."""
    from matplotlib.text import Text

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    return {found.get_text() for found in figure.findobj(Text)}


def test_a_picture_shows_names_and_no_tex():
    labels = lettering.make_labels(NAMES)
    assert len(set(labels)) == len(NAMES)
    with picture.use_style():
        figure = picture.make_figure(12, 12)
        ax, log = figure.subplots(1, 2)
        ax.set_yticks(range(len(labels)), labels)
        log.plot(range(1, 4), [0.03, 0.5, 7], label=labels[NAMES.index("_private")])
        log.set_yscale("log")
        figure.suptitle("\n".join(map(text.show_line, NAMES)))
        handles = log.get_legend_handles_labels()[0]
        lettering.prepare(figure)
        texts = collect_texts(figure)
    assert set(labels) <= texts and len(handles) == 1
    assert {"0.1", "1"} <= texts and not any(r"\math" in found for found in texts)
    with picture.use_style():
        figure = picture.make_figure(3, 3)
        ax = figure.subplots()
        ax.plot([0.3, 0.9])  # between powers of ten
        ax.set_yscale("log")
        lettering.prepare(figure)
        assert {"0.3", "0.4", "0.6"} <= collect_texts(figure)
    for label, name in zip(labels, NAMES, strict=True):
        assert len(label) <= 34 and "\n" not in label
        if name.isascii() and name.isprintable() and len(name) < 20:
            assert label.strip("\u200e") == name


def test_a_character_is_drawn_in_a_font_that_has_it():
    """U+2322 is in a font that comes with matplotlib, and not in its first one."""
    found = lettering.replace_undrawable("\u2322 \U000f0000")
    assert found == "\u2322 \\U000f0000"
    with picture.use_style():
        figure = picture.make_figure(2, 2)
        figure.suptitle("\u2322\u732b\U0001f468\u200d\U0001f469")
        figure.supxlabel("plain")
        lettering.prepare(figure)
        collect_texts(figure)
        assert len(figure._suptitle.get_fontfamily()) > 1
        assert len(figure._supxlabel.get_fontfamily()) == 1


def write_data(root, names):
    """Write a folder with an image in each class of each part."""
    draws = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in names:
            folder = os.path.join(os.fsencode(root / part), os.fsencode(name))
            os.makedirs(folder)
            pixels = draws.integers(0, 255, (4, 4, 3), np.uint8)
            with open(
                os.path.join(folder, os.fsencode(name)[:200] + b".png"), "wb"
            ) as f:
                Image.fromarray(pixels).save(f, "PNG")


def test_a_run_of_such_classes(tmp_path, capfd, caplog):
    """Names are exact in JSON and CSV, and act nowhere; nothing warns."""
    kept = [name.replace("/", "∕") for name in FOLDERS]
    data, run = tmp_path / "da[ta] $x$", tmp_path / f"$run$\n[b]\x1b[31m 猫{BYTES}"
    write_data(data, kept)
    given = {"model": "logistic_regression", "epochs": 1, "batch_size": 8}
    given |= {"validation_fraction": 0.0, "dataset": f"folder:{data}"}
    assert run_main(*make_flags(given), f"--workdir={run}") == 0
    assert run_main("--mode=evaluate", "--per_image", f"--workdir={run}") == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["class_names"] == sorted(kept)
    assert json.loads((run / "dataset.json").read_text())["class_names"] == sorted(kept)
    content = (run / "evaluation.csv").read_bytes().decode(errors="surrogateescape")
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [row["label"] for row in rows] == sorted(kept)
    pictures = "--pictures=mistakes,kernels"
    assert run_main("--mode=visualize", pictures, f"--workdir={run}") == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert r"<h1>$run$\n[b]\x1b[31m 猫caf\xe9</h1>" in page
    content = (run / "mistakes.csv").read_bytes().decode(errors="surrogateescape")
    mistakes = list(csv.DictReader(io.StringIO(content, newline="")))
    assert mistakes and all(os.path.isfile(row["path"]) for row in mistakes)
    said = "".join(capfd.readouterr())
    assert "arning" not in said + caplog.text and "\x1b" not in said


def test_a_sweep_over_such_values(tmp_path):
    names, curve = [*FOLDERS, "\x1b[1m"], {"epoch": 1, "validation_loss": 1.0}
    rows = [
        {"trial": i, "status": "finished", "validation_loss": 1.0, "test_loss": 1.0}
        | {"validation_accuracy": 0.5, "test_accuracy": 0.5, "stopped_early": False}
        | {"options": {"dataset": f"folder:{name}", "learning_rate": rate}}
        | {"curve": [curve | {"validation_accuracy": 0.5}], "reason": name}
        for i, (name, rate) in enumerate((x, y) for x in names for y in (0.001, 0.1))
    ]
    ranking = table.rank_settings(rows, "accuracy")
    drawn = plots.draw_plots(rows, "accuracy", tmp_path / "plots")
    assert {one.path.stem for one in drawn} >= {"by_learning_rate", "parallel"}
    path = page.write_page(tmp_path, Config(), rows, ranking, drawn, names)
    shown = path.read_text(encoding="utf-8")
    assert "<b>x" not in shown and "&lt;b&gt;x&lt;/b&gt;&lt;/script&gt;" in shown
    assert shown.count("<script") == 4 and "\x1b" not in shown, "two charts, and theirs"


@pytest.mark.parametrize(
    "name", [name for name in NAMES if text.is_sound(name)], ids=ascii
)
def test_a_preset_of_such_a_trial_can_be_read(tmp_path, name):
    options = {"dataset": f"folder:{name}"}
    trial = make_trial(3, options, make_config({}))
    row = {"options": options, "validation_accuracy": 0.5, "test_accuracy": 0.5}
    path = tmp_path / "best.py"
    path.write_text(outcome.format_preset(trial, row), encoding="utf-8")
    assert config_module.load_preset(str(path))["dataset"] == f"folder:{name}"


def test_runs_are_told_apart(tmp_path):
    names = ["_a", "[b]", "{b}", BYTES, "x" * 200 + "1", "x" * 200 + "2"]
    directories = [tmp_path / name for name in names]
    found = naming.label_runs(directories)
    assert len(set(found)) == len(names) and "".join(found).isprintable()


def test_pictures_of_classes_are_told_apart(tmp_path):
    subject = Subject(Config(), [tmp_path])
    run = types.SimpleNamespace(name="run")
    paths = [subject.name_file(tmp_path, run, "saliency", name) for name in NAMES]
    assert len(set(paths)) == len(NAMES)
    for path in paths:
        assert path.parent == tmp_path
        assert re.fullmatch(r"saliency[\w.,=+-]{,220}\.png", path.name, re.ASCII)
