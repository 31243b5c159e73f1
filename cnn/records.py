"""What a run remembers of itself besides arrays, and what it concludes from it."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cnn.train import TrainOptions

REMEDY = "Lower --learning_rate, or add --warmup_epochs=1 or --clip_norm=1"


@dataclasses.dataclass
class Records:
    """What a checkpoint knows besides arrays, so that a run can go on exactly.

    Attributes:
        evaluated_step: the step of the last line of an epoch in metrics.jsonl; -1
            before the first.
        best_step: the step of the best validation metric; -1 without any.
        best_value: that metric.
        best_epoch: its epoch.
        stopped_early: whether early stopping has ended the run.
        metrics_bytes: length of metrics.jsonl.
        seconds: time spent in the run, loading and compilation included.
        train_seconds: time spent in training steps alone.
        epoch_seconds: that of the current epoch.
    """

    evaluated_step: int = -1
    best_step: int = -1
    best_value: float = 0.0
    best_epoch: int = 0
    stopped_early: bool = False
    metrics_bytes: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    epoch_seconds: float = 0.0


def find_bad_step(records: Mapping[str, np.ndarray], before: int) -> int | None:
    """Find the first step whose loss or gradient is not finite.

    Args:
        records: `loss` and `gradient_norm`, [n].
        before: the number of steps taken before them.

    Returns:
        Its number, from 1; None when all are finite.
    """
    bad = ~(np.isfinite(records["loss"]) & np.isfinite(records["gradient_norm"]))
    return before + int(np.argmax(bad)) + 1 if bad.any() else None


def note_best(
    records: Records,
    options: "TrainOptions",
    step: int,
    epoch: int,
    found: Mapping[str, Any],
) -> None:
    """Remember the best epoch by validation, and stop when it is long ago.

    Args:
        records: brought up to date.
        options: what selects, and the patience.
        step: the number of steps taken.
        epoch: that of epochs.
        found: the metrics of the validation set.
    """
    value = found[options.select_by]
    sign = -1 if options.select_by == "loss" else 1
    if records.best_step < 0 or sign * value > sign * records.best_value:
        records.best_step, records.best_value = step, value
        records.best_epoch = epoch
    patience = options.early_stop_epochs
    records.stopped_early = bool(patience) and epoch - records.best_epoch >= patience
