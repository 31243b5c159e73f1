"""What docs/pictures.md asks a reader to type works."""

import shlex

import numpy as np
import pytest
from fixtures_runs import ROOT, run_main, train_run
from test_readme import list_blocks

from cnn.visualize import visualize

PAGE = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory):
    """Return a run that was started from the weights of another."""
    directory = tmp_path_factory.mktemp("tuned")
    train_run(directory, init_from=str(trained), epochs=1)
    return directory


@pytest.mark.parametrize("code", list_blocks(PAGE, "python"))
def test_python_blocks_are_three_lines_that_run(
    code, trained, tmp_path, monkeypatch, request
):
    lines = [x for x in code.splitlines() if x and not x.startswith(("from", "import"))]
    assert len(lines) <= 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(trained)
    if "runs/finetune_digits" in code:
        tuned = request.getfixturevalue("tuned")
        (tmp_path / "runs" / "finetune_digits").symlink_to(tuned)
    (tmp_path / "notes").mkdir()
    random = np.random.default_rng(0)
    names = {
        "np": np,
        "images": random.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8),
        "labels": np.arange(10),
        "logits": random.normal(size=(10, 10)).astype(np.float32),
    }
    exec(compile(code, "docs/pictures.md", "exec"), names)


@pytest.mark.parametrize("line", "".join(list_blocks(PAGE, "bash")).splitlines())
def test_commands_are_understood(line, monkeypatch, tmp_path):
    called = []
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(visualize, "visualize", lambda *given: called.append(given))
    monkeypatch.setattr("cnn.checkpoints.workdir.read_config", lambda directory: {})
    words = shlex.split(line, comments=True)
    assert words[:2] == ["python", "main.py"]
    assert run_main(*words[2:]) == 0 and len(called) == 1


def test_every_picture_has_its_place():
    for name in visualize.PICTURES:
        assert f"--pictures={name}" in PAGE or f"`{name}`" in PAGE, name
