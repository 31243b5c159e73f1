"""The loss over the learning rate, as of a range test, with the suggestion marked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture


def draw(found: Mapping[str, Any], path: Path) -> Picture:
    """Draw what `find_rate` has found.

    Args:
        found: as `cnn.find_rate.find_rate` returns it.
        path: of the PNG.
    """
    rates, smoothed = np.array(found["rates"]), np.array(found["smoothed"])
    colours = picture.COLOURS
    with picture.use_style():
        figure = picture.make_figure(7.2, 4.4)
        ax = figure.subplots()
        ax.plot(rates, found["losses"], color=colours[0], linewidth=0.6, alpha=0.5)
        ax.plot(rates, smoothed, color=colours[0], linewidth=2, label="smoothed loss")
        for place, (name, text) in enumerate(
            (
                ("suggestion", "suggestion: a third of the lowest"),
                ("steepest", "falls fastest"),
                ("lowest", "lowest"),
            )
        ):
            rate = found[name]
            height = np.interp(np.log(rate), np.log(rates), smoothed)
            style = {"color": colours[place + 1], "marker": picture.MARKERS[place]}
            label = f"{text}, {rate:.2g}"
            ax.plot([rate], [height], linestyle="", markersize=8, label=label, **style)
        ax.axvline(found["suggestion"], color=colours[1], linewidth=1, linestyle="--")
        ax.set_xscale("log")
        ax.set_xlabel("--learning_rate")
        ax.set_ylabel("training loss of a step (nats)")
        # Far above its start the loss diverges, which needs no room.
        low, spread = min(found["losses"]), smoothed[0] - smoothed.min()
        high = min(max(found["losses"]), smoothed[0] + 0.7 * spread)
        ax.set_ylim(low - 0.1 * spread, high + 0.1 * spread)
        ax.grid(alpha=0.3)
        ax.legend(loc="lower left")
        title = "Learning-rate range test"
        return picture.save(figure, path, title, "The loss while the rate grows.")
