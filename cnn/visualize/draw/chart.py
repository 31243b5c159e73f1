"""Lines as numbers, from which the page draws a chart that its reader can change.

They lie as JSON beside the picture of the same lines, which stands where there is no
script; `page/chart.js` draws them.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import atomic
from cnn.visualize.compute import curves

_MOST_POINTS = 1000
SCALES = ("linear", "log", "share")


@dataclasses.dataclass(frozen=True)
class Panel:
    """Axes of a chart.

    Attributes:
        name: that lines give.
        label: of what is measured, with its unit.
        scale: `linear`, from 0; or, where the reader wants it, `log`; or `share`, of
            0..1, stretched towards 1 as by `curves.stretch`.
    """

    name: str
    label: str
    scale: str


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        panel: its name.
        group: what is shown or hidden together, such as a run; empty where there is
            one alone.
        name: of the line in its group.
        colour: as CSS has it.
        x: float [n], rising.
        y: float [n]; NaN interrupts the line.
        is_dashed: whether it is.
        is_thin: whether it is of single steps, or of a second metric.
    """

    panel: str
    group: str
    name: str
    colour: str
    x: np.ndarray
    y: np.ndarray
    is_dashed: bool = False
    is_thin: bool = False


def write(
    drawing: Path, panels: Sequence[Panel], lines: Sequence[Line], **names: str
) -> None:
    """Write the numbers of a picture beside it; of a long line some points alone.

    Args:
        drawing: the PNG of the same lines.
        panels: the axes, in their order.
        lines: what is drawn on them.
        **names: of the axis of x, `x`; of what groups are, `groups`, and lines in
            them, `names`.
    """
    described = {
        **names,
        "panels": [
            dataclasses.asdict(panel) | {"least": curves.LEAST_DOUBT}
            for panel in panels
        ],
        "lines": [_describe(line) for line in lines],
    }
    atomic.write_text(drawing.with_suffix(".json"), json.dumps(described))


def _describe(line: Line) -> dict[str, Any]:
    x, y = curves.thin_out((line.x, line.y), _MOST_POINTS)
    return {
        "panel": line.panel,
        "group": line.group,
        "name": line.name,
        "colour": "currentColor" if line.colour == "#000000" else line.colour,
        "dashed": line.is_dashed,
        "thin": line.is_thin,
        "x": [float(f"{value:.6g}") for value in x],
        "y": [float(f"{value:.6g}") if np.isfinite(value) else None for value in y],
    }
