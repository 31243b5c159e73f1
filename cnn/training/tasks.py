"""What an image's labels are: one class each, or any number of them.

A task is all that differs between the two: losses, probabilities, what is counted and
what stands in tables. A structure has its own, `Structure.task`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.augment import pipeline
from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.data.labels import are_several
from cnn.errors import UserError
from cnn.training import metrics, multilabel

Counts = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: as of `--task`.
        loss: what `--loss=auto` chooses.
        losses: the only ones that it takes; empty: any.
        select_by: what validation may select by; the first is `--select_by=auto`.
        train_metric: what is measured of an epoch's training images besides the loss.
        logged: metrics of an evaluated split in metrics.jsonl.
        compared: metrics of a sweep's table.
        tested: metrics of result.json.
        shown: those that are printed as shares, by the words for them.
        keeps_examples: whether metrics need the logits of all examples at once.
        to_probabilities: from logits [N, K] to probabilities [N, K].
        average: from logits of several views to those of their mean probabilities.
        create_counts: from K to what training counts, over no examples.
        count: from logits and labels of a batch to its counts.
        measure: from counts and how many examples to `train_metric`.
        create_sums: from K to the sums of evaluation, over no examples.
        compute_sums: as `metrics.compute_sums`.
    """

    name: str
    loss: str
    losses: tuple[str, ...]
    select_by: tuple[str, ...]
    train_metric: str
    logged: tuple[str, ...]
    compared: tuple[str, ...]
    tested: tuple[str, ...]
    shown: tuple[tuple[str, str], ...]
    keeps_examples: bool
    to_probabilities: Callable[[jax.Array], jax.Array]
    average: Callable[[list[jax.Array]], jax.Array]
    create_counts: Callable[[int], Counts]
    count: Callable[[jax.Array, jax.Array], Counts]
    measure: Callable[[Mapping[str, Any], int], float]
    create_sums: Callable[[int], Counts]
    compute_sums: Callable[..., Counts]

    def divide(self, sums: Mapping[str, Any]) -> tuple[float, float, int]:
        """Return mean loss, `train_metric` and count of a training epoch's sums."""
        count = int(sums["count"])
        return float(sums["loss"]) / count, self.measure(sums, count), count

    def choose_loss(self, given: str) -> str:
        """Return the loss that `--loss` names.

        Raises:
            UserError: it is not for this task.
        """
        if given == "auto":
            return self.loss
        if self.losses and given not in self.losses:
            raise UserError(
                f"--loss={given} is not for images with several labels, each of which "
                f"is a decision of its own; give --loss={' or '.join(self.losses)}, or "
                "leave it out"
            )
        return given

    def choose_metric(self, given: str) -> str:
        """Return the metric that `--select_by` names.

        Raises:
            UserError: it is not for this task.
        """
        if given == "auto":
            return self.select_by[0]
        if given not in self.select_by:
            raise UserError(
                f"--select_by={given} is no metric of {self.name} data; give "
                f"{', '.join(self.select_by)}, or leave it out"
            )
        return given


def _average_sigmoid(logits: list[jax.Array]) -> jax.Array:
    views = jnp.stack(logits)
    there, absent = (jax.nn.log_sigmoid(x) for x in (views, -views))
    return jax.nn.logsumexp(there, axis=0) - jax.nn.logsumexp(absent, axis=0)


def _create_correct(num_classes: int) -> Counts:
    del num_classes
    return {"correct": np.zeros((), np.int32)}


def _count_correct(logits: jax.Array, labels: jax.Array) -> Counts:
    return {"correct": jnp.sum(jnp.argmax(logits, -1) == labels, dtype=jnp.int32)}


def _measure_accuracy(counts: Mapping[str, Any], count: int) -> float:
    return int(counts["correct"]) / count


def _create_labels(num_classes: int) -> Counts:
    zeros = np.zeros(num_classes, np.int32)
    return {"hits": zeros, "taken": zeros, "totals": zeros}


def _count_labels(logits: jax.Array, labels: jax.Array) -> Counts:
    """Count, class by class, at a probability of 0.5."""
    taken, there = logits >= 0, labels > 0
    found = {"hits": taken & there, "taken": taken, "totals": there}
    return {name: jnp.sum(x, axis=0, dtype=jnp.int32) for name, x in found.items()}


def _measure_f1(counts: Mapping[str, Any], count: int) -> float:
    del count
    return multilabel.average_f1(counts["hits"], counts["taken"], counts["totals"])


def _create_count(num_classes: int) -> Counts:
    del num_classes
    return {"count": np.zeros((), np.int32)}


