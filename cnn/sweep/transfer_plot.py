"""Whether the best learning rate keeps as a model gets wider: a picture of a sweep."""

import itertools
from collections.abc import Sequence
from typing import Any

from cnn.sweep.table import Row, rank_settings
from cnn.visualize.draw import picture

# What a sweep must vary.
AXES = {"width_multiplier", "learning_rate"}
# The metric by learning rate, by width, by parametrization.
Curves = dict[str, dict[float, dict[float, float]]]


def find_curves(rows: Sequence[Row], select_by: str) -> Curves:
    """Find the best mean over seeds at each width and learning rate.

    Args:
        rows: of trials that have finished.
        select_by: the validation metric.

    Returns:
        Under the name "" where the parametrization does not vary; the first learning
        rate of each width is its best one.
    """
    found: Curves = {}
    for row in rank_settings(rows, select_by):  # the best first
        options = row["options"]
        widths = found.setdefault(options.get("parametrization", ""), {})
        means = widths.setdefault(options["width_multiplier"], {})
        means.setdefault(options["learning_rate"], row["mean"])
    return found


def draw(axes: Any, rows: Sequence[Row], select_by: str) -> None:
    """Draw the metric over the learning rate, a line for each width; best ones ringed.

    A panel shows each parametrization; lines are means over seeds.
    """
    figure, found = axes.figure, find_curves(rows, select_by)
    axes.remove()
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for ax, (name, widths) in zip(
        panels, sorted(found.items(), reverse=True), strict=True
    ):
        looks = zip(itertools.cycle(picture.COLOURS), itertools.cycle(picture.MARKERS))
        for width, (colour, marker) in zip(sorted(widths), looks, strict=False):
            means = widths[width]
            best, rates = next(iter(means)), sorted(means)
            style = {"color": colour, "marker": marker, "linewidth": 1.2}
            label = f"width {width:g}, best at {best:.2g}"
            values = [means[rate] for rate in rates]
            ax.plot(rates, values, markersize=3.5, label=label, **style)
            ring = {"markersize": 13, "fillstyle": "none", "linestyle": ""}
            ax.plot([best], [means[best]], **style | ring | {"marker": "o"})
        ax.set_title(f"{name or 'each width'}: rings are the best rates")
        ax.set_xscale("log")
        if select_by == "loss":
            ax.set_yscale("log")
        ax.set_xlabel("learning_rate")
        ax.legend(loc="upper center", fontsize=7)
        ax.grid(alpha=0.3)
    panels[0].set_ylabel(f"validation {select_by}".replace("_", " "))
