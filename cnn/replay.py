"""Mode replay: a step of a run is taken again, and looked into.

From the nearest checkpoint before it, or from the run's start, the run's own compiled
steps lead to the step: the example ids, the images as varied and the loss are those of
the run, to the bit on the same devices and versions, and are compared with what
`metrics.jsonl` says of them. What a line does not have (losses of examples, gradients
by layer) is computed beside it, by `cnn.training.diagnosis`.
"""

import contextlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from cnn import train
from cnn.checkpoints import atomic, manifest, workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.runtime import devices, environment, own_files
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.runtime.terminal import Terminal
from cnn.text import show_line
from cnn.training import diagnosis, memory, report, same_data, tasks
from cnn.training import progress as training_progress
from cnn.training.epoch import Pace
from cnn.training.progress import Progress
from cnn.training.setup import Setup
from cnn.training.steps import Structure
from cnn.visualize.draw import batch as batch_sheet
from cnn.weights import preprocessing

Line = dict[str, Any]
_SHOWN = 5
# What `diagnose` says of a batch, that is not one array of N examples.
_OF_LAYERS = ("activations", "gradients")
# What of a layer may not be finite, and the number that says so.
_NORMS = {
    "weights": "weight_norm",
    "activations": "largest_activation",
    "gradients": "gradient_norm",
    "update": "update_norm",
}


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
    logged = _compare(lines, _read_steps(directory), stored, setup)
    found = {
        "step": step,
        "epoch": (step - 1) // setup.structure.steps_per_epoch,
        "from_step": first,
        **lines[step],
        "logged": logged,
        "not_finite": _find_bad(lines[step], batch, layers),
        "layers": layers,
        "examples": _list_examples(setup, batch),
    }
    output = Path(config.visualize.output or directory / "replay" / f"step_{step}")
    _write(setup, output, found, batch, terminal)
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
    layers = _describe_layers(names, found, before, after)
    return {n: x for n, x in found.items() if n not in _OF_LAYERS}, layers, line


def _copy_weights(setup: Setup, progress: Progress) -> dict[str, np.ndarray]:
    """Copy the parameters to the host, by path: a step overwrites them."""
    params = devices.gather(setup.mesh, progress.state.params)
    return {path: np.array(x) for path, x in flatten_paths(params).items()}