def _count_examples(
    logits: jax.Array, labels: jax.Array, losses: jax.Array, mask: jax.Array
) -> Counts:
    del logits, labels, losses
    return {"count": jnp.sum(mask, dtype=jnp.int32)}


MULTICLASS = Task(
    name="multiclass",
    loss="softmax",
    losses=(),
    select_by=("accuracy", "balanced_accuracy", "loss"),
    train_metric="accuracy",
    logged=("loss", "accuracy", "balanced_accuracy", "top5"),
    compared=("accuracy", "balanced_accuracy", "loss"),
    tested=("accuracy", "loss", "correct", "count", "top5", "balanced_accuracy"),
    shown=(("accuracy", "accuracy"), ("top5", "top-5")),
    keeps_examples=False,
    to_probabilities=jax.nn.softmax,
    average=pipeline.average_softmax,
    create_counts=_create_correct,
    count=_count_correct,
    measure=_measure_accuracy,
    create_sums=metrics.create_sums,
    compute_sums=metrics.compute_sums,
)
_PRECISION = ("mean_average_precision", "f1", "micro_average_precision", "micro_f1")
MULTILABEL = Task(
    name="multilabel",
    loss="bce",
    losses=("bce", "focal"),
    select_by=("mean_average_precision", "f1", "loss"),
    train_metric="f1",
    logged=("loss", *_PRECISION, "exact_match"),
    compared=("mean_average_precision", "f1", "loss"),
    tested=("mean_average_precision", "loss", *_PRECISION[1:], "exact_match", "count"),
    shown=(("mean_average_precision", "mean average precision"), ("f1", "F1")),
    keeps_examples=True,
    to_probabilities=jax.nn.sigmoid,
    average=_average_sigmoid,
    create_counts=_create_labels,
    count=_count_labels,
    measure=_measure_f1,
    create_sums=_create_count,
    compute_sums=_count_examples,
)
TASKS = {task.name: task for task in (MULTICLASS, MULTILABEL)}


def find_task(labels: np.ndarray) -> Task:
    """Return the task of labels as of `cnn.data.labels`."""
    return MULTILABEL if are_several(labels) else MULTICLASS


def get_task(said: Mapping[str, Any]) -> Task:
    """Return the task of a checkpoint's description, a result or an evaluation."""
    return TASKS[said.get("task", MULTICLASS.name)]


def read_thresholds(said: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the thresholds that a checkpoint's description has; None without."""
    thresholds = said.get("thresholds")
    return None if thresholds is None else tuple(thresholds)


def resolve(config: Config, task: Task) -> Config:
    """Return the options with the loss and the metric that a task has for `auto`.

    Raises:
        UserError: one that is given is not for the task.
    """
    loss = task.choose_loss(config.loss.loss)
    metric = task.choose_metric(config.train.select_by)
    return config.change({"loss": loss, "select_by": metric})


def resume(config: Config, directory: Path) -> Config:
    """Return the options with what a run that is there has taken for `auto`.

    Args:
        directory: of the run, or of none.
    """
    given = {"loss": config.loss.loss, "select_by": config.train.select_by}
    try:
        stored = workdir.read_config(directory)
    except UserError:
        return config
    open_names = [name for name, x in given.items() if x == "auto" and name in stored]
    return config.change({name: stored[name] for name in open_names})


def list_defaults(config: Config) -> dict[str, Any]:
    """List the defaults, by flag name: what `auto` chooses is one, if it is chosen."""
    defaults = Config().to_flat()
    if config.loss.loss == MULTICLASS.loss:  # which is for its task alone
        defaults["loss"] = config.loss.loss
    if config.train.select_by in [task.select_by[0] for task in TASKS.values()]:
        defaults["select_by"] = config.train.select_by
    return defaults


def write_metrics(task: Task, found: Mapping[str, Any], prefix: str = "") -> str:
    """Write the metrics of a test in a line.

    Args:
        found: as of `Task.tested`, under names with a prefix.
    """
    name, words = task.shown[0]
    line = f"{words} {found[prefix + name]:.2%}"
    if task is MULTICLASS:
        line += f" ({found[f'{prefix}correct']} of {found[f'{prefix}count']})"
    else:
        name, words = task.shown[1]
        line += f", {words} {found[prefix + name]:.2%} of {found[f'{prefix}count']}"
    return f"{line}, loss {found[f'{prefix}loss']:.4f}"


def concatenate(examples: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Join `logits` and `loss` of examples that came some at a time."""
    return {name: np.concatenate(parts) for name, parts in examples.items()}
