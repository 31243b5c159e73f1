"""What a run tells of itself: before it starts, after each epoch, at its end."""

import importlib.metadata
import platform
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn import describe, devices, workdir
from cnn.devices import processes
from cnn.errors import UserError
from cnn.progress import MetricsLog
from cnn.records import REMEDY, find_bad_step
from cnn.run import Run
from cnn.state import (
    compute_state_sha256,
    count_parameters,
    get_variables,
    get_weights,
)
from cnn.transfer import proof

TEST_METRICS = ("accuracy", "loss", "correct", "count", "top5", "balanced_accuracy")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def announce(run: Run) -> None:
    """Print device, dataset and the model's table."""
    data, say = run.dataset, run.terminal.say
    height, width, channels = run.image_shape
    sizes = ", ".join(f"{len(x)} {split}" for split, x in run.loaders.items())
    place = "on the device" if run.loaders["train"].is_resident else "streamed"
    say(f"device    {devices.describe_device(run.mesh)}")
    say(
        f"dataset   {data.name}: {sizes}; {len(data.class_names)} classes, "
        f"{height}x{width}x{channels}, {place}"
    )
    say(f"model     {run.config.model.model}")
    run.terminal.console.print(describe.make_table(run.description))


def check_and_log(
    run: Run, log: MetricsLog, records: dict[str, np.ndarray], ids: np.ndarray
) -> None:
    """Check, log and show the steps that were just taken.

    Args:
        run: after them.
        log: takes every `--log_every_steps`th.
        records: `loss`, `learning_rate` and `gradient_norm` of each, [n].
        ids: of their examples, [n, B].

    Raises:
        UserError: a loss or gradient among them is not finite.
    """
    before = run.step - len(ids)
    if bad_step := find_bad_step(records, before):
        raise UserError(
            f"The loss or its gradient is not finite at step {bad_step}. Training "
            f"stops; checkpoints from before it are whole. {REMEDY}"
        )
    every = run.config.progress.log_every_steps
    for i, step in enumerate(range(before + 1, run.step + 1)):
        if every and step % every == 0:
            line: dict[str, Any] = {n: float(v[i]) for n, v in records.items()}
            line["example_ids_hash"] = f"{zlib.crc32(ids[i].tobytes()):08x}"
            log.write(step, line)
    count = int(run.sums["count"])
    run.terminal.update_bar(
        run.step,
        before // run.task.steps_per_epoch + 1,
        float(run.sums["loss"]) / count,
        int(run.sums["correct"]) / count,
        count / run.records.epoch_seconds,
    )


def print_epoch(run: Run, line: dict[str, Any]) -> None:
    """Print an epoch's line of metrics.jsonl."""
    parts = [f"epoch {line['epoch']:>3}/{run.config.train.epochs}"]
    for name in ("train", run.eval_split):
        if f"{name}_loss" in line:
            loss, accuracy = line[f"{name}_loss"], line[f"{name}_accuracy"]
            parts.append(f"{name} loss {loss:.4f} accuracy {accuracy:.2%}")
    if "images_per_second" in line:
        parts.append(f"{line['images_per_second']:,.0f} images/s")
    run.terminal.say("  ".join(parts))


def write_result(run: Run) -> dict[str, Any]:
    """Evaluate the final weights on the test set and write `result.json`.

    Returns:
        What was written.

    Raises:
        UserError: frozen leaves are not what they were; `result.json` says so too.
    """
    found = run.evaluate("test")
    run.update_seconds()
    transfer, changed = _examine_frozen(run)
    result = _list_figures(run, found) | proof.summarise(transfer, changed)
    if processes.is_first():
        workdir.write_json(run.directory / "result.json", result)
    proof.check_unchanged(changed, f"{run.directory}")
    return result


def make_result(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """Make what `result.json` says of a run that has ended.

    Args:
        run: the run.
        found: `TEST_METRICS` of its final weights.
    """
    return _list_figures(run, found) | proof.summarise(*_examine_frozen(run))


def _list_figures(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    records = run.records
    images = run.step * run.config.step.batch_size
    figures = {f"test_{name}": found[name] for name in TEST_METRICS}
    return figures | {
        "best_step": records.best_step,
        "best_validation": records.best_value if records.best_step >= 0 else None,
        "num_parameters": count_parameters(run.state.params),
        "steps": run.step,
        "epochs": run.step // run.task.steps_per_epoch,
        "stopped_early": records.stopped_early,
        "seconds": round(records.seconds, 3),
        "images_per_second": round(images / records.train_seconds, 1),
        "seed": run.config.train.seed,
        "device": devices.describe_device(run.mesh),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "state_sha256": compute_state_sha256(devices.gather(run.mesh, run.state)),
    }


def _examine_frozen(run: Run) -> tuple[dict[str, Any], list[str]]:
    """Return what a checkpoint says of frozen leaves, and those that have changed."""
    transfer = run.describe_checkpoint().get("transfer", {})
    state = devices.gather(run.mesh, run.state)
    weights = get_weights(state), get_variables(state)
    return transfer, proof.find_changed(transfer.get("frozen", {}), *weights)


def conclude(run: Run, result: dict[str, Any]) -> None:
    """Print the result, where everything lies, and what to try next."""
    say, directory = run.terminal.say, run.directory
    say(
        f"test accuracy {result['test_accuracy']:.2%} ({result['test_correct']} of "
        f"{result['test_count']}), loss {result['test_loss']:.4f}; "
        f"{result['steps']} steps in {result['seconds']:.1f} s"
    )
    if run.profiler.is_missing:
        say(
            f"no trace was written: training ended after step {run.step}, before "
            f"--profile_steps={run.config.profile.profile_steps}"
        )
    say(f"in {directory}: config.json, metrics.jsonl, result.json, checkpoints")
    say(f"next: python main.py --mode=evaluate --workdir={directory} --split=train")
