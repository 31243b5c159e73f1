"""From the command to the first step: what is compiled, and what beside what."""

import dataclasses
import re
import signal
import threading
import types

import jax
import numpy as np
import pytest
from fixtures_runs import TINY, make_flags, make_setup, start_main

from cnn.runtime import background, processes
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.training import memory, progress
from cnn.training.epoch import Pace

# If jax changes this line, no program is found.
COMPILED = re.compile(r" (\d+) \S+\] Finished XLA compilation of jit\((\w+)\)")


def take_one(setup, run, stop=None):
    """Take one step as a run does."""
    stop, profiler = stop or Stop(), Profiler(ProfileOptions(), 0)
    return next(progress.take_epoch(setup, run, stop, Pace(), profiler, 1))


def test_a_first_start_compiles_few_programs(tmp_path, monkeypatch):
    """A process whose programs nothing has compiled: about ten seconds."""
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    cache = f"--compilation_cache={tmp_path / 'cache'}"
    options = make_flags(TINY | {"epochs": 2})
    # On several devices Orbax cuts what each of them writes by programs of its own.
    process = start_main(f"--workdir={tmp_path / 'run'}", *options, cache, devices=1)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    threads = {name: thread for thread, name in COMPILED.findall(told)}
    # The first is the canary's; three splits have images of their own.
    wanted = ["run", "create", "eval_chunk", "is_finite", "train_chunk"]
    found = sorted(name for _, name in COMPILED.findall(told))
    assert found == sorted([*wanted, *["_gather"] * 3])
    assert threads["train_chunk"] != threads["create"] == threads["eval_chunk"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repeats_in_batch": 2, "ema_decay": 0.0},
        {"sampling": "balanced", "optimizer": "adam"},
        {"mesh": "data:1,model:2", "accumulate_steps": 2},
        {"log_noise_scale": True, "accumulate_steps": 2, "resident": "never"},
        {"track_examples": True, "resident": "never"},
        {"image_size": 12, "random_resized_crop_min_area": 0.5},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_is_compiled_ahead_is_what_is_called(options, monkeypatch):
    """Else every run would compile twice."""
    setup, called = make_setup(TINY, options), []
    monkeypatch.setattr(memory, "check_fits", lambda *given: called.append(given[1]))
    take_one(setup, progress.begin(setup))

    def describe(arguments):
        return [
            (jax.typeof(x), x.sharding.is_equivalent_to(y.sharding, x.ndim))
            for x, y in zip(
                jax.tree.leaves(arguments), jax.tree.leaves(called[0]), strict=True
            )
        ]

    ahead = progress._describe_arguments(setup, setup.phases[0])
    assert jax.tree.structure(ahead) == jax.tree.structure(called[0])
    assert describe(ahead) == describe(called[0])


def test_a_thread_that_cannot_compile_costs_time_alone(monkeypatch):
    setup = make_setup(TINY)
    run = progress.begin(setup)
    monkeypatch.setattr(progress, "_describe_arguments", lambda *given: 1 / 0)
    run.compiling = progress.compile_ahead(setup, 0)
    take_one(setup, run)
    assert run.step == 1 and run.compiling is None


def test_nothing_is_compiled_where_it_would_not_help(monkeypatch):
    setup = make_setup(TINY)
    assert progress.compile_ahead(setup, setup.total_steps) is None
    gpu = types.SimpleNamespace(
        devices=np.array([types.SimpleNamespace(platform="gpu")])
    )
    assert progress.compile_ahead(dataclasses.replace(setup, mesh=gpu), 0) is None
    monkeypatch.setattr(processes, "are_several", lambda: True)
    assert progress.compile_ahead(setup, 0) is None


def test_a_signal_does_not_wait_for_the_compiler():
    run, stop, never = progress.begin(make_setup(TINY)), Stop(), threading.Event()
    run.compiling = background.start("compiles", never.wait)
    stop.note(signal.SIGTERM, None)
    with pytest.raises(Interrupted):
        run.wait_for_program(stop)
    never.set()


def test_the_first_step_waits_for_the_compiler_however_long(monkeypatch):
    """It gives no sign of life for as long as a program takes."""
    setup, ended = make_setup(TINY), threading.Event()
    monkeypatch.setattr(background, "SILENT_SECONDS", 0.0)
    run = progress.begin(setup)
    run.compiling = background.start("compiles", ended.wait)
    threading.Timer(0.5, ended.set).start()
    run.wait_for_program(Stop())
    assert ended.is_set() and run.compiling is None
    run.compiling = background.start("compiles", lambda: None)
    take_one(setup, run)
    assert run.compiling is None
