"""What docs/training.md asks a reader to type works."""

import pytest
from fixtures_runs import ROOT, run_main
from test_readme import list_commands

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
SHORT = ["--train_examples=100", "--epochs=1", "--model=logistic_regression"]


@pytest.mark.parametrize("words", list_commands(PAGE), ids=" ".join)
def test_command_trains(words, tmp_path):
    assert words[:2] == ["python", "main.py"]
    assert run_main(*words[2:], *SHORT, f"--workdir={tmp_path}") == 0
    assert (tmp_path / "result.json").exists()
