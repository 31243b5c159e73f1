"""The slides again, from other numbers."""

import functools

import jax.numpy as jnp
import numpy as np

from cnn.ops import convolution, pooling, rearrange
from cnn.visualize.lecture import lines, slides


def _pool(x, kernel):
    y = convolution.conv2d(x, kernel)
    return y, pooling.max_pool2d(y, 3, 2)


def _shuffle(x, kernel):
    y = convolution.conv2d(x, kernel)
    return y, rearrange.space_to_depth(y, 2)


# What the slides that are drawn from their lines' results have of input and kernel.
COMPUTED = {
    "channels_1d": lambda *given: (convolution.conv1d(*given),),
    "layer_1d": lambda *given: (convolution.conv1d(*given),),
    "layer_2d": lambda *given: (convolution.conv2d(*given),),
    "convolution_max_pooling": _pool,
    "convolution_pixel_shuffle": _shuffle,
}

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
    if name in COMPUTED:
        shapes = [np.shape(each) for each in lines.LINES[name]()[:2]]
        given = [jnp.array(replace(np.zeros(shape)), jnp.float32) for shape in shapes]
        return make.args[0](*given, *COMPUTED[name](*given))
    return functools.partial(make.func, *map(replace, make.args))()


def list_all_texts(drawing):
    """List every text of a drawing, at whatever step it is seen, blank or not."""
    return [e.text for e in drawing._elements if e.tag == "text"]
