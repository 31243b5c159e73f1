"""The mean of what several models say of the same images.

Averaged are probabilities; of all members together float64 [N, K] is kept, their sum,
and of each its predictions [N]. Classes are numbered as the first member numbers them.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn.checkpoints import workdir
from cnn.data.names import show
from cnn.errors import UserError
from cnn.training import calibration, metrics

_ROWS = 2**16  # of the sums that are computed at a time


@dataclasses.dataclass(frozen=True)
class Examples:
    """Evaluated images, and what a model says of them.

    Attributes:
        class_names: K, of labels and columns.
        names: of the images [N], texts.
        stamps: of their contents [N]; None where unknown.
        labels: int [N].
        log_probabilities: float64 [N, K].
    """

    class_names: tuple[str, ...]
    names: np.ndarray
    stamps: np.ndarray | None
    labels: np.ndarray
    log_probabilities: np.ndarray


class Ensemble:
    """Averages members, one after the other."""

    def __init__(self) -> None:
        """Start without members."""
        self._first: Examples | None = None  # whose logarithms become those of sums
        self._predictions: list[np.ndarray] = []

    def add(self, name: str, member: Examples) -> None:
        """Add what a member says.

        Args:
            name: of the member, for errors.
            member: what it says; the arrays of the first one are written into.

        Raises:
            UserError: it was of other images or classes than the first one.
        """
        if self._first is None:
            self._first = member
            self._predictions.append(member.log_probabilities.argmax(axis=1))
            return
        order = _check_same(self._first, name, member)
        logs, total = member.log_probabilities[:, order], self._first.log_probabilities
        np.logaddexp(total, logs, out=total)
        self._predictions.append(logs.argmax(axis=1))

    def average(self) -> Examples:
        """Return the images with the mean probabilities of all members."""
        logs = self._first.log_probabilities - np.log(len(self._predictions))
        return dataclasses.replace(self._first, log_probabilities=logs)

    def compute_disagreement(self) -> float:
        """Average, over pairs of members, the share of images they do not agree on."""
        pairs = itertools.combinations(self._predictions, 2)
        return float(np.mean([np.mean(one != other) for one, other in pairs]))


def _check_same(first: Examples, name: str, member: Examples) -> np.ndarray:
    """Return the member's columns in the order of the first one's classes."""
    if sorted(first.class_names) != sorted(member.class_names):
        raise UserError(
            f"--ensemble: {name} knows the classes {show(member.class_names)}, and the "
            f"first run {show(first.class_names)}; give runs of the same classes"
        )
    place = {name: number for number, name in enumerate(member.class_names)}
    order = np.array([place[name] for name in first.class_names])
    pairs = [(first.names, member.names), (order[first.labels], member.labels)]
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
        results: what evaluation.json says of each member, by its directory.
    """
    found, first = _summarise(average), next(iter(results.values()))
    accuracies = [result["accuracy"] for result in results.values()]
    scores = calibration.compute_scores(average.log_probabilities, average.labels)
    names = ("dataset", "split", "whole_dataset", "dataset_fingerprint", "tta")
    return {
        "members": [_describe_member(*pair) for pair in results.items()],
        **{name: first[name] for name in names},
        "class_names": list(average.class_names),
        **found,
        "gain_over_best": found["accuracy"] - max(accuracies),
        "gain_over_mean": found["accuracy"] - float(np.mean(accuracies)),
        "disagreement": ensemble.compute_disagreement(),
        "calibration": calibration.summarise(scores),
    }


def check_own(path: Path, directories: Iterable[Path]) -> None:
    """Refuse to replace a file that holds the ensemble of other runs, or none.

    Args:
        path: of the ensemble.json, which may not be there yet.
        directories: of the runs.
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
    if sorted(there) != sorted(directory.resolve() for directory in directories):
        raise UserError(
            f"{path} is of other runs; move it away, or name another run first"
        )


def _summarise(average: Examples) -> dict[str, Any]:
    """Compute metrics as `metrics.summarise` does.

    Their `loss` is the mean negative log-probability of the true class.
    """
    sums = metrics.create_sums(len(average.class_names))
    for start in range(0, len(average.labels), _ROWS):
        rows = slice(start, start + _ROWS)
        logs = jnp.asarray(average.log_probabilities[rows], jnp.float32)
        labels = jnp.asarray(average.labels[rows])
        losses = -jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
        more = metrics.compute_sums(logs, labels, losses, jnp.ones(len(labels), bool))
        sums = metrics.add_sums(sums, more)
    return metrics.summarise(sums)


def _describe_member(directory: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a member: of its probabilities that were averaged."""
    measured = result.get("calibrated", result["calibration"])
    names = (
        "checkpoint",
        "step",
        "averaged",
        "image_shape",
        "accuracy",
        "top5",
        "loss",
    )
    return {
        "workdir": directory,
        "temperature": result.get("temperature"),
        **{name: result[name] for name in names},
        "calibration": {n: x for n, x in measured.items() if n != "bins"},
    }
