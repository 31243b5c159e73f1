"""Which executor runs a group, and how many trials at a time: chosen or measured."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from cnn.checkpoints import atomic, form, workdir
from cnn.errors import UserError
from cnn.runtime.devices import get_device_memory
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep.executors import STACKED, Executor, Loop, Stacked, find_obstacle
from cnn.sweep.trials import Trial
from cnn.training.setup import Setup

STEPS = 20
LONGEST = 60.0
MOST_AT_ONCE = 64
_STATE_COPIES = 4
_SHARE = 0.5


def choose_width(setup: Setup, count: int, most: int) -> int:
    """Choose how many of a group's `count` trials run at once.

    Args:
        most: --trials_at_once; 0: as many as memory allows.

    Returns:
        The width of about equally full batches.
    """
    if not most:
        state = jax.eval_shape(setup.phases[0].create, setup.numbers, {})
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        room = _SHARE * get_device_memory(setup.mesh) // (_STATE_COPIES * size)
        most = max(1, min(MOST_AT_ONCE, int(room)))
    batches = -(-count // most)
    return -(-count // batches)


def make_executor(name: str, setup: Setup, stop: Stop, width: int) -> Executor:
    """Make an executor by the name of --executor."""
    if name == "loop":
        return Loop(setup, stop, width)
    return Stacked(setup, stop, name, width)


def choose_executor(
    name: str,
    setup: Setup,
    trials: Sequence[Trial],
    width: int,
    path: Path,
    terminal: Terminal,
    stop: Stop,
) -> Executor:
    """Make the executor of a group; with `auto` the fastest of all that fit.

    Args:
        name: --executor.
        trials: of the group; the first `width` are timed.
        width: trials at a time.
        path: where the choice is written, so that a resumed sweep makes the same one.
    """
    if name != "auto":
        return make_executor(name, setup, stop, width)
    choices = _read_choices(path)
    program = _name_program(trials[0])
    if program not in choices:
        terminal.say(f"executor  timing {STEPS} steps of each, once it is compiled")
        started = time.perf_counter()
        fastest, speeds = _measure(setup, stop, trials[:width], width)
        terminal.say(f"executor  timed in {time.perf_counter() - started:.1f} s")
        choices[program] = {
            "executor": fastest,
            "trials_per_second_of_20_steps": speeds,
            "trial": trials[0].number,
        }
        atomic.write_json(path, choices)
    chosen = choices[program]["executor"]
    shown = ", ".join(
        f"{name} {speed}" if isinstance(speed, str) else f"{name} {speed:.2f}"
        for name, speed in choices[program]["trials_per_second_of_20_steps"].items()
    )
    terminal.say(
        f"executor  {chosen}, the fastest; trials of {STEPS} steps per second: {shown}"
    )
    return make_executor(chosen, setup, stop, width)


def _read_choices(path: Path) -> dict[str, Any]:
    """Read the choices that were made; none where damaged, to be timed again."""
    try:
        choices = workdir.read_json(path)
    except UserError:
        return {}
    speeds = {"trials_per_second_of_20_steps": {"*": str | float}}
    if form.find_problem(choices, {"*": {"executor": str, **speeds, "*": object}}):
        return {}
    known = ("loop", *STACKED)
    return {name: x for name, x in choices.items() if x["executor"] in known}


def _name_program(trial: Trial) -> str:
    """Name a group's program, whichever of its trials come first."""
    static, shapes = trial.config.make_program_key()
    text = json.dumps([static.select_run_options(), str(shapes)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _measure(
    setup: Setup, stop: Stop, trials: Sequence[Trial], width: int
) -> tuple[str, dict[str, float | str]]:
    """Time 20 steps of each executor.

    Returns:
        The fastest, and each one's speed, or why it cannot be used.
    """
    names = ["loop", "map", "vmap"]
    names += ["shard", "shard_vmap"] if jax.device_count() > 1 else []
    speeds, obstacles = {}, {}
    for name in names:
        if name in STACKED and find_obstacle(setup):
            obstacles[name] = find_obstacle(setup)
            continue
        executor = make_executor(name, setup, stop, width)
        try:
            speeds[name] = _time_steps(
                executor, trials[:1] if name == "loop" else trials
            )
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            obstacles[name] = "does not fit in memory"
    return max(speeds, key=speeds.get), speeds | obstacles


def _time_steps(executor: Executor, trials: Sequence[Trial]) -> float:
    """Return the trials per second of 20 steps, without compilation.

    Where 20 steps would take longer than a minute, they are predicted from one.
    """
    configs, active = [trial.config for trial in trials], [True] * len(trials)
    states = executor.create(configs)
    states, _ = executor.train_epoch(states, configs, 0, active, 1)
    for steps in (1, STEPS):
        started = time.perf_counter()
        states, results = executor.train_epoch(states, configs, 0, active, steps)
        taken = len(results[0].losses)  # an epoch may have fewer
        seconds = (time.perf_counter() - started) * STEPS / taken
        if seconds > LONGEST:
            break
    return len(trials) / seconds
