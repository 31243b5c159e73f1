"""What docs/tuning_small.md asks a reader to type works."""

from fixtures_runs import ROOT, run_main
from test_readme import check_command, list_commands

PAGE = (ROOT / "docs" / "tuning_small.md").read_text(encoding="utf-8")
SMALL = ["--widths=2", "--train_examples=100", "--epochs=1"]
FEW = {
    "sweep": [
        "--sweep=parametrization=mup; width_multiplier=1,2; learning_rate=0.1,0.01"
    ],
    "describe": ["--coordinate_widths=1,2"],
}


def test_the_page_does_what_it_shows(tmp_path, monkeypatch, capsys):
    """It takes 15 s: a sweep and a coordinate check compile two models each."""
    monkeypatch.chdir(tmp_path)
    modes = []
    for words in list_commands(PAGE):
        assert words[:2] == ["python", "main.py"]
        mode = dict(x[2:].split("=", 1) for x in words[2:]).get("mode", "train")
        modes.append(mode)
        if mode in FEW:
            workdir = f"--workdir={tmp_path / mode}"
            assert run_main(*words[2:], *SMALL, *FEW[mode], workdir) == 0
            told = capsys.readouterr().out
        else:
            check_command(words[2:], capsys)
    assert modes == ["sweep", "train", "describe"]
    assert (tmp_path / "sweep" / "sweep" / "plots" / "transfer.png").exists()
    assert (tmp_path / "describe" / "coordinate_check.png").exists()
    assert "mup: after 4 steps values grow with the width to the power" in told
