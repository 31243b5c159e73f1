"""Runs that differ in some flags, over seeds: their results, a table and a plot."""

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import special

ROOT = Path(__file__).parent.parent


def train(flags: Sequence[str], workdir: Path) -> dict[str, Any]:
    """Train a run, unless it was done, and return its result."""
    result = workdir / "result.json"
    if not result.exists():
        command = [sys.executable, "main.py", f"--workdir={workdir.absolute()}", *flags]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def find_interval(values: Sequence[float]) -> float:
    """Return half of the 95 % interval of a mean, by Student's t; 0 of one value."""
    count = len(values)
    if count < 2:
        return 0.0
    quantile = float(special.stdtrit(count - 1, 0.975))
    return quantile * statistics.stdev(values) / math.sqrt(count)


def draw(
    found: Mapping[str, Sequence[float]], first: str, title: str, path: Path
) -> None:
    """Plot the accuracy of every variant: a point a seed, a line at their mean.

    Args:
        found: accuracies in percent.
        first: the variant that the others are compared with.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 + 0.4 * len(found)), layout="constrained")
    axes = figure.subplots()
    names = list(found)[::-1]
    for place, name in enumerate(names):
        values = found[name]
        axes.plot(values, [place] * len(values), "o", color="#0072b2", alpha=0.7)
        mean = statistics.mean(values)
        axes.plot([mean, mean], [place - 0.3, place + 0.3], color="#d55e00", lw=2)
    axes.axvline(statistics.mean(found[first]), color="0.6", lw=1, ls="--")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"test accuracy, % (points: seeds; bar: mean; dashed: {first})")
    axes.set_title(title)
    figure.savefig(path, dpi=120)
