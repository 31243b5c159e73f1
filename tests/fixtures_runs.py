"""Small training runs that several tests share, and how to make more of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

import main
from cnn import config as config_module
from cnn import train
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.training import epoch, setup
from cnn.training.epoch import Pace
from cnn.transfer import features

ROOT = Path(main.__file__).parent
TINY = {
    "model": "simple_cnn",
    "widths": (4,),
    "downsampling": "max_pool",
    "head": "global_average",
    "dropout_rate": 0.2,
    "ema_decay": 0.9,
    "validation_fraction": 0.1,
    "train_examples": 100,
    "batch_size": 20,
    "epochs": 3,
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "log_every_steps": 1,
}
# Checkpoints amid the epochs too, each as much work as some fifty of these steps.
AMID = {"checkpoint_every_epochs": 0.3}


def make_flags(options):
    """Return options as command-line flags."""
    fields = config_module.list_fields()
    for name in options:
        assert name in fields or name in ("config", "mode", "workdir"), name
    return [f"--{name}={_format(value)}" for name, value in options.items()]


def _format(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def train_run(directory, terminal=None, **changes):
    """Train a tiny run of the default preset in this process; returns its result."""
    preset = config_module.load_preset("digits")
    config = config_module.make_config(preset, TINY, changes)
    return train.train(config, Path(directory), terminal or Terminal())


def make_setup(*layers, like=None):
    """Make the setup of a run of the default preset; nothing is compiled or written."""
    config = config_module.make_config(config_module.load_preset("digits"), *layers)
    return train.make_setup(config, {}, Terminal(), Stop(), like)


def read_lines(directory):
    """Read metrics.jsonl without what measures time."""
    lines = (Path(directory) / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def run_main(*arguments):
    """Call main with a command line; returns its exit code."""
    flags.FLAGS.unparse_flags()
    cache = jax.config.jax_compilation_cache_dir or "off"
    arguments = [*map(str, arguments)]
    # These read no flag of devices.
    compiles = not {"--mode=list", "--mode=compare"} & {*arguments}
    shared = [f"--compilation_cache={cache}"] if compiles else []
    command = ["main.py", *shared, *arguments]
    with flagsaver.flagsaver():
        try:
            return main.main(main.parse_flags(command))
        except SystemExit as leaving:
            return leaving.code


def patch_modes(patched, call):
    """Put another function in the place of every mode that main calls."""
    for mode in main.MODES:
        name = {"list": "list_runs"}.get(mode, mode)  # which is a name of Python
        patched.setattr(getattr(main, name, train), name, call)


def start_main(*arguments, devices=2):
    """Start main.py as a process of its own, its output in pipes."""
    cache = jax.config.jax_compilation_cache_dir or "off"
    # The flags of conftest, so that its bits are those of a run in this process.
    count = f"--xla_force_host_platform_device_count={devices}"
    count += " --xla_backend_optimization_level=1"
    command = [sys.executable, str(ROOT / "main.py"), f"--compilation_cache={cache}"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": count},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a tiny run of digits that has ended: its directory; not to be changed."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    train_run(directory, **AMID)
    return directory


def forget_programs():
    """Forget what equal structures share, so that what is patched is traced."""
    for make in (
        epoch.make_train_chunk,
        epoch.make_eval_chunk,
        setup.make_create,
        features.make_feature_chunk,
    ):
        make.cache_clear()


@pytest.fixture
def fresh_programs():
    """Let nothing be shared with other tests, for those that patch what is traced."""
    forget_programs()
    yield
    forget_programs()


@pytest.fixture
def no_pauses(monkeypatch):
    """Let every call of a compiled chunk take one step."""
    monkeypatch.setattr(Pace, "SECONDS", 1e-9)
