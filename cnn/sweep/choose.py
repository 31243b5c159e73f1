"""Which executor runs a group, and how many trials at a time: told, or measured."""

import time
from collections.abc import Sequence
from pathlib import Path

import jax

from cnn import workdir
from cnn.data.chunks import get_device_memory
from cnn.progress import Terminal
from cnn.run import Run
from cnn.state import create_state
from cnn.sweep.loop import Loop
from cnn.sweep.stacked import STACKED, Stacked, find_obstacle
from cnn.sweep.trials import Trial

Executor = Loop | Stacked
STEPS = 20
LONGEST = 60.0
MOST_AT_ONCE = 64
_STATE_COPIES = 4
_SHARE = 0.5


def choose_width(run: Run, count: int, most: int) -> int:
    """Choose how many trials of a group run at once.

    Args:
        run: of the group.
        count: trials of the group.
        most: --trials_at_once; 0 leaves it to memory.

    Returns:
        The width of about equally full batches.
    """
    if not most:
        state = jax.eval_shape(
            lambda numbers: create_state(
                run.task.model, run.image_shape, run.task.optimizer, numbers
            ),
            run.hyperparameters,
        )
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        room = _SHARE * get_device_memory(run.mesh) // (_STATE_COPIES * size)
        most = max(1, min(MOST_AT_ONCE, int(room)))
    batches = -(-count // most)
    return -(-count // batches)


def make_executor(name: str, run: Run, width: int) -> Executor:
    """Make an executor by the name of --executor."""
    return Loop(run, width) if name == "loop" else Stacked(run, name, width)


def choose_executor(
    name: str,
    run: Run,
    trials: Sequence[Trial],
    width: int,
    path: Path,
    terminal: Terminal,
) -> Executor:
    """Make the executor of a group; with `auto` the fastest of all that fit.

    Args:
        name: --executor.
        run: of the group.
        trials: of the group, with which executors are timed.
        width: trials at a time.
        path: where the choice is noted, so that a sweep that goes on makes the same.
        terminal: where to say what was chosen and why.

    Raises:
        UserError: the executor needs the images on the device, and they are not.
    """
    if name != "auto":
        return make_executor(name, run, width)
    noted = workdir.read_json(path) if path.exists() else {}
    number = str(trials[0].number)
    if number not in noted:
        chosen, reasons = _measure(run, trials[:width], width)
        noted[number] = {"executor": chosen, "trials_per_second_of_20_steps": reasons}
        workdir.write_json(path, noted)
    chosen = noted[number]["executor"]
    told = noted[number]["trials_per_second_of_20_steps"]
    shown = ", ".join(
        f"{name} {value}" if isinstance(value, str) else f"{name} {value:.2f}"
        for name, value in told.items()
    )
    terminal.say(
        f"executor  {chosen}: it runs most trials; trials of {STEPS} steps per second: "
        f"{shown}"
    )
    return make_executor(chosen, run, width)


def _measure(
    run: Run, trials: Sequence[Trial], width: int
) -> tuple[str, dict[str, float | str]]:
    """Time 20 steps of each executor that fits; returns the fastest and all speeds."""
    names = ["loop", "map", "vmap"]
    names += ["shard", "shard_vmap"] if jax.device_count() > 1 else []
    told: dict[str, float | str] = {}
    speeds = {}
    for name in names:
        if name in STACKED and find_obstacle(run):
            told[name] = find_obstacle(run)
            continue
        executor = make_executor(name, run, width)
        chosen = trials[:1] if name == "loop" else trials
        try:
            told[name] = speeds[name] = _time_steps(executor, chosen)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            told[name] = "does not fit in memory"
    return max(speeds, key=speeds.get), told


def _time_steps(executor: Executor, trials: Sequence[Trial]) -> float:
    """Return the trials per second of 20 steps, compiled before.

    When one step says that twenty would take longer than a minute, that one counts.
    """
    configs, active = [trial.config for trial in trials], [True] * len(trials)
    states = executor.create(configs)
    states, _ = executor.train_epoch(states, configs, 0, active, 1)
    for steps in (1, STEPS):
        started = time.perf_counter()
        states, _ = executor.train_epoch(states, configs, 0, active, steps)
        seconds = (time.perf_counter() - started) * STEPS / steps
        if seconds > LONGEST:
            break
    return len(trials) / seconds
