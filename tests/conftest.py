"""Strict JAX for every test: two CPU devices, no rank promotion, no NaN."""

import compileall
import functools
import gc
import os
from pathlib import Path

import jax
import numpy as np
import pytest

import cnn
from cnn import config as config_module
from cnn import models
from cnn.data.images import from_array
from cnn.optim.optimizer import Rule
from cnn.runtime import xla
from cnn.training import steps
from cnn.training.state import create_state

pytest_plugins = ["fixtures_runs", "fixtures_pairs"]

# LLVM's lowest level: programs of tests run for milliseconds and compile for seconds.
FAST = "--xla_backend_optimization_level=1"

os.environ["XLA_FLAGS"] = xla.merge_flags(f"{os.environ.get('XLA_FLAGS', '')} {FAST}")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_nans", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

NUM_CLASSES = 4
# Each compiled program is mapped into memory and kept: 4,500 tests reached what Linux
# allows a process, 65,530 maps, and the next program that was loaded ended it.
_MAPS, _MOST_MAPS = Path("/proc/self/maps"), 20_000


def pytest_configure(config):
    """Keep compiled programs from one run of the suite to the next, and bytecode.

    Where PYTHONDONTWRITEBYTECODE is set, each process that a test starts would compile
    the whole package again.
    """
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(cnn.__file__).parent, quiet=2)
    if hasattr(config, "cache"):
        directory = config.cache.mkdir("jax")
        jax.config.update("jax_compilation_cache_dir", str(directory))


@pytest.fixture(scope="module", autouse=True)
def free_programs():
    """Forget the compiled programs after a file, when there are many."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def make_numbers():
    """Return a function from changed options to the traced numbers."""

    def make(**changes):
        return config_module.make_config(changes).make_numbers()

    return make


@pytest.fixture
def make_structure():
    """Return a function from changed options to a structure on 4 classes."""

    def make(structure=None, dtype=np.float32, **changes):
        small = {"model": "mlp", "mlp_widths": (5,), "widths": (4, 6)}
        static = config_module.make_config(small | changes).make_static()
        fields = dict(structure or {})
        parts = {n: fields.pop(n) for n in ("phase", "rates") if n in fields}
        return steps.Structure(
            model=models.create_model(static.model, NUM_CLASSES, dtype),
            num_classes=NUM_CLASSES,
            mean=(0.5,),
            std=(0.25,),
            steps_per_epoch=3,
            rule=Rule(
                static.optimizer,
                static.schedule,
                averaging=static.averaging,
                **parts,
            ),
            **fields,
        )

    return make


@functools.cache
def _make_create(model, shape, rule):
    # Equal structures are traced once a worker.
    return jax.jit(functools.partial(create_state, model, shape, rule))


@pytest.fixture
def start():
    """Return a function from a structure and its numbers to the first state."""

    def begin(structure, numbers, shape=(8, 8, 1)):
        return _make_create(structure.model, shape, structure.rule)(numbers)

    return begin


@pytest.fixture
def make_images():
    """Return a function from a size to that many random images of 4 classes."""

    def make(count, shape=(8, 8, 1)):
        random = np.random.default_rng(7)
        pixels = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        return from_array(pixels, random.integers(0, NUM_CLASSES, count))

    return make


@pytest.fixture
def make_batch(make_images):
    """Return a function from a size to a training batch."""

    def make(count, shape=(8, 8, 1)):
        images = make_images(count, shape)
        positions = np.arange(count, dtype=np.int32)
        labels = images.labels
        return {
            "images": images.read(positions),
            "labels": labels,
            "ids": positions,
        }

    return make
