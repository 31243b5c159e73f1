"""What numbers depend on from outside: pinned, recorded, or refused in one line."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import jax
import pytest
from fixtures_runs import ROOT, TINY, make_flags, train_run

from cnn.errors import UserError
from cnn.runtime import devices, environment, provenance, settings
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal

CHANGED = {
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 5,
    "jax_accurate_erf_inv": True,
    "jax_default_matmul_precision": "bfloat16",
    "jax_numpy_dtype_promotion": "strict",
}


@pytest.mark.parametrize("name", settings.PINNED)
def test_pinned_is_what_jax_has_without_an_environment(name):
    # If jax changes a default, decide: existing runs go on with the pinned value.
    before = jax.config.values.get(name)
    settings._set(name, settings.PINNED[name])
    assert jax.config.values.get(name) == before


@pytest.mark.parametrize("name, value", CHANGED.items())
def test_the_environment_does_not_decide(name, value, monkeypatch, capsys):
    before = getattr(jax.config, name)
    monkeypatch.setenv(name.upper(), str(value))
    try:
        jax.config.update(name, value)  # as jax does when it is imported
        settings.pin()
        assert getattr(jax.config, name) == settings.PINNED[name]
    finally:
        jax.config.update(name, before)
    assert name.upper() not in os.environ
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith(f"note: {name.upper()}={value} is not")


@pytest.mark.parametrize(
    "variable, text",
    [
        ("JAX_ENABLE_X64", "0"),
        ("JAX_ENABLE_X64", "False"),
        ("JAX_THREEFRY_PARTITIONABLE", "on"),
        ("JAX_DEFAULT_PRNG_IMPL", "threefry2x32"),
        ("JAX_RANDOM_SEED_OFFSET", "0"),
    ],
)
def test_who_asks_for_the_same_is_told_nothing(variable, text, monkeypatch, capsys):
    monkeypatch.setenv(variable, text)
    settings.pin()
    assert capsys.readouterr().err == ""


def start(flags, **variables):
    """Run main.py as a process under other variables; returns it when it has ended."""
    cache = jax.config.jax_compilation_cache_dir or "off"
    command = [sys.executable, str(ROOT / "main.py"), f"--compilation_cache={cache}"]
    xla_flags = "--xla_force_host_platform_device_count=2"
    xla_flags += " --xla_backend_optimization_level=1"
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags, **variables}
    return subprocess.run(
        [*command, *flags],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_a_run_under_hostile_variables_is_the_same_run(trained, tmp_path):
    # A process of its own: jax reads them when it is imported.
    hostile = {name.upper(): str(value) for name, value in CHANGED.items()}
    hostile |= {"JAX_ENABLE_X64": "1", "JAX_DISABLE_JIT": "1", "JAX_NO_TRACING": "1"}
    hostile |= {"JAX_TRANSFER_GUARD": "disallow", "JAX_ENABLE_PGLE": "maybe"}
    done = start([f"--workdir={tmp_path}", *make_flags(TINY)], **hostile)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is not used") == len(hostile)
    found, expected = (
        json.loads((path / "result.json").read_text()) for path in (tmp_path, trained)
    )
    assert found["state_sha256"] == expected["state_sha256"]
    words = shlex.split(found["command"])
    assert words[0] == "python" and words[1].endswith("main.py")
    assert f"--workdir={tmp_path}" in words and "--epochs=3" in words


def test_a_variable_that_jax_does_not_take_is_one_line():
    done = start(["--help"], JAX_DEBUG_NANS="perhaps")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "JAX_DEBUG_NANS" in line and "unset" in line


@pytest.mark.parametrize(
    "error, reason",
    [
        (AssertionError(), "its plugin is not installed"),
        (
            RuntimeError("Unable to initialize 'x': gone. (set JAX_PLATFORMS=…)"),
            "gone)",
        ),
    ],
)
def test_a_platform_that_is_not_there_is_one_line(monkeypatch, error, reason):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError) as caught:
        devices.open_backend()
    message = str(caught.value)
    assert message.startswith("JAX_PLATFORMS=cuda: ") and reason in message
    assert "unset the variable" in message and "\n" not in message


NAME = "environment_variables"


def test_environment_is_recorded(trained, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    found = environment.describe(devices.make_mesh())
    assert found["device"] == "2 x cpu (cpu)" and found["processor"]
    assert found["versions"]["jax"] == jax.__version__
    assert found[NAME]["NVIDIA_TF32_OVERRIDE"] == "0"
    result = json.loads((trained / "result.json").read_text())
    newest = max(trained.glob("checkpoints/*"), key=lambda path: int(path.name))
    stored = json.loads((newest / "description.json").read_text())["environment"]
    assert {name: result[name] for name in stored} == stored
    assert stored | {NAME: found[NAME]} == found


def test_changed_environments_are_listed():
    here = environment.describe(devices.make_mesh())
    assert environment.list_changes(here, here) == []
    assert environment.list_changes({}, here) == [], "of an earlier version"
    versions = here["versions"] | {"jax": "0.11.2"}
    before = here | {"device": "1 x H200 (gpu)", "versions": versions}
    before |= {NAME: {"LIBTPU_INIT_ARGS": "--x"}}
    lines = environment.list_changes(before, here | {NAME: {}})
    assert lines == [
        "device 1 x H200 (gpu) (now 2 x cpu (cpu))",
        f"jax 0.11.2 (now {jax.__version__})",
        "LIBTPU_INIT_ARGS --x (now none)",
    ]


class Stopper(Terminal):
    """A terminal at which a run is stopped after its first step; keeps the lines."""

    def __init__(self, is_stopping):
        super().__init__()
        self.is_stopping, self.lines = is_stopping, []

    def update_bar(self, step, *args):
        """Send the signal."""
        if self.is_stopping:
            signal.raise_signal(signal.SIGINT)

    def say(self, text=""):
        """Keep a line."""
        self.lines.append(text)


@pytest.mark.parametrize("is_other", [False, True])
def test_resuming_in_another_environment_is_said(tmp_path, monkeypatch, is_other):
    options = {"model": "mlp", "mlp_widths": (4,)}
    with pytest.raises(Interrupted):
        train_run(tmp_path, Stopper(True), **options)
    if is_other:
        monkeypatch.setattr(environment, "_describe_processor", lambda: "other")
    terminal = Stopper(False)
    train_run(tmp_path, terminal, **options)
    lines = [line for line in terminal.lines if "resumed under" in line]
    assert len(lines) == is_other
    assert all("(now other)" in line and "may differ" in line for line in lines)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["main.py", "--epochs=2"], "python main.py --epochs=2"),
        (["main.py", "--storage=mysql://me:word@host/a", "--seed=1"], "--seed=1"),
        (["main.py", "--storage", "mysql://me:word@host/a", "--seed=1"], "--seed=1"),
        (["main.py", "-storage=mysql://me:word@host/a", "--seed=1"], "--seed=1"),
        (["a b/main.py", "--sweep=seed=0:2; x=log(1,2,3)"], "'a b/main.py' '--sweep="),
    ],
)
def test_command_can_be_pasted_and_holds_no_secret(arguments, expected):
    text = provenance.format_command(arguments)
    assert expected in text and "word" not in text and "storage" not in text
    kept = [x for x in arguments if "word" not in x and "storage" not in x]
    assert shlex.split(text) == ["python", *kept]


def run_git(directory, *arguments):
    names = ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME")
    names += ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL")
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments],
        env=os.environ | dict.fromkeys(names, "somebody"),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Return a repository with one commit that holds main.py."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    directory = tmp_path / "code"
    directory.mkdir()
    run_git(directory, "init", "-q")
    (directory / "main.py").write_text("first")
    run_git(directory, "add", "main.py")
    run_git(directory, "commit", "-qm", "First")
    yield directory
    provenance.read_commit.cache_clear()


def test_commit_and_changes_of_the_code(repository):
    commit = run_git(repository, "rev-parse", "HEAD")
    (repository / "notes.txt").write_text("under no version control")
    assert provenance.read_commit(repository) == (commit, False)
    (repository / "main.py").write_text("second")
    provenance.read_commit.cache_clear()
    assert provenance.read_commit(repository) == (commit, True)


def test_commit_is_of_no_other_repository(repository, tmp_path, monkeypatch):
    inside = repository / "copied"
    inside.mkdir()
    (inside / "main.py").write_text("code that merely lies there")
    assert provenance.read_commit(inside) == (None, None)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "main.py").write_text("in no repository")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    assert provenance.read_commit(alone) == (None, None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.read_commit(repository) == (None, None)
