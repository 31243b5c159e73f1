"""What a terminal shows: a line at once, words that are whole, short tables."""

import io

import pytest
from fixtures_runs import TINY, make_setup, run_main
from rich.console import Console
from rich.table import Table

import main
from cnn import text
from cnn.config import list_fields
from cnn.models import summary
from cnn.runtime import kept, opening, spellings
from cnn.runtime.terminal import Terminal
from cnn.training import compile_seconds


def make_terminal(width, is_terminal=True):
    terminal, output = Terminal(), io.StringIO()
    terminal.console = Console(
        file=output, width=width, force_terminal=is_terminal, soft_wrap=True,
        color_system=None,
    )  # fmt: skip
    return terminal, output


@pytest.mark.parametrize(
    "flags, mode",
    [
        ("", "train"),
        ("--mode=sweep --epochs=1", "sweep"),
        ("--mode sweep", "sweep"),
        ("-mode=list --mode=predict", "predict"),
        ("--help", ""),
        ("--mode=train --help=model", ""),
    ],
)
def test_the_mode_is_known_before_anything_is_imported(flags, mode):
    assert opening.find_mode(["main.py", *flags.split()]) == mode


def test_a_mode_that_takes_long_says_so_first(capsys):
    opening.say_starting(["main.py", "--mode=sweep"])
    assert capsys.readouterr().out == "starting  sweep: loading jax\n"
    for flags in (["--mode=list"], ["--mode=compare"], ["--mode=x"], ["--help"]):
        opening.say_starting(["main.py", *flags])
    assert capsys.readouterr().out == ""
    assert {*opening._LONG} == {*main.MODES} - {"list", "compare"}


@pytest.mark.parametrize("width", [40, 80])
def test_words_are_whole_in_a_terminal(width):
    terminal, output = make_terminal(width)
    said = "  each epoch leaves out 13 of 1293 training images, others each time: its"
    terminal.say(f"{said}\nshort")
    lines = output.getvalue().splitlines()
    assert all(len(line) <= width for line in lines) and lines[-1] == "short"
    assert " ".join(lines).split() == f"{said} short".split()
    assert lines[0].startswith("  each epoch")
    terminal, output = make_terminal(width, is_terminal=False)
    terminal.say(said)
    assert output.getvalue() == f"{said}\n"


@pytest.mark.parametrize("start", ["python main.py", "cnn"])
def test_a_command_is_broken_where_a_shell_takes_it(start):
    command = f"next: {start} --mode=predict --predict_images='my photos/*.jpg'"
    assert text.wrap(command, 40) == (
        f"next: {start} --mode=predict \\\n  --predict_images='my photos/*.jpg'"
    )
    assert text.wrap("a" * 50 + " b", 40) == "a" * 50 + "\n  b"


def test_a_table_that_is_too_wide_has_a_sentence_for_each_row():
    table = Table("layer", "type", "output", "parameters", title="a model")
    table.add_row("stage1_conv", "Conv", "8x8x32", "288")
    table.add_row("all", "", "", "288")
    terminal, output = make_terminal(20)
    terminal.show(table)
    assert output.getvalue() == (
        "a model\nstage1_conv: type\n  Conv, output\n  8x8x32, parameters\n  288\n"
        "all: parameters 288\n"
    )
    terminal, output = make_terminal(20, is_terminal=False)
    terminal.show(table)
    assert "stage1_conv" in output.getvalue() and "│" in output.getvalue()


def test_blocks_that_are_alike_are_one_row():
    def make(path, parameters, macs=5):
        return {
            "path": path, "type": "", "output_shape": [2, 2, 3],
            "parameters": parameters, "macs": macs,
        }  # fmt: skip

    names = {"stage1_block1": 7, "stage1_block2": 1200, "stage1_block3": 1200}
    layers = [make(path, count) for path, count in names.items()]
    layers += [make("stage2_block1", 1200), make("norm", 9, 0), make("norm", 9, 0)]
    about = {"layers": layers, "num_parameters": 3625, "macs": 20}
    table = summary.make_table(about)
    rows = list(zip(*(x.cells for x in table.columns), strict=True))
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("stage1_block1", "7", "5"),
        ("stage1_block2…3", "2 x 1,200", "2 x 5"),
        ("stage2_block1", "1,200", "5"),
        ("norm", "9", "0"),
        ("norm", "9", "0"),
        ("all", "3,625", "20"),
    ]


def test_spellings_name_flags_and_are_none():
    known = {"config", "mode", "workdir", *list_fields()}
    others = [x for texts in spellings.SPELLINGS.values() for x in texts.split()]
    assert {*spellings.SPELLINGS} <= known
    assert not {*others} & known and len({*others}) == len(others)


@pytest.mark.parametrize(
    "typed, flag",
    [
        ("lr", "learning_rate"), ("bs", "batch_size"), ("wd", "weight_decay"),
        ("momentum_", "momentum"), ("num_epochs", "epochs"), ("arch", "model"),
        ("opt", "optimizer"), ("data", "dataset"), ("output_dir", "workdir"),
        ("checkpoint_dir", "workdir"), ("gradient-accumulation-steps",
        "accumulate_steps"), ("Batch_Size", "batch_size"), ("early_stop",
        "early_stop_epochs"), ("learning_rat", "learning_rate"),
    ],
)  # fmt: skip
def test_what_people_type_is_suggested(typed, flag):
    found = spellings.suggest_flag(typed, ["mode", "workdir", *list_fields()])
    assert found.startswith(f"; did you mean --{flag}?")


def test_the_manual_breaks_no_word(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert run_main("--help=checkpoint") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 40 or " " not in line.strip() for line in lines)


def test_the_compiler_says_how_long_it_took_the_last_time(monkeypatch, tmp_path):
    monkeypatch.setattr(kept, "_find", lambda name, facts: tmp_path / str(hash(
        (name, str(facts)))))  # fmt: skip
    setup = make_setup(TINY)
    phase = setup.phases[0]
    assert "for the first time" in compile_seconds.announce(setup, phase)
    compile_seconds.note(setup, phase, 12.4)
    assert compile_seconds.announce(setup, phase) == (
        "compiling the training step, which took 12 s the last time"
    )
    other = make_setup(TINY, {"learning_rate": 0.7})
    assert "12 s" in compile_seconds.announce(other, other.phases[0])
    compile_seconds.note(setup, phase, 0.4)
    assert compile_seconds.announce(setup, phase) == ""
    wider = make_setup(TINY, {"widths": (3, 4, 5)})
    assert "for the first time" in compile_seconds.announce(wider, wider.phases[0])
    for path in tmp_path.iterdir():
        path.write_text("{")
    assert "for the first time" in compile_seconds.announce(setup, phase)
