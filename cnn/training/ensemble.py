"""The mean of what several models say of the same images.

Averaged are probabilities, softmax ones or, of several labels an image, each class's
own; of all members together float64 [N, K] is kept, their sum, and of each its
predictions [N]. Classes are numbered as the first member numbers them.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn.checkpoints import workdir
from cnn.data import labels as labelled
from cnn.data.names import show
from cnn.errors import UserError
from cnn.training import calibration, metrics, multilabel, tasks

_ROWS = 2**16  # of the sums that are computed at a time


@dataclasses.dataclass(frozen=True)
class Examples:
    """Evaluated images, and what a model says of them.

    Attributes:
        class_names: K, of labels and columns.
        names: of the images [N], texts.
        stamps: of their contents [N]; None where unknown.
        labels: int [N], or several an image, uint8 [N, K].
        log_probabilities: float64 [N, K]; of several labels an image [N, K, 2], that a
            class is there and that it is not.
        thresholds: K, of several labels an image; None: as of `multilabel`.
    """

    class_names: tuple[str, ...]
    names: np.ndarray
    stamps: np.ndarray | None
    labels: np.ndarray
    log_probabilities: np.ndarray
    thresholds: tuple[float, ...] | None = None

    @property
    def task(self) -> tasks.Task:
        """Return what the labels are."""
        return tasks.find_task(self.labels)

    def compute_probabilities(self) -> np.ndarray:
        """Compute each class's probability, float64 [N, K]."""
        logs = self.log_probabilities
        return np.exp(logs if logs.ndim == 2 else logs[..., 0])

    def compute_losses(self) -> np.ndarray:
        """Compute the negative log-probability of the truth, nats; float64 [N].

        Of several labels an image it is the mean over the classes.
        """
        logs, labels = self.log_probabilities, self.labels
        if logs.ndim == 3:
            return -np.where(labels > 0, logs[..., 0], logs[..., 1]).mean(axis=1)
        return -np.take_along_axis(logs, labels[:, None], axis=1)[:, 0]

    def choose_classes(self) -> np.ndarray:
        """Choose each image's class [N], or its classes, bool [N, K]."""
        logs = self.log_probabilities
        if logs.ndim == 2:
            return logs.argmax(axis=1)
        shares = self.compute_probabilities().astype(np.float32)
        return multilabel.choose_labels(shares, self.thresholds)


class Ensemble:
    """Averages members, one after the other."""

    def __init__(self) -> None:
        """Start without members."""
        self._first: Examples | None = None  # whose logarithms become those of sums
        self._predictions: dict[str, np.ndarray] = {}
        self._thresholds: list[tuple[float, ...] | None] = []

    def add(self, name: str, member: Examples) -> None:
        """Add what a member says.

        Args:
            name: of the member.
            member: what it says; the arrays of the first one are written into.

        Raises:
            UserError: it was of other images, classes or labels than the first one.
        """
        if self._first is None:
            self._first = member
        else:
            order = _check_same(self._first, name, member)
            member = _reorder(member, order)
            total = self._first.log_probabilities
        self._predictions[name] = member.choose_classes()
        self._thresholds.append(member.thresholds)
        if member is not self._first:
            np.logaddexp(total, member.log_probabilities, out=total)

    def average(self) -> Examples:
        """Return the images with the mean probabilities of all members.

        Thresholds are the means of the members', where each has its own.
        """
        logs = self._first.log_probabilities - np.log(len(self._predictions))
        thresholds = None
        if None not in self._thresholds:
            thresholds = tuple(np.mean(self._thresholds, axis=0).tolist())
        found = {"log_probabilities": logs, "thresholds": thresholds}
        return dataclasses.replace(self._first, **found)

    def compare(self, names: Iterable[str]) -> np.ndarray:
        """Compute the share of images that two members predict differently.

        Args:
            names: of M members, in the order of the rows.

        Returns:
            [M, M], symmetric, its diagonal 0.
        """
        predictions = [self._predictions[name] for name in names]
        shares = np.zeros((len(predictions),) * 2)
        for (i, one), (j, other) in itertools.combinations(enumerate(predictions), 2):
            differ = (one != other).reshape(len(one), -1).any(axis=1)
            shares[i, j] = shares[j, i] = differ.mean()
        return shares


def _reorder(member: Examples, order: np.ndarray) -> Examples:
    """Return what a member says with its classes in another order, but its labels."""
    thresholds = member.thresholds
    if thresholds is not None:
        thresholds = tuple(np.asarray(thresholds)[order].tolist())
    logs = member.log_probabilities[:, order]
    return dataclasses.replace(member, log_probabilities=logs, thresholds=thresholds)


