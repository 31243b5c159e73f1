"""docs/changing.md: its changes are made to a copy of the code, which then trains."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from fixtures_runs import TINY, make_flags

from cnn.config import list_fields

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "changing.md").read_text()


def list_changes(text):
    """Return (file, language, code) of each block that belongs to a file."""
    name, changes = "", []
    for part in re.findall(r"^`(cnn/[\w/.]+)`|^```(\w+)\n(.*?)^```", text, re.M | re.S):
        name = part[0] or name
        if part[1] in ("python", "diff"):
            changes.append((name, *part[1:]))
    return changes


def apply(root, name, language, code):
    """Make one change: a new file, or lines between lines that stand there once."""
    path = root / name
    if language == "python":
        assert not path.exists(), name
        path.write_text(code)
        return
    lines = code.splitlines()
    before = "\n".join(line[1:] for line in lines if line[:1] != "+")
    after = "\n".join(line[1:] for line in lines if line[:1] != "-")
    source = path.read_text()
    assert source.count(before) == 1, f"{name} does not hold once:\n{before}"
    path.write_text(source.replace(before, after))


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Return a copy of the code with every change of the page."""
    root = tmp_path_factory.mktemp("changed")
    for name in ("cnn", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    shutil.copy(ROOT / "main.py", root)
    for change in list_changes(TEXT):
        apply(root, *change)
    return root


def test_every_recipe_has_its_files():
    recipes = [x.split("\n")[0] for x in re.split(r"^## ", TEXT, flags=re.M)[1:]]
    assert len(recipes) == 9
    files = {name for name, *_ in list_changes(TEXT)}
    assert all((ROOT / name).exists() for name in files - {"cnn/models/tiny.py"})


def test_a_block_that_does_not_fit_is_seen(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(AssertionError, match="does not hold once"):
        apply(tmp_path, "a.py", "diff", " x = 2\n+y = 3\n")


def test_the_changed_code_trains_with_everything_new(changed, tmp_path):
    """One process, because the changed package has the name of ours."""
    new = {
        "model": "tiny",
        "darken_probability": 0.5,
        "loss": "squared",
        "optimizer": "sign",
        "schedule": "root",
        "temperature": 2.0,
        "gradient_noise": 0.01,
        "consistency": 0.5,
        "epochs": 2,
        "workdir": tmp_path,
    }
    cache = jax.config.jax_compilation_cache_dir or "off"
    fields, options = list_fields(), TINY | new
    of_simple_cnn = {n for n in TINY if "simple_cnn" in fields[n].metadata["only_for"]}
    flags = make_flags({n: options[n] for n in KNOWN - of_simple_cnn if n in options})
    flags += [f"--{n}={x}" for n, x in new.items() if n not in KNOWN]
    command = [sys.executable, "main.py", f"--compilation_cache={cache}", *flags]
    done = subprocess.run(command, cwd=changed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["steps"] == 10 and result["num_parameters"] == 3 * 3 * 8 + 8 + 90


KNOWN = {*TINY, "loss", "optimizer", "schedule", "workdir"}
