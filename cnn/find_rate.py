"""Mode find_rate: at which learning rates the loss falls, and where it diverges.

A learning-rate range test: the run that the same command would train takes some steps
from its start, in its own compiled step, while the rate grows by the same factor each.
`find_rate.json` and `find_rate.png` are written and nothing else of a run is touched.

Source: Smith 2017, section 3.3, https://arxiv.org/abs/1506.01186
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from cnn import train
from cnn.checkpoints import atomic, workdir
from cnn.config import Config, FindRateOptions, Numbers
from cnn.errors import UserError
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.runtime.terminal import Terminal
from cnn.training import progress as training_progress
from cnn.training import report
from cnn.training.epoch import Pace
from cnn.training.progress import Progress
from cnn.training.setup import Setup
from cnn.visualize.draw import rate_range
from cnn.weights import preprocessing

# The rate is that of the test alone.
PLAIN = {"schedule": "constant", "warmup_epochs": 0.0}
# It has diverged where the mean of recent losses is this many times its lowest.
DIVERGED, RECENT = 4.0, 0.9
# The share of the steps that is the standard deviation of the smoothing.
SMOOTHING = 0.02


def find_rate(config: Config, directory: Path, terminal: Terminal) -> dict[str, Any]:
    """Try learning rates, draw the loss over them and suggest one.

    Args:
        directory: of the run; made if need be. A run in it stays as it is.

    Returns:
        What `find_rate.json` holds: `rates`, `losses` and `smoothed` [n], `steepest`,
        `lowest` and `suggestion` (see `suggest`), and whether it `diverged`.

    Raises:
        UserError: as training would; or the loss falls nowhere.
    """
    options = config.find_rate
    if options.find_rate_min >= options.find_rate_max:
        raise UserError(
            f"--find_rate_min={options.find_rate_min:g} is not below "
            f"--find_rate_max={options.find_rate_max:g}"
        )
    workdir.check_place(directory)
    config, stop = preprocessing.resolve(config, directory, terminal), Stop()
    setup = train.make_setup(config.change(PLAIN), {}, terminal, stop)
    report.announce(setup, terminal)
    rates = np.geomspace(
        options.find_rate_min, options.find_rate_max, options.find_rate_steps
    )
    with catch_signals(stop):
        losses = _try_rates(setup, rates, stop)
    found = suggest(rates, losses, options)
    directory.mkdir(parents=True, exist_ok=True)
    atomic.write_json(directory / "find_rate.json", found)
    drawn = rate_range.draw(found, directory / "find_rate.png")
    end = "diverges" if found["diverged"] else "is tried no further"
    terminal.say(
        f"the loss falls fastest at {found['steepest']:.2g}, is lowest at "
        f"{found['lowest']:.2g} and {end} at {found['rates'][-1]:.2g}"
    )
    terminal.say(
        f"a third of where it is lowest: --learning_rate={found['suggestion']:g}"
    )
    terminal.say_written(directory / "find_rate.json", drawn.path)
    return found


def _try_rates(setup: Setup, rates: np.ndarray, stop: Stop) -> np.ndarray:
    """Take a step at each rate until the loss diverges; float [n]."""
    losses: list[float] = []
    one = training_progress.begin(setup)
    while len(losses) < len(rates) and not has_diverged(losses):
        with contextlib.closing(_take_epoch(setup, one, rates, stop)) as taken:
            for _, step_metrics in taken:
                losses.append(float(step_metrics["loss"][0]))
                if len(losses) == len(rates) or has_diverged(losses):
                    break
        one.start_epoch()
    return np.array(losses)


def _take_epoch(setup: Setup, one: Progress, rates: np.ndarray, stop: Stop) -> Any:
    """Take the steps of an epoch, each at its rate, in calls of one step."""

    length = setup.structure.steps_per_epoch
    # Lookahead's decay grows with the share of the run: above 1 it would diverge.
    epochs = np.int32(max(setup.config.train.epochs, -(-len(rates) // length)))

    def choose(step: int) -> Numbers:
        rate = np.float32(rates[min(step, len(rates) - 1)])
        return dataclasses.replace(setup.numbers, learning_rate=rate, epochs=epochs)

    profiler = Profiler(ProfileOptions(), 0)
    return training_progress.take_epoch(
        setup, one, stop, Pace(), profiler, 1, choose_numbers=choose
    )


def has_diverged(losses: list[float]) -> bool:
    """Return whether the last loss is not finite, or recent ones are far too large."""
    if not losses:
        return False
    means, total, weight = [], 0.0, 0.0
    for loss in losses:
        total = RECENT * total + (1 - RECENT) * loss
        weight = RECENT * weight + (1 - RECENT)
        means.append(total / weight)
    return not means[-1] <= DIVERGED * min(means)


def suggest(
    rates: np.ndarray, losses: np.ndarray, options: FindRateOptions
) -> dict[str, Any]:
    """Find the rates at which the smoothed loss falls fastest and is lowest.

    The suggestion is a third of the latter, to two digits: from the lowest on the loss
    is about to diverge, and a run whose schedule lowers the rate gains from a high
    peak. Where it falls fastest, and at a tenth of the lowest, two other rules, runs
    ended with higher losses (docs/training.md).

    Args:
        rates: of the steps, [N].
        losses: of those that were taken, [n].

    Raises:
        UserError: the loss falls nowhere.
    """
    is_finite = np.isfinite(losses)
    kept = losses[: np.argmin(is_finite)] if not is_finite.all() else losses
    smoothed = _smooth(kept, SMOOTHING * len(rates))
    tried = rates[: len(kept)]
    best = int(np.argmin(smoothed)) if len(kept) else 0
    if best < 2:
        raise UserError(
            f"The loss does not fall at any rate from --find_rate_min="
            f"{options.find_rate_min:g} on; give a smaller one"
        )
    slopes = np.gradient(smoothed[: best + 1], np.log(tried[: best + 1]))
    return {
        "rates": tried.tolist(),
        "losses": kept.tolist(),
        "smoothed": smoothed.tolist(),
        "steepest": float(tried[np.argmin(slopes)]),
        "lowest": float(tried[best]),
        "suggestion": float(f"{tried[best] / 3:.1e}"),
        "diverged": has_diverged(list(losses)),
    }


def _smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Average over neighbours with a Gaussian of this standard deviation, in steps."""
    distance = np.arange(len(values))[:, None] - np.arange(len(values))
    weights = np.exp(-0.5 * (distance / width) ** 2)
    return weights @ values / weights.sum(axis=1)
