"""What a run prints and writes of itself: at its start, as it goes, at its end."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn import place
from cnn.checkpoints import atomic, manifest, proof, workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.models import summary
from cnn.models.variables import count_parameters
from cnn.optim import optimizer
from cnn.runtime import devices, environment, processes
from cnn.runtime.metrics_log import MetricsLog
from cnn.runtime.terminal import Terminal
from cnn.text import quote, show_line
from cnn.training import blame, course, noise_scale, tasks
from cnn.training.progress import Progress, describe_checkpoint
from cnn.training.setup import Setup
from cnn.training.state import compute_state_sha256, get_variables, get_weights

# What a result raises where it is printed that is not what a run writes.
_MALFORMED = (AttributeError, TypeError, ValueError, LookupError, OverflowError)


def announce(setup: Setup, terminal: Terminal) -> None:
    """Print device, dataset, the model's table and what training leaves out."""
    data, say = setup.dataset, terminal.say
    height, width, channels = setup.image_shape
    sizes = ", ".join(f"{len(x)} {split}" for split, x in setup.loaders.items())
    place = "on the device" if setup.loaders["train"].is_resident else "streamed"
    say(f"device    {devices.describe_device(setup.mesh)}")
    say(
        f"dataset   {show_line(data.name)}: {sizes}; {len(data.class_names)} classes, "
        f"{height}x{width}x{channels}, {place}"
    )
    if line := _list_sizes(setup):
        say(f"sizes     {line}")
    say(f"model     {setup.config.model.model}")
    terminal.show(summary.make_table(setup.description))
    for note in list_notes(setup):
        say(note)


def _list_sizes(setup: Setup) -> str:
    """Write the sizes of images; empty of a single one."""
    sizes, size = setup.config.data.sizes, setup.eval_shape[0]
    if len(sizes) == 1 and size == setup.image_shape[0]:
        return ""
    trained = ", ".join(f"{side}x{side} from epoch {epoch}" for epoch, side in sizes)
    return f"training {trained}; evaluation {size}x{size}"


def list_notes(setup: Setup) -> list[str]:
    """Write a line for all that training leaves out, before it begins."""
    count, batch_size = len(setup.loaders["train"]), setup.config.step.batch_size
    left, sampling, notes = count % batch_size, setup.config.step.sampling, []
    repeats = setup.config.step.repeats_in_batch
    if repeats > 1:
        seen = count // batch_size * -(-batch_size // repeats)
        notes.append(
            f"each epoch draws {seen} times from {count} training images, others each "
            f"time: each stands {repeats} times in its batch (--repeats_in_batch)"
        )
    elif sampling != "uniform":
        notes.append(
            f"each epoch draws {count - left} times from {count} training images, with "
            f"replacement (--sampling={sampling}): some are seen again, some left out"
        )
    elif left:
        notes.append(
            f"each epoch leaves out {left} of {count} training images, others each "
            f"time: its last batch would be smaller than --batch_size={batch_size}"
        )
    notes += _list_weights(setup)
    notes += _list_scaling(setup)
    notes += course.list_late(setup.config, *setup.lengths)
    if setup.teacher and not setup.config.distillation.distillation_share:
        notes.append(
            "--distillation_share=0: nothing is learnt from --teacher, which is "
            "computed nevertheless"
        )
    select_by = setup.config.train.select_by
    default = setup.structure.task.select_by[0]
    if setup.eval_split != "validation" and select_by != default:
        notes.append(f"--select_by={select_by} selects nothing: no validation set")
    return notes


def _list_weights(setup: Setup) -> list[str]:
    """Write how --class_weights=auto weighs the classes."""
    if setup.config.loss.class_weights != "auto":
        return []
    names, weights = setup.dataset.class_names, setup.structure.class_weights
    if not weights:
        return ["classes count as they are: none has over twice as many as another"]
    low, high = weights.index(min(weights)), weights.index(max(weights))
    return [
        f"classes are weighted in the loss, as some are rare: {show_line(names[low])} "
        f"{weights[low]:.2g} … {show_line(names[high])} {weights[high]:.2g} "
        "(--class_weights)"
    ]


def _list_scaling(setup: Setup) -> list[str]:
    """Write the peak rate where it is scaled to the batch size."""
    options, rule = setup.config.schedule, setup.config.optimizer
    if options.rate_scaling == "none" or rule.decoupled_rates:
        return []
    batch_size = setup.config.step.batch_size
    numbers, rate = setup.numbers, optimizer.compute_peak_rate
    return [
        f"the peak learning rate is {rate(setup.structure.rule, numbers, batch_size):g}"
        f": --learning_rate={rule.learning_rate:g} of --rate_scaling_base="
        f"{options.rate_scaling_base:g} scaled to --batch_size={batch_size}"
    ]