def _check_same(first: Examples, name: str, member: Examples) -> np.ndarray:
    """Return the member's columns in the order of the first one's classes."""
    if first.task is not member.task:
        raise UserError(
            f"--ensemble: {name} is a {member.task.name} run, and the first one a "
            f"{first.task.name} run; give runs of one --task"
        )
    if sorted(first.class_names) != sorted(member.class_names):
        raise UserError(
            f"--ensemble: {name} knows the classes {show(member.class_names)}, and the "
            f"first run {show(first.class_names)}; give runs of the same classes"
        )
    place = {name: number for number, name in enumerate(member.class_names)}
    order = np.array([place[name] for name in first.class_names])
    if labelled.are_several(first.labels):
        labels = first.labels, member.labels[:, order]
    else:
        labels = order[first.labels], member.labels
    pairs = [(first.names, member.names), labels]
    if first.stamps is not None and member.stamps is not None:
        pairs.append((first.stamps, member.stamps))
    if not all(np.array_equal(one, other) for one, other in pairs):
        raise UserError(
            f"--ensemble: the {len(member.labels)} images of {name} are not the "
            f"{len(first.labels)} of the first run; give all runs one --dataset"
        )
    return order


def describe(
    ensemble: Ensemble, average: Examples, results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what ensemble.json says.

    Args:
        ensemble: of all members.
        average: its own.
        results: what evaluation.json says of each member, and `weights_sha256`, by its
            directory.
    """
    found, first = _summarise(average), next(iter(results.values()))
    task, differences = average.task, ensemble.compare(results)
    metric = task.shown[0][0]
    shares = {name: result[metric] for name, result in results.items()}
    mean = float(np.mean(list(shares.values())))
    names = ("dataset", "split", "whole_dataset", "dataset_fingerprint", "tta")
    about = {} if task is tasks.MULTICLASS else {"task": task.name}
    pairs = differences[np.triu_indices(len(results), 1)]
    result = about | {
        "members": [_describe_member(task, *pair) for pair in results.items()],
        **{name: first[name] for name in names},
        "class_names": list(average.class_names),
        **found,
        "compared_by": metric,
        "best_member": max(shares, key=shares.get),
        f"best_{metric}": max(shares.values()),
        f"mean_{metric}": mean,
        "gain_over_best": found[metric] - max(shares.values()),
        "gain_over_mean": found[metric] - mean,
        "disagreement": float(pairs.mean()),
        "disagreement_of_pairs": differences.tolist(),
    }
    if task is tasks.MULTICLASS:
        scores = calibration.compute_scores(average.log_probabilities, average.labels)
        result["calibration"] = calibration.summarise(scores)
    return result


def check_own(
    path: Path, directories: Iterable[Path], home: Path | None = None
) -> None:
    """Refuse to replace a file that holds the ensemble of other runs, or none.

    Args:
        path: of the ensemble.json, which may not be there yet.
        directories: of the runs.
        home: of a sweep, any of whose trials may be the file's; None: of none.
    """
    if not path.exists():
        return
    try:
        stored = workdir.read_json(path)
    except UserError as error:
        raise UserError(f"{error}; remove it") from None
    try:
        there = [Path(member["workdir"]).resolve() for member in stored["members"]]
    except (KeyError, TypeError, ValueError):
        there = []
    here = sorted(directory.resolve() for directory in directories)
    is_of_home = home is not None and bool(there)
    is_of_home = is_of_home and all(home.resolve() in x.parents for x in there)
    if sorted(there) != here and not is_of_home:
        raise UserError(
            f"{path} is of other runs; move it away, or name another run first"
        )


def _summarise(average: Examples) -> dict[str, Any]:
    """Compute metrics as an evaluation does, of losses of `Examples`."""
    losses = average.compute_losses()
    if average.task is tasks.MULTILABEL:
        there, absent = np.moveaxis(average.log_probabilities, -1, 0)
        logits = (there - absent).astype(np.float32)
        return multilabel.summarise(logits, average.labels, losses, average.thresholds)
    sums = metrics.create_sums(len(average.class_names))
    for start in range(0, len(average.labels), _ROWS):
        rows = slice(start, start + _ROWS)
        logs = jnp.asarray(average.log_probabilities[rows], jnp.float32)
        labels = jnp.asarray(average.labels[rows])
        some = jnp.asarray(losses[rows], jnp.float32)
        more = metrics.compute_sums(logs, labels, some, jnp.ones(len(labels), bool))
        sums = metrics.add_sums(sums, more)
    return metrics.summarise(sums)


def _describe_member(
    task: tasks.Task, directory: str, result: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is said of a member: of its probabilities that were averaged."""
    names = ("checkpoint", "step", "averaged", "weights_sha256", "image_shape")
    names += (*(name for name, _ in task.shown), "loss")
    about = {"workdir": directory}
    if task is tasks.MULTICLASS:
        measured = result.get("calibrated", result["calibration"])
        bare = {name: x for name, x in measured.items() if name != "bins"}
        about |= {"temperature": result.get("temperature"), "calibration": bare}
    return about | {name: result[name] for name in names}
