"""The size of activations over a model's width, by layer, in its first steps."""

from pathlib import Path
from typing import Any

import numpy as np

from cnn.config import Config
from cnn.runtime.terminal import Terminal
from cnn.visualize.compute import coordinates
from cnn.visualize.compute.coordinates import Coordinates
from cnn.visualize.draw import picture
from cnn.visualize.draw.picture import Picture

_SHOWN = (0, 1, coordinates.STEPS)
_CAPTION = (
    "The mean absolute value of what each layer returns, over the width of the model, "
    "in training after some steps. To be seen: with mup no line rises, so that a step "
    "of one learning rate does as much at every width; the logits' line falls at first "
    "and gets level. With the standard parametrization lines part, and some rise, the "
    "more the later: there the best learning rate falls as the width grows."
)


def draw_described(config: Config, path: Path, terminal: Terminal) -> Picture:
    """Check the run that would be trained, draw it, and print the steepest slopes.

    Args:
        config: of the run.
        path: of the PNG.

    Raises:
        UserError: as `coordinates.check_coordinates`.
    """
    found = coordinates.check_coordinates(
        config, config.visualize.coordinate_widths, terminal
    )
    for name in coordinates.PARAMETRIZATIONS:
        slopes = found.fit_slopes(name, coordinates.STEPS)
        layer = max(slopes, key=lambda x: slopes[x])
        terminal.say(
            f"{name}: after {coordinates.STEPS} steps values grow with the width to "
            f"the power {slopes[layer]:.2f} ({layer}) at most"
        )
    return draw(found, path)


def draw(found: Coordinates, path: Path) -> Picture:
    """Draw a row of panels for each parametrization, a column for each step shown."""
    import matplotlib as mpl

    with picture.use_style():
        figure = picture.make_figure(8.4, 5.4)
        panels = figure.subplots(
            len(found.sizes), len(_SHOWN), sharex=True, sharey=True, squeeze=False
        )
        shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(found.layers)))
        for row, name in zip(panels, found.sizes, strict=True):
            for ax, step in zip(row, _SHOWN, strict=True):
                _draw_panel(ax, found, name, step, shades)
            row[0].set_ylabel("mean |x|")
        for ax in panels[-1]:
            ax.set_xlabel("--width_multiplier")
        handles, labels = panels[0][0].get_legend_handles_labels()
        # Of many layers the first, the middle one and the logits.
        kept = sorted({0, (len(labels) - 1) // 2, len(labels) - 2, len(labels) - 1})
        few = kept if len(labels) > 6 else range(len(labels))
        figure.legend(
            [handles[i] for i in few],
            [labels[i] for i in few],
            loc="outside lower center",
            ncols=4,
        )
        return picture.save(figure, path, "Coordinate check", _CAPTION)


def _draw_panel(
    ax: Any, found: Coordinates, name: str, step: int, shades: np.ndarray
) -> None:
    """Draw a line for each layer, on logarithmic axes."""
    widths = found.widths
    for number, layer in enumerate(found.layers):
        is_last = number == len(found.layers) - 1
        style = {"color": shades[number], "marker": "o", "linestyle": "-"}
        if is_last:
            style = {"color": "black", "marker": "s", "linestyle": "--"}
        values = found.sizes[name][step][number]
        label = f"{layer} (logits)" if is_last else layer
        ax.plot(widths, values, markersize=3.5, linewidth=1.3, label=label, **style)
    slopes = found.fit_slopes(name, step)
    steepest = max(slopes.values())
    ax.set_title(
        f"{name}, after {step} step{'' if step == 1 else 's'}: steepest {steepest:+.2f}"
    )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(widths, [f"{x:g}" for x in widths])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