def print_changed_environment(
    setup: Setup, stored: Mapping[str, Any], terminal: Terminal
) -> None:
    """Print in which other environment than its checkpoint's a run is resumed.

    Args:
        stored: what the checkpoint says of itself.
    """
    here = environment.describe(setup.mesh)
    changes = environment.list_changes(stored.get("environment", {}), here)
    if changes:
        terminal.say(
            f"resumed under {', '.join(changes)}: numbers may differ in their last "
            "digits from those of a run that was not stopped"
        )


def check_and_log(
    setup: Setup,
    progress: Progress,
    terminal: Terminal,
    log: MetricsLog,
    step_metrics: dict[str, np.ndarray],
    ids: np.ndarray,
    directory: Path,
) -> None:
    """Check, log and show the steps that were just taken.

    Args:
        progress: after them.
        terminal: shows the bar.
        log: takes every `--log_every_steps`th.
        step_metrics: `loss`, `learning_rate` and `gradient_norm` of each, [n].
        ids: of their examples, [n, B].
        directory: of the run.

    Raises:
        StepError: a loss or gradient among them is not finite, or a loss too high.
    """
    before = progress.step - len(ids)
    blame.check(setup, progress, step_metrics, directory)
    every = setup.config.progress.log_every_steps
    for i, step in enumerate(range(before + 1, progress.step + 1)):
        if every and step % every == 0:
            log.write(step, make_step_line(step_metrics, ids, i))
    task = setup.structure.task
    loss, value, count = task.divide(progress.sums)
    epoch = before // setup.structure.steps_per_epoch + 1
    speed = count / progress.counters.epoch_seconds
    name = _write_name(task.train_metric)
    terminal.update_bar(progress.step, epoch, loss, value, speed, name)


def make_step_line(
    step_metrics: Mapping[str, np.ndarray], ids: np.ndarray, i: int
) -> dict[str, Any]:
    """Make a step's line of metrics.jsonl.

    Args:
        step_metrics: of some steps, [n].
        ids: of their examples, [n, B].
        i: which of them.
    """
    line: dict[str, Any] = {n: float(v[i]) for n, v in step_metrics.items()}
    return line | {"example_ids_hash": f"{zlib.crc32(ids[i].tobytes()):08x}"}


