"""The slides again, from other numbers."""

import functools

import numpy as np

from cnn.visualize.lecture import slides

# The slides whose numbers a reader may replace; the others have buttons alone.
NUMBERED = [name for name, (make, _) in slides.SLIDES.items() if make().tables]


def redraw(name, seed=0):
    """Draw a slide from other numbers of equal shapes: quarters within ±5.

    Their sums and products are exact in float32 and in float64, and hold ties of two
    decimals.
    """
    random = np.random.default_rng(seed)

    def replace(value):
        if isinstance(value, int | str):
            return value
        return random.integers(-20, 21, np.shape(value)) / 4

    make = slides.SLIDES[name][0]
    return functools.partial(make.func, *map(replace, make.args))()


def list_all_texts(drawing):
    """List every text of a drawing, at whatever step it is seen, blank or not."""
    return [e.text for e in drawing._elements if e.tag == "text"]
