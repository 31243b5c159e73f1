"""The command line: the manual, the modes, and one readable line for each mistake."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from fixtures_runs import ROOT, TINY, make_flags, run_main, train_run

import main
from cnn import config as config_module
from cnn import train
from cnn.checkpoints import workdir
from cnn.option import format_value
from cnn.training import setup as run_module


@pytest.fixture
def nothing_compiles(monkeypatch):
    """Fail where a run would begin to compute."""

    def refuse(*args):
        raise AssertionError("something was about to be compiled")

    monkeypatch.setattr(run_module, "make_create", refuse)


def check_refused(capsys, tmp_path, flags, message):
    """Check that a command ends with one message, before anything is done."""
    before = sorted(tmp_path.rglob("*"))
    directory = tmp_path / "run"
    code = run_main(f"--workdir={directory}", *flags)
    printed = capsys.readouterr()
    assert code not in (0, None), printed
    assert message in printed.err
    assert "Traceback" not in printed.err + printed.out
    assert sorted(tmp_path.rglob("*")) == before


MISTAKES = [
    (["--learning_rat=0.1"], "did you mean --learning_rate?"),
    (["--lr=0.1"], "--lr is no flag; did you mean --learning_rate?"),
    (["--wd", "0.1"], "--wd is no flag; did you mean --weight_decay?"),
    (["--arch=mlp"], "--arch is no flag; did you mean --model?"),
    (["--zzzzz"], "--zzzzz is no flag (python main.py --help lists all)"),
    (["--workdir=s3://bucket/run"], "s3:// is an address"),
    (["--workdir=S3:/bucket/run"], "S3:/ is an address"),
    (["--workdir=memory://run"], "memory:// is an address"),
    (["--dataset=folder:gs://bucket"], "--dataset=gs://bucket: gs:// is an address"),
    (["--workdir="], "--workdir= is empty"),
    (["--nonesterov=3"], "does not take an argument"),
    (["--init_from=gs://bucket/run"], "--init_from=gs://bucket/run: gs:// is an"),
    (["--optimizer=adamw", "--momentum=0.5"], "--momentum=0.5 would have no effect"),
    (["--split=train"], "--split=train would have no effect: it is only for --mode="),
    (["--mode=sweep", "--sweep=adam_beta1=0.5,0.9"], "--adam_beta1=0.5 would have no"),
    (["--from_trial=x:1", "--config=digits"], "--config=digits would have no effect"),
    (["extra"], "extra is no flag; flags are --name=value"),
    (["--"], "-- is no flag; flags are --name=value"),
    (["--epochs=1", "--", "--seed=1"], "-- is no flag; flags are --name=value"),
    (["--learning_rate=fast"], "--learning_rate=fast: expected a number"),
    (["--epochs=1.5"], "--epochs=1.5: expected a whole number"),
    (["--widths=8,x"], "--widths=8,x: expected a whole number, or several"),
    (["--batch_norm=maybe"], "batch_norm"),
    (["--epochs=0"], "--epochs=0"),
    (["--epochs=99999999999"], "--epochs=99999999999"),
    (["--dropout_rate=1"], "--dropout_rate=1"),
    (["--learning_rate=-1"], "--learning_rate=-1"),
    (["--learning_rate=nan"], "--learning_rate=nan"),
    (["--seed=-1"], "--seed=-1"),
    (["--batch_size=0"], "--batch_size=0"),
    (["--keep_checkpoints=0"], "--keep_checkpoints=0"),
    (["--optimizer=sdg"], "--optimizer=sdg is unknown; did you mean sgd?"),
    (["--mode=trian"], "--mode=trian is unknown; did you mean train?"),
    (["--config=digit"], "--config=digit is unknown; did you mean digits?"),
    (["--config=/nowhere/mine.py"], "--config=/nowhere/mine.py is unknown"),
    (["--model=simple_cn"], "--model=simple_cn is unknown; did you mean simple_cnn?"),
    (["--dataset=digts"], "--dataset=digts is unknown; did you mean digits?"),
    (["--dataset=npz:/nowhere.npz"], "/nowhere.npz: there is no such file"),
    (["--batch_size=5000"], "--batch_size=5000 is larger than the training set of"),
    (["--batch_size=7"], "--batch_size=7 does not divide over 2 devices"),
    (["--accumulate_steps=5"], "--accumulate_steps=5 does not divide --batch_size"),
    (["--widths=8,8,8,8,8"], "The image is too small for this model"),
    (["--validation_fraction=0", "--early_stop_epochs=3"], "--early_stop_epochs"),
    (["--num_classes=3"], "label"),
    (["--image_size=99999"], "--image_size=99999"),
    (["--mode=predict"], "holds no run (config.json is missing)"),
    (["--mode=evaluate"], "holds no run (config.json is missing)"),
]


@pytest.mark.parametrize("flags, message", MISTAKES, ids=lambda x: str(x)[:40])
def test_mistake_is_one_message(capsys, tmp_path, nothing_compiles, flags, message):
    check_refused(capsys, tmp_path, flags, message)


_LONG = "x" * 256
# By mode the flags of a name that no disk takes; the last is at fault.
LONG_NAMES = {
    "train": ["--workdir=NAME", "--workdir=new --init_from=NAME"],
    "evaluate": ["--workdir=NAME"],
    "predict": ["--predict_images=x.png --workdir=NAME"],
    "export": ["--workdir=NAME"],
    "convert": ["--model=resnet18 --workdir=new --source=NAME"],
    "visualize": ["--workdir=NAME", "--pictures=augmentation --output=NAME"],
    "inspect": ["--workdir=NAME", "--workdir=new --dataset=folder:NAME"],
    "describe": ["--workdir=NAME"],
    "find_rate": ["--workdir=NAME"],
    "replay": ["--step=1 --workdir=NAME"],
    "sweep": ["--sweep=seed=0:2 --workdir=NAME"],
}


@pytest.mark.parametrize(
    "mode, text", [(mode, text) for mode, found in LONG_NAMES.items() for text in found]
)
def test_a_name_that_is_too_long_is_one_message(
    capsys, tmp_path, nothing_compiles, mode, text
):
    before = sorted(tmp_path.rglob("*"))
    name = str(tmp_path / _LONG)
    text = text.replace("=new", f"={tmp_path}/new")
    flags = [x.replace("NAME", name) for x in text.split()]
    assert run_main(f"--mode={mode}", *flags) == 2
    told = capsys.readouterr().err.splitlines()
    told = [line for line in told if not line.startswith("note: ")]
    assert len(told) == 1 and told[0].startswith("error: "), told
    flag = flags[-1].partition("=")[0]
    assert f"{flag}:" in told[0] or f"{flag}=" in told[0], told
    assert _LONG in told[0] and "File name too long: choose a shorter name" in told[0]
    assert sorted(tmp_path.rglob("*")) == before


def save_npz(path, **changes):
    labels = np.arange(40) % 4
    pixels = np.zeros((40, 8, 8), np.uint8)
    parts = {"x_train": pixels, "y_train": labels, "x_test": pixels, "y_test": labels}
    np.savez(path, **parts | changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y_test": np.full(40, 9)}, "outside 0..3"),
        ({"y_train": np.array([object()] * 40)}, "never unpickled"),
    ],
)
def test_bad_data_is_one_message(capsys, tmp_path, nothing_compiles, changes, message):
    save_npz(tmp_path / "data.npz", **changes)
    check_refused(capsys, tmp_path, [f"--dataset=npz:{tmp_path}/data.npz"], message)


def test_empty_class_folder_is_one_message(capsys, tmp_path, nothing_compiles):
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    check_refused(capsys, tmp_path, [f"--dataset=folder:{tmp_path}/photos"], "cats")


def test_presets_of_the_user(capsys, tmp_path, nothing_compiles):
    mine = tmp_path / "mine.py"
    for text, message in (
        ("options = {'epoch': 3}", "There is no option epoch; did you mean epochs?"),
        ("options = {'epochs': '3'}", "--epochs=3: expected a whole number"),
        ("epochs = 3", "must set options = {...}"),
        ("1 / 0", "ZeroDivisionError"),
        ("options = {", "SyntaxError"),
    ):
        mine.write_text(text)
        check_refused(capsys, tmp_path, [f"--config={mine}"], message)


def test_a_preset_of_the_user_is_described(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("options = {'model': 'mlp', 'mlp_widths': [3]}")
    directory = tmp_path / "run"
    code = run_main("--mode=describe", f"--config={mine}", f"--workdir={directory}")
    assert code == 0
    described = json.loads((directory / "describe.json").read_text())
    assert described["num_parameters"] == 64 * 3 + 3 + 3 * 10 + 10


def test_workdir_of_another_run(capsys, trained, nothing_compiles):
    before = sorted(trained.rglob("*"))
    flags = make_flags(TINY | {"learning_rate": 0.5, "epochs": 4})
    assert run_main(f"--workdir={trained}", *flags) == 2
    told = capsys.readouterr().err
    assert "--learning_rate=0.05 (now 0.5)" in told and "--epochs=3 (now 4)" in told
    assert "another --workdir" in told and "batch_size" not in told
    assert sorted(trained.rglob("*")) == before


def test_workdir_in_use(capsys, tmp_path, nothing_compiles):
    with workdir.lock(tmp_path / "run"):
        flags = [f"is in use by process {os.getpid()}"]
        check_refused(capsys, tmp_path, [], flags[0])


def test_workdir_that_cannot_be_written(capsys, tmp_path, nothing_compiles):
    (tmp_path / "run").write_text("a file is in the way")
    for mode in ("train", "describe"):
        check_refused(capsys, tmp_path, [f"--mode={mode}"], f"{tmp_path / 'run'}")


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "config.json"])
def test_file_that_cannot_be_written(capsys, tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    code = run_main(f"--workdir={tmp_path / 'run'}", *make_flags(TINY | {"epochs": 1}))
    printed = capsys.readouterr().err
    assert code == 2 and name in printed and "Traceback" not in printed


def test_cache_that_cannot_be_written(capsys, tmp_path, nothing_compiles):
    (tmp_path / "cache").write_text("")
    flags = [f"--compilation_cache={tmp_path}/cache/deeper"]
    check_refused(capsys, tmp_path, flags, "--compilation_cache")


@pytest.mark.parametrize("flags", [["--learning_rat=0.1"], ["--model=mpl"]])
def test_mistake_in_a_process_of_its_own(tmp_path, flags):
    command = [sys.executable, ROOT / "main.py", f"--workdir={tmp_path}/run", *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode not in (0, None)
    assert "Traceback" not in ended.stderr and len(ended.stderr.split("\n")) < 8
    assert "mean" in ended.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_lists_every_flag(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert run_main("--help") == 0
    manual = capsys.readouterr().out
    for name, field in config_module.list_fields().items():
        start = manual.index(f"\n  --{name}={format_value(field.default)}\n")
        entry = re.split(r"\n  --", manual[start + 3 :])[0]
        entry = " ".join(entry.split())
        assert " ".join(field.metadata["help"].split()) in entry
        assert not field.metadata["within"] or field.metadata["within"] in entry
        for choice in field.metadata["choices"]:
            assert choice in entry
    for mode in main.MODES:
        assert f"\n  {mode} " in manual
    assert max(map(len, manual.split("\n"))) <= 100
    # What a command does is never broken into what would be its arguments.
    apart = "\n  python main.py\n      train the preset digits\n"
    assert (apart in manual) == (columns == "60")


def read_config(capsys, tmp_path, *flags):
    with pytest.MonkeyPatch.context() as patched:
        given = []
        patched.setattr(train, "train", lambda *args: given.append(args))
        patched.chdir(tmp_path)
        assert run_main(*flags) == 0, capsys.readouterr().err
    return given[0][0].to_flat(), given[0][1]


def test_flags_win_over_the_preset(capsys, tmp_path):
    preset = json.loads(json.dumps(config_module.load_preset("digits")))
    plain, _ = read_config(capsys, tmp_path)
    assert {name: plain[name] for name in preset} == preset
    flags = ["--nobatch_norm", "--nesterov=false", "--decay_norms", "--widths=3,4"]
    changed, _ = read_config(capsys, tmp_path, *flags, "--learning_rate=1e-3")
    assert changed | {"compilation_cache": ""} == plain | {
        "batch_norm": False,
        "nesterov": False,
        "decay_norms": True,
        "widths": [3, 4],
        "learning_rate": 1e-3,
        "compilation_cache": "",
    }


@pytest.mark.parametrize("text", ["~/runs", "~/runs/a:0"])
def test_home_is_expanded_in_every_path(monkeypatch, text):
    monkeypatch.setenv("HOME", "/home/of/mine")
    fields = config_module.list_fields().items()
    paths = [name for name, field in fields if field.metadata["is_path"]]
    assert {"init_from", "dataset", "output", "predict_images"} <= set(paths)
    for name in paths:
        flat = config_module.make_config({name: text}).to_flat()
        assert flat[name] == text.replace("~", "/home/of/mine")


def test_lists_of_texts_are_joined_and_the_last_of_others_counts(capsys, tmp_path):
    flags = ["--freeze=stem", "--freeze=stage1,stage2", "--seed=1", "--seed=2"]
    found, _ = read_config(capsys, tmp_path, *flags)
    assert found["freeze"] == ["stem", "stage1", "stage2"] and found["seed"] == 2
    told = capsys.readouterr().err
    assert "--seed is given 2 times; the last, 2, counts" in told
    assert "--freeze" not in told


def test_default_directory_is_named_after_the_command(capsys, tmp_path):
    def name(*flags):
        return str(read_config(capsys, tmp_path, *flags)[1])

    assert name() == name("--resident=never", "--mode=train") == "runs/digits"
    assert name("--epochs=3", "--nobatch_norm") == name("--nobatch_norm", "--epochs=3")
    assert name("--epochs=3", "--widths=3,4") == "runs/digits,widths=3,4,epochs=3"
    assert name("--learning_rate=0.10") == name("--learning_rate=.1")
    assert re.fullmatch(
        r"runs/digits,dataset=b\.npz,[0-9a-f]{6}", name("--dataset=npz:/a/b.npz")
    )
    strange = [name(f"--freeze=stage{x}1{x}") for x in "*?[]|()$ '\"\\:;&<>!#%\n"]
    assert len(set(strange)) == len(strange)
    assert all(re.fullmatch(r"[\w/.,=+-]+", one) for one in strange)
    assert name("--workdir=/x/y", "--epochs=3") == "/x/y"
    names = [name(f"--seed={seed}") for seed in range(3)]
    assert len(set(names)) == 3


def test_a_run_under_its_earlier_name_is_resumed_there(capsys, tmp_path):
    earlier = "runs/digits,dataset=npz_a_b.npz,38f5fe"
    flags = ["--dataset=npz:/a/b.npz"]
    _, now = read_config(capsys, tmp_path, *flags)
    (tmp_path / earlier).mkdir(parents=True)
    assert str(read_config(capsys, tmp_path, *flags)[1]) == earlier
    said = capsys.readouterr().out
    assert f"note: the run of this command lies in {earlier}" in said
    (tmp_path / now).mkdir()
    assert read_config(capsys, tmp_path, *flags)[1] == now
    assert "note" not in capsys.readouterr().out


def test_a_name_is_the_directory_and_stays_with_the_run(capsys, tmp_path):
    flat, directory = read_config(capsys, tmp_path, "--name=my base", "--epochs=3")
    assert flat["name"] == "my base"
    assert re.fullmatch(r"runs/my_base,[0-9a-f]{16}", str(directory))
    _, directory = read_config(capsys, tmp_path, "--name=base", "--workdir=x")
    assert str(directory) == "x"
    for name in (".", "..", " "):
        assert run_main(f"--name={name}") == 2
        assert "must begin with a letter or a digit" in capsys.readouterr().err


def test_whole_way_from_the_command_line(capsys, tmp_path):
    directory = tmp_path / "run"
    flags = make_flags(TINY | {"epochs": 1})
    assert run_main(f"--workdir={directory}", *flags) == 0
    printed = capsys.readouterr().out
    for word in ("device ", "dataset ", "model ", "epoch   1/1", "test accuracy"):
        assert word in printed
    result = json.loads((directory / "result.json").read_text())
    needed = {"test_accuracy", "test_loss", "test_correct", "test_count", "seed"}
    needed |= {"num_parameters", "steps", "seconds", "images_per_second", "device"}
    assert needed | {"versions", "state_sha256"} <= set(result)
    assert run_main("--mode=evaluate", f"--workdir={directory}") == 0
    found = json.loads((directory / "evaluation.json").read_text())
    assert found["correct"] == result["test_correct"]
    again = train_run(directory, epochs=1)
    assert again["state_sha256"] == result["state_sha256"]
    printed = capsys.readouterr().out
    assert f"next: python main.py --mode=visualize --workdir={directory}" in printed
    assert "--mode=predict" not in printed, "it has learnt from no files"


def test_all_problems_are_told_at_once(capsys, tmp_path, nothing_compiles):
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    flags = ["--lr=0.1", "--wd", "0.1", "--epochs=0", "--batch_size=x", "--nesterov=f"]
    flags += [f"--dataset=folder:{tmp_path}/photos", f"--init_from={tmp_path}/no.pth"]
    flags += ["--optimizer=adamw", "--config=photos", f"--workdir={tmp_path}/run"]
    assert run_main(*flags, "--momentum=0.5") == 2
    told = capsys.readouterr().err
    wanted = ["did you mean --learning_rate?", "did you mean --weight_decay?"]
    wanted += ["--epochs=0 is outside", "--batch_size=x: expected", "no.pth"]
    wanted += ["--momentum=0.5 would have no effect", "no image"]
    assert [x for x in wanted if x not in told] == []
    assert told.startswith("error: ") and "Traceback" not in told
    assert len(told.splitlines()) >= len(wanted) + 1, "a line each"
    # Without a mistake in the flags, files are looked at as well.
    assert run_main(*flags[5:6], *flags[6:8], flags[9], flags[10]) == 2
    told = capsys.readouterr().err
    assert "2 problems:" in told and "no.pth" in told and "no image" in told


def test_values_of_flags_stay_with_them():
    problems = main.Problems()
    line = "main --learning_rate -1 --nobatch_norm x --zz 3 --yy --seed=1 -".split()
    kept = "main --learning_rate -1 --nobatch_norm x --seed=1 -".split()
    assert main._drop_unknown(line, problems) == kept
    assert [text.split()[0] for text in problems.found] == ["--zz", "--yy"]
