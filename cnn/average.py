"""Mode average: a mean of several runs' weights becomes a run of its own.

Sources: Wortsman et al. 2022, https://arxiv.org/abs/2203.05482 (uniform and greedy
    soups, algorithm 1); Izmailov et al. 2018, https://arxiv.org/abs/1803.05407
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from cnn import train
from cnn.checkpoints import atomic, workdir
from cnn.checkpoints.options import CheckpointOptions
from cnn.config import Config, list_modes, make_config
from cnn.data.options import DataOptions
from cnn.errors import UserError, explain
from cnn.evaluation.judge import load_images, make_judge
from cnn.models.options import ModelOptions
from cnn.option import format_value
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.terminal import Terminal
from cnn.text import show_line
from cnn.training import same_data, statistics, tasks
from cnn.training.counters import Counters
from cnn.training.options import DistillationOptions
from cnn.training.trained import Trained, load_trained
from cnn.transfer.options import TransferOptions
from cnn.weights import convert

RESULT = "average.json"

Weights = dict[str, Any]
# From weights to those that are evaluated: with their own statistics, where wanted.
Finish = Callable[[Weights], Weights]
# From weights to their metrics on the validation set.
Judge = Callable[[Weights], dict[str, Any]]


@dataclasses.dataclass
class Ingredient:
    """A run whose weights may be averaged.

    Attributes:
        metrics: of the validation set; None where there is none.
        is_kept: whether its weights are in the mean.
    """

    directory: Path
    trained: Trained
    metrics: dict[str, Any] | None = None
    is_kept: bool = True


def average(
    config: Config, directories: Sequence[Path], terminal: Terminal
) -> dict[str, Any]:
    """Average the weights of runs into a new run, and write `average.json` in it.

    Args:
        config: the first run's options, those of the command line over them.
        directories: of the runs.

    Returns:
        What was written.

    Raises:
        UserError: the runs differ in their model, classes or images, there is no
            validation set to choose on, the mean's loss on it is not finite, or
            `--output` holds something. Nothing was written.
    """
    output = _check(config, directories)
    which, stop = config.checkpoint.checkpoint, Stop()
    runs = [Ingredient(path, load_trained(path, which)) for path in directories]
    for other in runs[1:]:
        _check_alike(runs[0], other)
    for run in runs:
        variables = jax.tree.map(np.asarray, run.trained.variables)
        run.trained = dataclasses.replace(run.trained, variables=variables)
    # Converted weights have no metric of their own.
    config = tasks.resolve(config, runs[0].trained.structure.task)
    with catch_signals(stop):
        finish = _make_finish(config, runs[0].trained, terminal, stop)
        judge = _make_judge(config, runs, terminal, stop)
        for run in runs if judge else ():
            run.metrics = judge(run.trained.variables)
        if config.average.soup == "greedy":
            weights, metrics = _choose(runs, config.train.select_by, finish, judge)
        else:
            weights = finish(_compute_mean(runs))
            metrics = judge(weights) if judge else None
    _check_finite(runs, metrics, config.train.select_by, terminal)
    result, thresholds = _describe(config, runs, metrics), None
    if metrics:
        thresholds = tasks.read_thresholds(metrics)
    _write(output, runs, weights, thresholds, result)
    terminal.show(_make_table(runs, metrics))
    terminal.say_written(output)
    return result


def _check(config: Config, directories: Sequence[Path]) -> Path:
    """Return the new run's directory; refuse one that is taken, and a single run."""
    if len(directories) < 2:
        raise UserError(
            "--mode=average takes several runs; give their directories, as "
            "--workdir=A,B,C or --workdir='runs/*'"
        )
    if not config.visualize.output:
        raise UserError("--mode=average needs --output=DIR, the new run's directory")
    output = Path(config.visualize.output)
    workdir.remove_left(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"--output={output} holds something already; name another directory"
        )
    return output


def _check_alike(one: Ingredient, other: Ingredient) -> None:
    """Refuse runs whose weights mean different things, or images that do.

    Raises:
        UserError: naming both.
    """
    for what, here, there in (
        ("models", *(_list_choices(x, ModelOptions, "convert") for x in (one, other))),
        ("classes", one.trained.class_names, other.trained.class_names),
        ("tasks", *(x.trained.structure.task.name for x in (one, other))),
        ("images", _list_images(one), _list_images(other)),
    ):
        if here != there:
            raise UserError(
                f"{one.directory} and {other.directory} have different {what}: "
                f"{_show(here, there)}, and {_show(there, here)}; average runs that "
                "have the same"
            )