def _describe_layers(
    names: Sequence[str],
    found: Mapping[str, Any],
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """Describe what a step makes of each layer.

    A frozen one has no gradient, and one that is not run (of cached features) no
    activation.

    Args:
        names: of the layers, in order of execution.
        found: `activations` and `gradients` of `diagnosis.diagnose`.
        before: parameters by path.
        after: these after the step.
    """
    gradients = flatten_paths(found["gradients"])
    updates = {path: np.float64(after[path]) - x for path, x in before.items()}
    lines = []
    for name in names:
        own = [path for path in before if path.rpartition("/")[0] == name]
        weight = _measure(before[path] for path in own)
        update = _measure(updates[path] for path in own)
        line = {"layer": name, "weight_norm": weight, "update_norm": update}
        line["update_to_weight"] = update / weight if weight else math.nan
        if name in found["activations"]:
            line["largest_activation"] = float(found["activations"][name])
        if trained := [gradients[path] for path in own if path in gradients]:
            line["gradient_norm"] = _measure(trained)
        lines.append(line)
    return lines


def _measure(arrays: Any) -> float:
    """Return the norm of some arrays together, in double precision."""
    return math.sqrt(sum(float(np.sum(np.float64(x) ** 2)) for x in arrays))


def _find_bad(
    line: Line, batch: Mapping[str, np.ndarray], layers: Sequence[Mapping[str, Any]]
) -> dict[str, str] | None:
    """Find what of a step is not finite first, in the order in which it is computed.

    Returns:
        `what`, and its `layer` where it is one's; None where all is finite.
    """

    def find(what: str, layers: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
        name = _NORMS[what]
        bad = [x["layer"] for x in layers if not math.isfinite(x.get(name, 0.0))]
        return {"what": what, "layer": bad[0]} if bad else None

    if not np.isfinite(batch["images"]).all():
        return {"what": "images"}
    if found := find("weights", layers) or find("activations", layers):
        return found
    if not np.isfinite(batch["losses"]).all() or not math.isfinite(line["loss"]):
        return {"what": "loss"}
    # Gradients come from the loss, through the last layer first.
    return find("gradients", layers[::-1]) or find("update", layers)


def _read_steps(directory: Path) -> dict[int, Line]:
    """Read the lines of steps in metrics.jsonl; a damaged line is left out."""
    try:
        texts = own_files.read(directory / workdir.METRICS_FILE).splitlines()
    except OSError:
        return {}
    found = {}
    for text in texts:
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            is_step = isinstance(line, dict) and "example_ids_hash" in line
            if is_step and isinstance(line.get("step"), int):
                found[line.pop("step")] = line
    return found


def _compare(
    lines: Mapping[int, Line],
    logged: Mapping[int, Line],
    stored: Mapping[str, Any],
    setup: Setup,
) -> dict[str, Any]:
    """Compare the steps that were taken again with what training has logged of them.

    Args:
        lines: of the steps from the checkpoint on.
        logged: lines by step.
        stored: what the checkpoint says of itself; empty without one.

    Returns:
        `steps`, how many were compared; `equal`, whether all numbers and ids of these
        are, to the bit (None: none was logged); `first_difference`, a step (None:
        none), with the `names` that differ there and by how much the `loss` does; and
        `environment`, what differs from the run's.
    """
    both = [step for step in lines if step in logged]
    parted = [step for step in both if lines[step] != logged[step]]
    here = environment.describe(setup.mesh)
    found: dict[str, Any] = {
        "steps": len(both),
        "equal": not parted if both else None,
        "first_difference": None,
        "environment": environment.list_changes(stored.get("environment", {}), here),
    }
    if parted:
        now, then = lines[parted[0]], logged[parted[0]]
        loss = then.get("loss")
        found["first_difference"] = {
            "step": parted[0],
            "names": [name for name in now if now[name] != then.get(name)],
            "loss": now["loss"] - loss if isinstance(loss, float) else math.nan,
        }
    return found


def _list_examples(
    setup: Setup, batch: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """List a batch's examples, the highest loss first, with their names."""
    train_set = setup.dataset.train
    lines = []
    for place in _order(batch):
        number = int(batch["ids"][place])
        line = {"place": int(place), "id": number}
        line |= {"label": batch["labels"][place].tolist()}
        line |= {"loss": float(batch["losses"][place])}
        if train_set.names is not None:
            line["name"] = str(train_set.names[number])
        lines.append(line)
    return lines


def _order(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the places of a batch by loss: not finite ones first, then the highest."""
    losses = np.float64(batch["losses"])
    return np.argsort(-np.where(np.isfinite(losses), losses, np.inf), kind="stable")


def _write(
    setup: Setup,
    output: Path,
    found: dict[str, Any],
    batch: Mapping[str, np.ndarray],
    terminal: Terminal,
) -> None:
    """Write `replay.json`, `batch.npz` and `batch.png`, and print what they say."""
    content = io.BytesIO()
    np.savez(content, **batch)
    order = _order(batch)
    paths = [output / name for name in ("replay.json", "batch.npz", "batch.png")]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output={output} cannot be written ({error.strerror}); name another"
        ) from None
    atomic.write_json(paths[0], _to_json(found))
    atomic.write_bytes(paths[1], content.getvalue())
    structure = setup.phases[setup.find_phase(found["step"])].structure
    if structure.takes_features:  # of no image any more
        images = setup.dataset.train.read(batch["ids"])
    else:
        images = _scale_back(structure, batch["images"])
    images, losses = images[order], batch["losses"][order]
    batch_sheet.draw(images, losses, batch["ids"][order], paths[2])
    terminal.show(_make_table(found["layers"]))
    for line in _describe(found):
        terminal.say(line)
    terminal.say_written(*paths)


def _scale_back(structure: Structure, images: np.ndarray) -> np.ndarray:
    """Return uint8 images of what a model is trained on; black where not finite."""
    mean, std = np.float32(structure.mean), np.float32(structure.std)
    pixels = np.nan_to_num(images * std + mean, nan=0, posinf=0, neginf=0)
    return np.uint8(np.rint(255 * np.clip(pixels, 0, 1)))


def _to_json(value: Any) -> Any:
    """Return a value with None in place of numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _to_json(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_to_json(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _make_table(layers: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table of the layers."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    names = ("largest_activation", "gradient_norm", "weight_norm", "update_to_weight")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for layer in layers:
        numbers = [f"{layer[n]:.3g}" if n in layer else "" for n in names]
        table.add_row(layer["layer"], *numbers)
    return table


def _describe(found: Mapping[str, Any]) -> list[str]:
    """Write what a replay has found, a line each."""
    lines = [
        f"loss      {found['loss']:.9g}, gradient norm {found['gradient_norm']:.9g}, "
        f"learning rate {found['learning_rate']:.6g}, ids {found['example_ids_hash']}",
        _describe_log(found["logged"]),
    ]
    shown = [
        f"{x['loss']:.4g} ({show_line(str(x.get('name', x['id'])))})"
        for x in found["examples"][:_SHOWN]
    ]
    lines.append(f"highest   losses: {', '.join(shown)}")
    if bad := found["not_finite"]:
        where = f" of {bad['layer']}" if "layer" in bad else ""
        lines.append(f"blame     first not finite: {bad['what']}{where}")
        if bad["what"] == "weights":
            lines[-1] += f", since an update before; see --step={found['step'] - 1}"
    return lines


def _describe_log(logged: Mapping[str, Any]) -> str:
    """Write whether the steps are those that training has logged."""
    if logged["equal"] is None:
        return (
            "unknown   whether these are the run's bits: it has logged none of these "
            "steps (--log_every_steps=1 logs each)"
        )
    if logged["equal"]:
        return (
            f"equal     to metrics.jsonl, to the bit: loss, gradient norm, learning "
            f"rate and ids of {logged['steps']} logged steps"
        )
    parted = logged["first_difference"]
    why = ", ".join(logged["environment"]) or "the same devices and versions"
    return (
        f"warning   from step {parted['step']} on {', '.join(parted['names'])} differ "
        f"from metrics.jsonl, the loss by {parted['loss']:.3g}; under {why}"
    )
