"""Mode replay: a step of a run is taken again, and looked into.

From the nearest checkpoint before it, or from the run's start, the run's own compiled
steps lead to the step: the example ids, the images as varied and the loss are those of
the run, to the bit on the same devices and versions, and are compared with what
`metrics.jsonl` says of them. What a line does not have (losses of examples, gradients
by layer) is computed beside it, by `cnn.training.diagnosis`.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn import train
from cnn.checkpoints import manifest, workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.replay import findings, written
from cnn.replay.findings import Line
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.runtime.terminal import Terminal
from cnn.training import diagnosis, memory, report, same_data, tasks
from cnn.training import progress as training_progress
from cnn.training.epoch import Pace
from cnn.training.progress import Progress
from cnn.training.setup import Setup
from cnn.weights import preprocessing

# What `diagnose` says of a batch, that is not one array of N examples.
_OF_LAYERS = ("activations", "gradients")


def replay(config: Config, directory: Path, terminal: Terminal) -> dict[str, Any]:
    """Take a step of a run again; write its batch, and what each layer made of it.

    Args:
        config: the run's options, with `--step` and `--output`.
        directory: of the run, which is locked meanwhile and stays as it is.

    Returns:
        What `replay.json` holds.

    Raises:
        UserError: the run has no such step, another process is at it, its data are
            others now, or the device has too little memory.
        Interrupted: a signal arrived.
    """
    step, stop = config.replay.step, Stop()
    if not step:
        raise UserError("--mode=replay needs --step=N, the step that is taken again")
    with workdir.lock(directory), catch_signals(stop):
        setup, progress, stored = _start(config, directory, step, terminal, stop)
        first = progress.step
        terminal.say(
            f"step {step} from {f'checkpoint {first}' if first else 'the start'} on"
        )
        lines = _advance(setup, progress, step - 1, stop)
        batch, layers, last = _take_step(setup, progress, stop)
        lines |= last
    logged = findings.compare(lines, findings.read_steps(directory), stored, setup)
    found = {
        "step": step,
        "epoch": (step - 1) // setup.structure.steps_per_epoch,
        "from_step": first,
        **lines[step],
        "logged": logged,
        "not_finite": findings.find_bad(lines[step], batch, layers),
        "layers": layers,
        "examples": findings.list_examples(setup, batch),
    }
    output = Path(config.visualize.output or directory / "replay" / f"step_{step}")
    written.write(setup, output, found, batch, terminal)
    return found


def _start(
    config: Config, directory: Path, step: int, terminal: Terminal, stop: Stop
) -> tuple[Setup, Progress, Mapping[str, Any]]:
    """Stand at the nearest checkpoint before a step, or at the start of the run.

    Returns:
        The setup, the progress and what the checkpoint says of itself; empty without.
    """
    config = preprocessing.resolve(config, directory, terminal)
    # The data must be those that the step saw.
    config = tasks.resume(config, directory).change({"allow_changed_data": False})
    path, damaged = manifest.find_before(directory / "checkpoints", step - 1)
    for line in damaged:
        terminal.say(line)
    stored = {}
    if path is not None:
        stored = manifest.read_description(path) | {"step": int(path.name)}
    for key, what in train.UNTRAINED.items():
        if key in stored:
            raise UserError(f"{directory} holds {what}, which no step has trained")
    setup = train.make_setup(config, stored, terminal, stop, directory=directory)
    _check_reached(setup, directory, step)
    if path is not None:
        return setup, training_progress.restore(setup, path, stored), stored
    first = (same_data.read_records(directory) or [setup.seen.record])[-1]
    if first["fingerprint"] != setup.seen.record["fingerprint"]:
        raise UserError(
            f"{directory} began on other data (fingerprint {first['fingerprint'][:12]})"
            f" than are now in --dataset={setup.seen.record['dataset']}; put them back "
            "to replay its steps"
        )
    return setup, training_progress.begin(setup), {}


def _check_reached(setup: Setup, directory: Path, step: int) -> None:
    """Refuse a step that the run does not have."""
    result, total = report.read_ended(directory), setup.total_steps
    total = result["steps"] if result else total
    if step > total:
        raise UserError(
            f"--step={step} is beyond the run in {directory}, which has {total} steps; "
            f"give one from 1 to {total}"
        )


def _advance(
    setup: Setup, progress: Progress, until: int, stop: Stop
) -> dict[int, Line]:
    """Take the run's own steps up to one; return their lines, as training logs them."""
    lines: dict[int, Line] = {}
    while progress.step < until:
        _end_epoch(setup, progress, stop)
        profiler = Profiler(ProfileOptions(), 0)
        taken = training_progress.take_epoch(
            setup, progress, stop, Pace(), profiler, until
        )
        with contextlib.closing(taken):
            for ids, step_metrics in taken:
                for i in range(len(ids)):
                    line = report.make_step_line(step_metrics, ids, i)
                    lines[progress.step - len(ids) + 1 + i] = line
                if progress.step == until:
                    break
    return lines


def _end_epoch(setup: Setup, progress: Progress, stop: Stop) -> None:
    """Do at the end of an epoch what later steps depend on, once."""
    length, counters = setup.structure.steps_per_epoch, progress.counters
    if progress.step % length or counters.evaluated_step >= progress.step:
        return
    number, every = progress.step // length, setup.config.train.eval_every_epochs
    is_plateau = setup.config.schedule.schedule == "plateau"
    if is_plateau and number and number % every == 0:
        found = training_progress.evaluate(setup, progress, "validation", stop)
        counters.note_plateau(setup.config, found)
    progress.start_epoch()


def _take_step(
    setup: Setup, progress: Progress, stop: Stop
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]], dict[int, Line]]:
    """Look into the next step, and take it.

    Returns:
        The arrays of its batch, as of `diagnosis.diagnose`; what `replay.json` says of
        each layer, in order of execution; and the step's line.
    """
    _end_epoch(setup, progress, stop)
    chunk, numbers = training_progress.read_next_step(setup, progress)
    phase = setup.phases[progress.phase]
    names = tuple(layer["path"] for layer in setup.description["layers"])
    state = progress.state.replace(teacher=setup.teacher_variables)
    options = phase.compiler_options
    program = diagnosis.make_program(phase.structure, names, options)
    count = devices.put(devices.replicated(setup.mesh), np.int32(1))
    arguments = state, chunk, numbers, count
    with memory.explain_shortage(program, arguments):
        found = jax.device_get(program(*arguments))
    before = _copy_weights(setup, progress)
    line = _advance(setup, progress, progress.step + 1, stop)
    after = _copy_weights(setup, progress)
    layers = findings.describe_layers(names, found, before, after)
    return {n: x for n, x in found.items() if n not in _OF_LAYERS}, layers, line


def _copy_weights(setup: Setup, progress: Progress) -> dict[str, np.ndarray]:
    """Copy the parameters to the host, by path: a step overwrites them."""
    params = devices.gather(setup.mesh, progress.state.params)
    return {path: np.array(x) for path, x in flatten_paths(params).items()}