def make_epoch_line(
    setup: Setup, progress: Progress, found: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Make an epoch's line of metrics.jsonl.

    Args:
        progress: at the end of the epoch; at step 0 it has no training metrics.
        found: the metrics of the evaluated split; None when it was not evaluated.
    """
    number = progress.step // setup.structure.steps_per_epoch
    task = setup.structure.task
    line: dict[str, Any] = {"epoch": number}
    if number:
        metric = f"train_{task.train_metric}"
        line["train_loss"], line[metric], count = task.divide(progress.sums)
    for name in task.logged if found else ():
        line[f"{setup.eval_split}_{name}"] = found[name]
    if progress.counters.plateau is not None:
        line["rate_factor"] = progress.counters.plateau.factor
    progress.update_seconds()
    line["seconds"] = round(progress.counters.seconds, 3)
    if number:
        line["images_per_second"] = round(count / progress.counters.epoch_seconds, 1)
    if number and setup.structure.log_noise_scale:
        counters = progress.counters
        square, variance = counters.gradient_square, counters.gradient_variance
        line["noise_scale"] = noise_scale.divide(square, variance)
    return line


def print_epoch(setup: Setup, terminal: Terminal, line: dict[str, Any]) -> None:
    """Print an epoch's line of metrics.jsonl."""
    parts = [f"epoch {line['epoch']:>3}/{setup.config.train.epochs}"]
    task = setup.structure.task
    shown = {"train": task.train_metric, setup.eval_split: task.shown[0][0]}
    for name, metric in shown.items():
        if f"{name}_loss" in line:
            loss, value = line[f"{name}_loss"], line[f"{name}_{metric}"]
            parts.append(f"{name} loss {loss:.4f} {_write_name(metric)} {value:.2%}")
    if line.get("rate_factor", 1) != 1:
        parts.append(f"rate x {line['rate_factor']:.3g}")
    if "images_per_second" in line:
        parts.append(f"{line['images_per_second']:,.0f} images/s")
    if "noise_scale" in line:
        scale = line["noise_scale"]
        shown = "not measurable" if scale is None else f"{scale:,.0f} images"
        parts.append(f"noise scale {shown}")
    terminal.say("  ".join(parts))


def _write_name(metric: str) -> str:
    """Write a metric's name as it is printed."""
    return "F1" if metric == "f1" else metric.replace("_", " ")


def write_result(
    setup: Setup,
    progress: Progress,
    directory: Path,
    log: MetricsLog,
    found: Mapping[str, Any],
    best: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `result.json`, behind everything else.

    Args:
        progress: at the end of the run.
        log: of the run; its tracker gets the result too.
        found: the metrics of the test set.
        best: those of the best checkpoint by validation; empty without one.

    Returns:
        What was written.

    Raises:
        UserError: frozen leaves are not what they were; `result.json` says so too.
    """
    progress.update_seconds()
    transfer, changed = _examine_frozen(setup, progress)
    result = _list_figures(setup, progress, found, best)
    result |= proof.summarise(transfer, changed)
    if processes.is_first():
        log.write_result(result)
        atomic.write_json(directory / "result.json", result)
    proof.check_unchanged(changed, f"{directory}")
    return result


def make_result(
    setup: Setup, progress: Progress, found: Mapping[str, Any]
) -> dict[str, Any]:
    """Make what `result.json` says of a run that has ended at its best checkpoint.

    Args:
        progress: at the end of the run.
        found: `Task.tested` of its final weights.
    """
    about = proof.summarise(*_examine_frozen(setup, progress))
    return _list_figures(setup, progress, found, found) | about


def _list_figures(
    setup: Setup,
    progress: Progress,
    found: Mapping[str, Any],
    best: Mapping[str, Any],
) -> dict[str, Any]:
    counters, task = progress.counters, setup.structure.task
    images = progress.step * setup.config.step.batch_size
    figures = {f"test_{name}": found[name] for name in task.tested}
    if task is not tasks.MULTICLASS:
        figures |= {"task": task.name, "thresholds": progress.thresholds}
    return figures | {
        "best_step": counters.best_step,
        "best_validation": counters.best_value if counters.best_step >= 0 else None,
        **{f"best_test_{name}": best[name] for name in task.tested if best},
        "num_parameters": count_parameters(progress.state.params),
        "steps": progress.step,
        "epochs": progress.step // setup.structure.steps_per_epoch,
        "stopped_early": counters.stopped_early,
        "seconds": round(counters.seconds, 3),
        "images_per_second": round(images / counters.train_seconds, 1),
        "seed": setup.config.train.seed,
        "dataset_fingerprint": setup.seen.record["fingerprint"],
        "dataset_changes": list(setup.seen.changes),
        **({"teacher": setup.teacher.about} if setup.teacher else {}),
        **setup.provenance,
        **environment.describe(setup.mesh),
        "state_sha256": compute_state_sha256(
            devices.gather(setup.mesh, progress.state)
        ),
    }


def _examine_frozen(
    setup: Setup, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """Return what a checkpoint says of frozen leaves, and those that have changed."""
    transfer = describe_checkpoint(setup, progress).get("transfer", {})
    state = devices.gather(setup.mesh, progress.state)
    weights = get_weights(state), get_variables(state)
    return transfer, proof.find_changed(transfer.get("frozen", {}), *weights)


def read_ended(directory: Path) -> dict[str, Any] | None:
    """Return the result of a run that has ended; None of one that has not.

    It has ended when the checkpoint of the result's last step is whole, or when
    somebody has removed it.
    """
    path = directory / "result.json"
    if not path.is_file():
        return None
    try:
        result = workdir.read_json(path)
        _write_lines(result, "loss")
        if type(result["steps"]) is not int:
            return None
    except (UserError, *_MALFORMED):  # a damaged one is written again
        return None
    last = directory / "checkpoints" / str(result["steps"])
    return None if last.exists() and manifest.find_damage(last) else result


def print_result(
    terminal: Terminal, directory: Path, result: dict[str, Any], config: Config
) -> None:
    """Print the result, where everything lies, and what to try next.

    That is pictures, and predictions where the run has learnt from files.
    """
    select_by = config.train.select_by
    has_files = config.data.dataset.startswith(("folder:", "csv:"))
    say = terminal.say
    for line in _write_lines(result, select_by):
        say(line)
    files = "config.json, dataset.json, metrics.jsonl, result.json, checkpoints"
    say(f"in {show_line(str(directory))}: {files}")
    where = quote(f"--workdir={directory}")
    if result.get("best_step", -1) not in (-1, result["steps"]):
        where += " --checkpoint=best"
    say(f"next: {place.COMMAND} --mode=visualize {where}")
    if has_files:
        images = "--predict_images='new/*.jpg'"
        say(f"next: {place.COMMAND} --mode=predict {where} {images}")


def _write_lines(result: Mapping[str, Any], select_by: str) -> list[str]:
    """Write what a result says, a line each."""
    tested = tasks.write_metrics(tasks.get_task(result), result, "test_")
    lines = [f"test {tested}; {result['steps']} steps in {result['seconds']:.1f} s"]
    if "best_test_loss" in result:
        lines.append(_format_best(result, select_by))
    return lines


def _format_best(result: Mapping[str, Any], select_by: str) -> str:
    """Write the best checkpoint with its step and test metrics."""
    form = ".4f" if select_by == "loss" else ".2%"
    step, value = result["best_step"], result["best_validation"]
    text = f"best checkpoint by validation {select_by} ({value:{form}}): step {step}"
    if step == result["steps"]:
        return f"{text}, the last one"
    tested = tasks.write_metrics(tasks.get_task(result), result, "best_test_")
    return f"{text}, test {tested}"
