"""Steps at which training stops: a loss that is not finite, or far above the others."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cnn.config import Config
from cnn.errors import UserError
from cnn.place import COMMAND
from cnn.text import quote
from cnn.training.counters import Counters
from cnn.training.progress import Progress, find_bad_step
from cnn.training.setup import Setup

# Of the mean of losses, the share that a step leaves of what was before it.
RECENT = 0.98


class StepError(UserError):
    """A step at which training stops, which a replay looks into.

    Attributes:
        step: its number, from 1.
        what: what is wrong with it, and the remedy.
    """

    def __init__(self, what: str, directory: Path, step: int) -> None:
        """Say what is wrong, and which command replays the step of a run."""
        super().__init__(f"{what}. {_suggest_replay(directory, step)}")
        self.what, self.step = what, step


def check(
    setup: Setup,
    progress: Progress,
    step_metrics: Mapping[str, np.ndarray],
    directory: Path,
) -> None:
    """Stop training at the first of some steps that is not as it should be.

    Args:
        progress: after them.
        step_metrics: `loss` and `gradient_norm` of each, [n].
        directory: of the run.

    Raises:
        StepError: a loss or gradient is not finite, or above --blame_above.
    """
    config, losses = setup.config, step_metrics["loss"]
    before = progress.step - len(losses)
    bad_step = find_bad_step(step_metrics, before)
    factor = config.train.blame_above
    if factor:
        fine = losses[: bad_step - before - 1] if bad_step else losses
        place = note_losses(progress.counters, fine, factor)
        if place is not None:
            mean = progress.counters.loss_sum / progress.counters.loss_weight
            raise StepError(
                f"The loss of step {before + place + 1}, {losses[place]:.4g}, is above "
                f"--blame_above={factor:g} times its running mean of {mean:.4g}. "
                "Training stops; checkpoints from before it are whole, and "
                "--blame_above=0 resumes from them and goes on",
                directory,
                before + place + 1,
            )
    if bad_step:
        raise StepError(
            f"The loss or its gradient is not finite at step {bad_step}. Training "
            f"stops; checkpoints from before it are whole. {suggest_remedy(config)}",
            directory,
            bad_step,
        )


def note_losses(counters: Counters, losses: np.ndarray, factor: float) -> int | None:
    """Add losses to their running mean, up to the first that is far above it.

    The mean is exponential: each step leaves `RECENT` of what was before it, about the
    last fifty count, and the first steps are averaged as far as there are any.

    Args:
        losses: of the steps, float32 [n].
        factor: how many times the mean before it a loss may be.

    Returns:
        The place of that one, which is not added; None when there is none.
    """
    for place, loss in enumerate(map(float, losses)):
        if counters.loss_weight:
            if loss > factor * counters.loss_sum / counters.loss_weight:
                return place
        # One by one: the mean is the same however steps are divided into calls.
        counters.loss_sum = RECENT * counters.loss_sum + (1 - RECENT) * loss
        counters.loss_weight = RECENT * counters.loss_weight + (1 - RECENT)
    return None


def make_update_error(config: Config, directory: Path, step: int) -> StepError:
    """Make the error of a step whose update is not finite."""
    return StepError(
        f"The update of step {step} is not finite and is not saved; checkpoints from "
        f"before it are whole. {suggest_remedy(config)}",
        directory,
        step,
    )


def suggest_remedy(config: Config) -> str:
    """Write what may keep a run's numbers finite, of what it does not do already."""
    schedule, parts = config.schedule, []
    if config.optimizer.learning_rate:
        parts.append("lower --learning_rate")
    if not schedule.warmup_epochs and schedule.schedule != "one_cycle":
        parts.append("add --warmup_epochs=1")
    if not config.optimizer.clip_norm:
        parts.append("add --clip_norm=1")
    if config.device.precision != "float32":
        parts.append("leave --precision out")
    if config.distillation.distillation_temperature < 1:
        parts.append("raise --distillation_temperature")
    if config.data.std and min(config.data.std) < 1e-3:
        parts.append("check --std, which pixels are divided by")
    text = ", or ".join(parts or ["change what makes numbers large"])
    return text[0].upper() + text[1:]


def _suggest_replay(directory: Path, step: int) -> str:
    """Write the command that shows what a step saw, and where it went wrong."""
    where = quote(f"--workdir={directory}")
    return (
        f"To see its batch, and the layer in which it begins: {COMMAND} "
        f"--mode=replay {where} --step={step}"
    )