def _list_choices(
    run: Ingredient, group: type, mode: str
) -> tuple[tuple[str, Any], ...]:
    """List a run's options of a group that another mode of the program reads too."""
    config, modes = make_config(run.trained.options), list_modes()
    names = [x.name for x in dataclasses.fields(group) if x.metadata["changes_run"]]
    names = [name for name in names if mode in modes[name] and name != "convolution"]
    unread = config.find_unread(names, mode)
    flat = config.to_flat()
    return tuple((name, flat[name]) for name in names if name not in unread)


def _list_images(run: Ingredient) -> tuple[tuple[str, Any], ...]:
    """List what makes an image of a file, and how its pixels are scaled."""
    structure, options = run.trained.structure, run.trained.options
    return (
        ("image_shape", run.trained.image_shape),
        ("mean", structure.mean),
        ("std", structure.std),
        ("shuffle_pixels", options["shuffle_pixels"]),
        ("split_seed", options["split_seed"] if options["shuffle_pixels"] else 0),
        *_list_choices(run, DataOptions, "predict"),
    )


def _show(here: tuple, there: tuple) -> str:
    """Write what of one is not in the other."""
    parts = [part for part in here if part not in there] or here
    texts = [
        f"{part[0]}={format_value(part[1])}" if isinstance(part, tuple) else part
        for part in parts
    ]
    return ", ".join(texts[:5]) + (" …" if len(texts) > 5 else "")


def _make_finish(
    config: Config, first: Trained, terminal: Terminal, stop: Stop
) -> Finish:
    """Make what gives weights their own statistics, with `--recompute_statistics`.

    The batches are those that would come after the first run's last.
    """
    if not config.train.recompute_statistics:
        return lambda weights: weights
    if not first.variables["batch_stats"]:
        raise UserError(
            f"--recompute_statistics={config.train.recompute_statistics}: the model "
            "has no batch normalisation; leave it out"
        )
    # On images, from no other weights and without a teacher, who may be gone.
    config = dataclasses.replace(
        config,
        transfer=TransferOptions(cache_features="never"),
        checkpoint=CheckpointOptions(),
        distillation=DistillationOptions(),
    )
    structure = first.structure
    stored = {"mean": structure.mean, "std": structure.std, "data": first.data}
    stored |= {"class_names": first.class_names, "options": first.options}
    stored["step"] = first.step
    setup = train.make_setup(config, stored, terminal, stop)
    everywhere = devices.replicated(setup.mesh)

    def finish(weights: Weights) -> Weights:
        placed = jax.device_put(weights, everywhere)
        found = statistics.compute(
            setup, setup.phases[-1].structure, placed, first.step, stop
        )
        return weights | {"batch_stats": jax.tree.map(np.asarray, found)}

    return finish


def _make_judge(
    config: Config, runs: Sequence[Ingredient], terminal: Terminal, stop: Stop
) -> Judge | None:
    """Make what evaluates weights on the first run's validation set; None without one.

    Raises:
        UserError: there is none, and `--soup=greedy` chooses on it.
    """
    first = runs[0]
    options = dataclasses.replace(config.evaluate, split="validation")
    config = dataclasses.replace(config, evaluate=options)
    try:
        stored = workdir.read_config(first.directory)
        data = load_images(config, first.trained, stored)
    except UserError as error:
        if config.average.soup == "greedy":
            raise UserError(
                f"--soup=greedy chooses on the validation set of {first.directory}: "
                f"{error}. Give --soup=uniform to average them all"
            ) from None
        terminal.say(f"no validation metrics: {error}")
        return None
    for run in runs[1:]:
        if run.trained.data.get("fingerprint") != first.trained.data.get("fingerprint"):
            terminal.say(
                f"warning   {run.directory} saw other data than {first.directory}: it "
                "may have been trained on images of its validation set"
            )
    return make_judge(config, first.trained, data, stop)


def _choose(
    runs: list[Ingredient], select_by: str, finish: Finish, judge: Judge
) -> tuple[Weights, dict[str, Any]]:
    """Choose greedily: from the best run on, each that makes the mean no worse.

    What has no finite loss or metric is worse than all that has one.

    Args:
        runs: sorted, and marked where they are not kept.
        select_by: the metric, of `Task.compared`.

    Returns:
        The mean of those kept, and its metrics.
    """
    sign = -1 if select_by == "loss" else 1

    def rate(metrics: dict[str, Any]) -> float:
        is_finite = _is_finite(metrics, select_by)
        return sign * metrics[select_by] if is_finite else -math.inf

    runs.sort(key=lambda run: -rate(run.metrics))
    for run in runs:
        run.is_kept = False
    weights, metrics = None, None
    for run in runs:
        run.is_kept = True
        tried = finish(_compute_mean(runs))
        found = judge(tried)
        if metrics and rate(found) < rate(metrics):
            run.is_kept = False
        else:
            weights, metrics = tried, found
    return weights, metrics


