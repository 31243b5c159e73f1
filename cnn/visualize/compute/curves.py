"""How a run went: the lines of metrics.jsonl as series over epochs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.config import make_config
from cnn.errors import UserError
from cnn.optim.optimizer import Rule, compute_learning_rate
from cnn.optim.schedules import Clock
from cnn.runtime import own_files

LEAST_DOUBT = 0.001  # of an accuracy of 1, on an axis that is stretched towards 1
_MOST = 2**53  # numbers of JSON that are larger are no counts
Series = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class History:
    """The numbers of a metrics.jsonl.

    Attributes:
        series: by name (`train_loss`, `validation_accuracy`, `images_per_second`, …)
            steps, int [n], and values, float [n].
        steps_per_epoch: how many steps make an epoch; 0 before the first has ended.
        num_damaged: lines that could not be read.
    """

    series: dict[str, Series]
    steps_per_epoch: int
    num_damaged: int


def read_history(directory: Path) -> History:
    """Read the metrics.jsonl of a run.

    Raises:
        UserError: there is none, or no line of it can be read.
    """
    path = directory / "metrics.jsonl"
    try:
        texts = own_files.read(path).decode(errors="replace").splitlines()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); only training writes it"
        ) from None
    lines = [line for text in texts if (line := _read_line(text)) is not None]
    if not lines:
        raise UserError(f"{path} holds no line of metrics; train the run first")
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and _is_number(value):
                found.setdefault(name, []).append((line["step"], value))
    series = {}
    for name, points in found.items():
        steps, values = zip(*points, strict=True)
        series[name] = np.array(steps), np.array(values, float)
    epochs = [x["step"] // x["epoch"] for x in lines if _is_count(x.get("epoch"))]
    return History(series, epochs[-1] if epochs else 0, len(texts) - len(lines))


def compute_learning_rates(
    stored: Mapping[str, Any], steps_per_epoch: int, steps: np.ndarray
) -> np.ndarray:
    """Compute the learning rates that a run's schedule gives.

    Args:
        stored: the run's options by flag name, as `config.json` has them.
        steps_per_epoch: the length of an epoch.
        steps: int [n].

    Returns:
        float32 [n].

    Raises:
        UserError: an option is unknown, or of another type.
    """
    config = make_config(stored)
    static, numbers = config.make_static(), config.make_numbers()
    rule = Rule(static.optimizer, static.schedule)

    def compute(step: jax.Array) -> jax.Array:
        clock = Clock(step, steps_per_epoch)
        return compute_learning_rate(rule, clock, numbers, config.step.batch_size)

    rates = jax.jit(jax.vmap(compute))(jnp.asarray(steps, jnp.int32))
    return np.broadcast_to(np.asarray(rates, np.float32), np.shape(steps))


def find_rate_factors(history: History, steps: np.ndarray) -> np.ndarray:
    """Return what a plateau multiplied the rates of steps by; 1 without one.

    Args:
        steps: int [n].
    """
    ends, factors = history.series.get("rate_factor", (np.zeros(0), np.zeros(0)))
    places = np.searchsorted(ends, steps, side="right")
    return np.concatenate([[1.0], factors])[places]


def stretch(shares: np.ndarray) -> np.ndarray:
    """Map shares, 0..1, so that differences near 1 are as far apart as others.

    90, 99 and 99.9 % lie nearly one apart, and 1 itself at 3.
    """
    return -np.log10(1 - np.minimum(shares, 1) + LEAST_DOUBT)


def unstretch(places: np.ndarray) -> np.ndarray:
    """Map back what `stretch` returns."""
    return 1 + LEAST_DOUBT - 10.0 ** -np.asarray(places)


def thin_out(series: Series, most: int) -> Series:
    """Leave out points of a series that has more than so many, evenly."""
    steps, values = series
    kept = np.unique(np.linspace(0, len(steps) - 1, most).astype(int))
    return (steps, values) if len(steps) <= most else (steps[kept], values[kept])


def _read_line(text: str) -> dict[str, Any] | None:
    """Read one line; None for one that is damaged."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_line = isinstance(line, dict) and _is_count(line.get("step"), 0)
    return line if is_line else None


def _is_count(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value < _MOST


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, float) or abs(value) < _MOST)
