"""What docs/training.md asks a reader to type works."""

import pytest
from fixtures_runs import ROOT, run_main
from test_readme import check_command, list_commands

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = [x for x in list_commands(PAGE) if x[:2] == ["python", "main.py"]]
SHORT = ["--train_examples=100", "--epochs=1", "--widths=4,4"]
# What needs another run, file or model, or more than an epoch.
NEEDS = ("--mode", "--teacher", "--workdir", "--dataset", "--model", "--schedule")
NEEDS += ("--image_size_schedule", "--init_from")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_is_understood(words, capsys):
    check_command(words[2:], capsys)


@pytest.mark.parametrize(
    "words",
    [x for x in COMMANDS if not any(word.startswith(NEEDS) for word in x)],
    ids=" ".join,
)
def test_command_trains(words, tmp_path):
    assert run_main(*words[2:], *SHORT, f"--workdir={tmp_path}") == 0
    assert (tmp_path / "result.json").exists()