def _check_finite(
    runs: Sequence[Ingredient],
    metrics: dict[str, Any] | None,
    select_by: str,
    terminal: Terminal,
) -> None:
    """Say which runs have no finite metrics; refuse a mean that has none."""
    for run in runs:
        if run.metrics and not _is_finite(run.metrics, select_by):
            terminal.say(
                f"warning   {run.directory}: its validation loss or {select_by} is not "
                "finite; it is worse than any that is"
            )
    if metrics and not _is_finite(metrics, select_by):
        bad = select_by if math.isfinite(metrics["loss"]) else "loss"
        raise UserError(
            f"The validation {bad} of the mean is not finite; average runs that start "
            "from the same weights"
        )


def _is_finite(metrics: dict[str, Any], select_by: str) -> bool:
    return all(math.isfinite(metrics[name]) for name in ("loss", select_by))


def _compute_mean(runs: Sequence[Ingredient]) -> Weights:
    """Average the weights of the runs that are kept; equal numbers keep their bits."""
    kept = [run.trained.variables for run in runs if run.is_kept]

    def mean(*leaves: np.ndarray) -> np.ndarray:
        return (sum(np.float64(x) for x in leaves) / len(leaves)).astype(np.float32)

    return jax.tree.map(mean, *kept)


def _describe(
    config: Config, runs: Sequence[Ingredient], metrics: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what is written of an average."""

    compared = runs[0].trained.structure.task.compared

    def select(metrics: dict[str, Any] | None) -> dict[str, float] | None:
        return metrics and {name: metrics[name] for name in compared}

    return {
        "soup": config.average.soup,
        "select_by": config.train.select_by,
        "checkpoint": config.checkpoint.checkpoint,
        "recompute_statistics": config.train.recompute_statistics,
        "runs": [
            {
                "run": str(run.directory),
                "step": run.trained.step,
                "validation": select(run.metrics),
                "kept": run.is_kept,
            }
            for run in runs
        ],
        "validation": select(metrics),
    }


def _make_table(runs: Sequence[Ingredient], metrics: dict[str, Any] | None) -> Table:
    """Make the table of the runs' metrics and of their mean's."""
    shown = runs[0].trained.structure.task.shown[0]
    table = Table("run", "step", shown[1], "loss", "kept", title="validation")
    for column in table.columns[1:4]:
        column.justify = "right"
    for run in runs:
        kept = "yes" if run.is_kept else "no"
        cells = show_line(str(run.directory)), str(run.trained.step)
        table.add_row(*cells, *_format(shown[0], run.metrics), kept)
    count = sum(run.is_kept for run in runs)
    share = f"{count} of {len(runs)}"
    table.add_row("their mean", "", *_format(shown[0], metrics), share)
    return table


def _format(name: str, metrics: dict[str, Any] | None) -> tuple[str, str]:
    if metrics is None:
        return "-", "-"
    return f"{metrics[name]:.4%}", f"{metrics['loss']:.6f}"


def _write(
    output: Path,
    runs: Sequence[Ingredient],
    weights: Weights,
    thresholds: Sequence[float] | None,
    result: dict[str, Any],
) -> None:
    """Write the run beside its place, and move it there when it is whole."""
    kept = next(run for run in runs if run.is_kept)
    trained = kept.trained
    description = {
        "options": trained.options,
        "class_names": list(trained.class_names),
        "classes_are_named": trained.classes_are_named,
        "image_shape": list(trained.image_shape),
        "mean": list(trained.structure.mean),
        "std": list(trained.structure.std),
        "records": dataclasses.asdict(Counters()),
        "average": result,
    }
    task = trained.structure.task
    if task is not tasks.MULTICLASS:
        description["task"] = task.name
    if thresholds is not None:
        description["thresholds"] = list(thresholds)
    seen = {json.dumps(run.trained.data, sort_keys=True) for run in runs}
    with _explain_errors(output), workdir.make_directory(output) as new:
        new.mkdir()
        record = kept.directory / same_data.DATASET_FILE
        if len(seen) == 1 and record.is_file():
            description["data"] = trained.data
            atomic.write_bytes(new / same_data.DATASET_FILE, record.read_bytes())
        convert.write_run(make_config(trained.options), new, weights, description)
        atomic.write_json(new / RESULT, result)


@contextlib.contextmanager
def _explain_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UserError) as error:
        what = error if isinstance(error, UserError) else explain(error)
        raise UserError(f"--output={output} cannot be written ({what})") from None
