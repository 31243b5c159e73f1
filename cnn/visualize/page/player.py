"""Drawings that a reader plays, steps through and computes from numbers of their own.

A page has `read_style()` and, below its drawings, `read_script()` once, and what
`embed` returns for each drawing. Nothing is asked for. Without the script, in print,
and where motion is not wanted, a drawing rests on its last step.
"""

import functools
from pathlib import Path

from cnn.visualize.lecture import sheet, svg
from cnn.visualize.lecture.svg import Drawing
from cnn.visualize.page import template

_FOLDER = Path(__file__).parent


def embed(drawing: Drawing) -> str:
    """Write a drawing of more than one step as a part of a page, with its buttons.

    The numbers that the drawing offers get a form; see `lecture.sheet`.

    Raises:
        UserError: jinja2 is not installed.
    """
    places = drawing.sort_numbers()
    return template.fill(
        "player.html.jinja",
        "A page",
        drawing=drawing,
        picture=drawing.to_inline(places),
        numbers=sheet.describe(places),
        seconds=svg.SECONDS_PER_STEP,
        rest=svg.RESTING_STEPS,
    )


@functools.cache
def read_style() -> str:
    """Read how drawings and buttons look, without effect on the rest of a page."""
    drawn = [f".player {rule}" for rule in svg.STYLE.strip().splitlines()]
    return "\n".join([*drawn, (_FOLDER / "player.css").read_text("utf-8")])


@functools.cache
def read_script() -> str:
    """Read what finds the drawings of a page and makes them play."""
    return (_FOLDER / "player.js").read_text("utf-8")
