"""The package: what a wheel holds, and that `cnn` is main.py from any directory."""

import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from fixtures_runs import ROOT
from packaging.requirements import Requirement

import cnn
from cnn import place

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


def run(code, *flags, **how):
    """Run Python with flags; returns what has ended."""
    command = [sys.executable, *code, *flags]
    return subprocess.run(command, capture_output=True, text=True, **how)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel, which takes half a second and no network; returns its path."""
    pytest.importorskip("hatchling")
    directory = tmp_path_factory.mktemp("wheel")
    code = (
        "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"
    )
    done = run(["-c", code], directory, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (path,) = directory.glob("*.whl")
    return path


def list_files(directory):
    found = (path for path in (ROOT / directory).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in found}
    return {name for name in names if "__pycache__" not in name}


def test_a_wheel_holds_the_program_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
    about = f"cnn_experiments-{cnn.__version__}.dist-info/"
    presets = {f"cnn/{name}" for name in list_files("configs")}
    expected = {"cnn/main.py", *list_files("cnn"), *presets}
    names = "METADATA WHEEL RECORD entry_points.txt licenses/LICENSE licenses/NOTICE"
    assert found == expected | {about + name for name in names.split()}
    kinds = {name.rpartition(".")[2] for name in expected}
    assert kinds == {"py", "typed", "js", "css", "jinja"}


def test_a_wheel_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        about = f"cnn_experiments-{cnn.__version__}.dist-info"
        text = archive.read(f"{about}/METADATA").decode()
        entries = archive.read(f"{about}/entry_points.txt").decode()
    head = text.partition("\n\n")[0]
    needed = re.findall(r"^Requires-Dist: ([^;\n]+)$", head, re.M)
    assert {Requirement(x).name for x in needed} == {
        Requirement(x).name for x in PROJECT["dependencies"]
    }
    assert f"Version: {cnn.__version__}\n" in head
    assert "License-Expression: Apache-2.0" in head
    assert entries == "[console_scripts]\ncnn = cnn.__main__:run\n"


# As the script `cnn` that an installer writes.
COMMAND = "import sys; from cnn.__main__ import run; sys.exit(run())"


def test_what_is_installed_runs_from_any_directory(wheel, tmp_path):
    """Presets, those that start from another too, and what a user is told to type."""
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    start = ["-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{COMMAND}"]
    flags = "--config=rsb_a1", "--dataset=digits", "--compilation_cache=off"
    done = run(start, *flags, "--mode=describe", cwd=here)
    assert done.returncode == 2, done
    assert "--batch_size=2048 is larger than the training set" in done.stderr
    done = run(start, "--epohcs=2", cwd=here)
    assert done.returncode == 2
    assert done.stderr == (
        "error: --epohcs is no flag; did you mean --epochs? (cnn --help lists all)\n"
    )
    assert not list(here.iterdir())


def test_the_checkout_runs_as_a_module(tmp_path):
    start = ["-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{COMMAND}"]
    done = run(start, "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    python, jax = sys.version.split()[0], __import__("jax").__version__
    assert done.stdout == f"cnn {cnn.__version__}, Python {python}, jax {jax}\n"


def test_a_checkout_is_told_from_a_package():
    assert not place.IS_INSTALLED and place.COMMAND == "python main.py"
    assert place.MAIN == ROOT / "main.py" and place.PRESETS == ROOT / "configs"


def test_the_version_is_that_of_every_page():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {cnn.__version__}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## ([\d.]+)", changes, re.M)[1] == cnn.__version__


def test_every_command_of_contributing_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|docs|cnn|benchmarks)/[\w/.]*)`", text)
    named += re.findall(r"(?:tests|docs)/[\w/]+\.(?:py|md)", text)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
