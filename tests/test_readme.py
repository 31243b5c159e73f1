"""What the README and docs/running.md tell a newcomer to type works."""

import re
import shlex
import tomllib

import numpy as np
import pytest
from fixtures_runs import ROOT, patch_modes, run_main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import main
from cnn import config as config_module

README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNNING = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
WAYS = re.search("^## Three ways.*?(?=^## )", README, re.MULTILINE | re.DOTALL)[0]


def list_blocks(text, language):
    """List the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def list_commands(text):
    """List every command of the bash blocks as its words."""
    lines = "".join(list_blocks(text, "bash")).replace("\\\n", " ").splitlines()
    commands = []
    for line in lines:
        commands.append([])
        for word in shlex.split(line, comments=True):
            if word in ("&&", ";"):
                commands.append([])
            else:
                commands[-1].append(word)
    return [command for command in commands if command]


def select_ours(commands):
    """Select the flags of the commands that call main.py."""
    return [words[2:] for words in commands if words[:2] == ["python", "main.py"]]


COMMANDS = list_commands(README)
SHOWN = select_ours(COMMANDS + list_commands(RUNNING))


def check_command(flags, capsys):
    """Check mode, preset and every flag of a command without running it."""
    called = []
    with pytest.MonkeyPatch.context() as patched:
        patch_modes(patched, lambda *args: called.append(args))
        patched.setattr(main.workdir, "read_config", lambda directory: {})
        # How many devices there are was settled when the first test began.
        patched.setattr(main.xla, "configure", lambda options: None)
        code = run_main(*flags)
    told = capsys.readouterr()
    assert code == 0, (flags, told.err)
    assert called or any(x.startswith("--help") for x in flags), flags


@pytest.mark.parametrize("flags", SHOWN, ids=" ".join)
def test_command_is_understood(flags, capsys):
    check_command(flags, capsys)


@pytest.mark.parametrize("wrong", ["--epoch=3", "--mode=evalute", "--config=digit"])
def test_a_wrong_command_is_found(wrong, capsys):
    text = f"```bash\npip install x && python main.py {wrong}  # why\n```\n"
    (command,) = [c for c in list_commands(text) if c[0] == "python"]
    with pytest.raises(AssertionError):
        check_command(command[2:], capsys)


def test_readme_shows_what_a_newcomer_needs():
    assert [] in select_ours(COMMANDS), "the main job"
    flags = " ".join(word for command in SHOWN for word in command)
    for mode in main.MODES:
        assert mode == "train" or f"--mode={mode}" in flags
    assert ["python", "-m", "pytest"] in COMMANDS
    assert "-m pytest -m slow" in README
    assert re.search(r"jax\[cuda", README) and re.search(r"jax\[tpu", README)


def test_other_commands_are_known():
    for words in COMMANDS:
        if words[:2] == ["pip", "install"]:
            for before, name in zip(words[2:], words[3:], strict=False):
                assert before != "-r" or (ROOT / name).is_file(), name
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file() or words[1:3] == ["-m", "pytest"], words


def test_flags_in_the_text_exist():
    known = {*config_module.list_fields(), "config", "mode", "workdir", "help"}
    named = set(re.findall(r"`--(\w+)", README + RUNNING))
    assert named and named <= known, named - known


def test_files_in_the_text_exist():
    block = next(b for b in README.split("```") if "main.py " in b and "cnn/" in b)
    for name in re.findall(r"\bcnn/[\w/]+(?:\.py|/)", README + block):
        assert (ROOT / name).exists(), name
    linked = re.findall(r"\]\(([\w./]+)", README)
    assert linked and all((ROOT / name).exists() for name in linked), linked


def test_every_page_is_in_the_table_of_contents():
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages == set(re.findall(r"\]\((docs/\w+\.md)\) \|", README))


def test_the_three_ways_run_as_typed(tmp_path, monkeypatch, capsys):
    """Four trainings and a sweep, as a newcomer would start them: above 5 s."""
    monkeypatch.chdir(tmp_path)
    commands = select_ours(list_commands(WAYS))
    for flags in commands:
        assert run_main(*flags) == 0, flags
    said = capsys.readouterr().out
    assert "frozen " in said and "validation accuracy by setting" in said
    for name in ("mlp", "digits_0_4", "finetune_digits", "rates/sweep/best"):
        assert (tmp_path / "runs" / name / "result.json").exists(), name


def test_training_and_what_follows_it(tmp_path, capsys):
    directory = tmp_path / "run"
    assert run_main("--epochs=1", f"--workdir={directory}") == 0
    for flags in SHOWN:
        if "--mode=evaluate" not in flags and "--mode=describe" not in flags:
            continue
        flags = [word for word in flags if not word.startswith("--workdir")]
        is_described = "--mode=describe" in flags  # that is another run
        where = tmp_path / "described" if is_described else directory
        assert run_main(*flags, f"--workdir={where}") == 0, flags
    assert (tmp_path / "described" / "describe.json").exists()
    names = sorted(path.name for path in directory.glob("evaluation*.json"))
    assert len(names) == sum("--mode=evaluate" in flags for flags in SHOWN)


@pytest.mark.parametrize("code", list_blocks(README, "python"))
def test_python_block_runs(code, trained):
    lines = [line for line in code.splitlines() if line and not line.startswith("#")]
    assert len(lines) == 3
    names = {"images": np.zeros((5, 8, 8, 1), np.uint8)}
    exec(compile(code.replace("runs/digits", str(trained)), "README", "exec"), names)
    assert names["probabilities"].shape == (5, 10)


def test_there_is_a_python_block():
    assert list_blocks(README, "python")


def read_pins(name):
    """Return the exact versions of a requirements file by package."""
    pins = {}
    for line in (ROOT / name).read_text().splitlines():
        line = line.split("#")[0].strip()
        if line and not line.startswith("-r "):
            package, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()
            pins[canonicalize_name(package)] = version
    return pins


def test_pins_keep_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [Requirement(text) for text in project["dependencies"]]
    pins = read_pins("requirements.txt")
    assert {canonicalize_name(bound.name) for bound in bounds} == set(pins)
    for bound in bounds:
        assert pins[canonicalize_name(bound.name)] in bound.specifier, str(bound)
    assert {"tensorboard", "prepare", "sweep"} <= set(project["optional-dependencies"])
    assert {"pytest", "ruff"} <= set(read_pins("requirements-dev.txt"))
    version = (ROOT / ".python-version").read_text().strip()
    assert f">={version}" == project["requires-python"]
