"""What a checkpoint knows of a run besides arrays."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn.config import Config
from cnn.optim import plateau
from cnn.optim.plateau import Plateau
from cnn.training import noise_scale
from cnn.training.options import TrainOptions


@dataclasses.dataclass
class Counters:
    """What a checkpoint knows besides arrays, so that a run can be resumed exactly.

    Attributes:
        evaluated_step: the step of the last line of an epoch in metrics.jsonl; -1
            before the first.
        best_step: the step of the best validation metric; -1 without any.
        best_value: that metric.
        best_loss: the validation loss there, which decides between equal metrics;
            None where an earlier version has not noted it.
        best_epoch: its epoch.
        improved_epoch: the last epoch that was better by the metric itself, from which
            early stopping counts; None as before.
        stopped_early: whether early stopping has ended the run.
        metrics_bytes: length of metrics.jsonl.
        seconds: time spent in the run, loading and compilation included.
        train_seconds: time spent in training steps alone.
        epoch_seconds: that of the current epoch.
        gradient_square: sum over the current epoch's steps, where the noise scale is
            logged, of the estimates of `noise_scale`.
        gradient_variance: likewise.
        plateau: of `--schedule=plateau`, from its first evaluation on; else None.
        trunk_step: the step of the last checkpoint before the decay of
            `--schedule=stable_then_decay`, which `--extend` takes; -1 before it.
        trunk_best_step: what `best_step` was then.
        loss_sum: of the running mean of losses, where `--blame_above` asks for it.
        loss_weight: likewise; their quotient is the mean.
    """

    evaluated_step: int = -1
    best_step: int = -1
    best_value: float = 0.0
    best_loss: float | None = None
    best_epoch: int = 0
    improved_epoch: int | None = None
    stopped_early: bool = False
    metrics_bytes: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    epoch_seconds: float = 0.0
    gradient_square: float = 0.0
    gradient_variance: float = 0.0
    plateau: Plateau | None = None
    trunk_step: int = -1
    trunk_best_step: int = -1
    loss_sum: float = 0.0
    loss_weight: float = 0.0

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """Return the steps of the checkpoints that stay beside the newest ones."""
        return self.best_step, self.trunk_step, self.trunk_best_step

    def note_trunk(self, step: int) -> None:
        """Remember the checkpoint of a step as the trunk's."""
        self.trunk_step, self.trunk_best_step = step, self.best_step

    def note_noise(self, step_metrics: Mapping[str, np.ndarray]) -> None:
        """Add what the steps of a call estimate for the noise scale, if anything."""
        for name in noise_scale.NAMES:
            # One by one: an epoch's sum is the same however it is divided into calls.
            for value in step_metrics.get(name, ()):
                setattr(self, name, getattr(self, name) + float(value))

    def note_plateau(self, config: Config, found: Mapping[str, Any]) -> None:
        """Let the metrics of the validation set after an epoch lower the rate.

        Where the schedule is no plateau, nothing is done.
        """
        if config.schedule.schedule == "plateau":
            name, before = config.train.select_by, self.plateau or Plateau()
            self.plateau = plateau.note(
                config.schedule, before, float(found[name]), is_loss=name == "loss"
            )

    def note_best(
        self, options: TrainOptions, step: int, epoch: int, found: Mapping[str, Any]
    ) -> None:
        """Remember the best epoch by validation, and stop when it is long ago.

        Of equal metrics the one with the lower loss is the best, and the first of those
        with equal losses. Early stopping counts from the last better metric alone.
        A metric that is not finite is never the best, nor better than any.

        Args:
            options: what selects, and the patience.
            step: the number of steps taken.
            epoch: that of epochs.
            found: the metrics of the validation set.
        """
        value = found[options.select_by]
        sign = -1 if options.select_by == "loss" else 1
        has_best = self.best_step >= 0 and math.isfinite(self.best_value)
        is_better = math.isfinite(value) and (
            not has_best or sign * value > sign * self.best_value
        )
        is_lower = self.best_loss is not None and found["loss"] < self.best_loss
        if self.improved_epoch is None or is_better:
            self.improved_epoch = epoch if is_better else self.best_epoch
        if is_better or (value == self.best_value and is_lower):
            self.best_step, self.best_value, self.best_epoch = step, value, epoch
            self.best_loss = found["loss"]
        patience = options.early_stop_epochs
        self.stopped_early = bool(patience) and epoch - self.improved_epoch >= patience
