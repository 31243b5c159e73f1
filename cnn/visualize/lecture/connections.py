"""Connection diagrams: which input meets which output, and by which weight.

A layer of one dimension is a table [outputs, inputs] of its weights' numbers, found by
giving the operator its own numbering 1, 2, … as weights and looking at each input
alone; 0 is no connection.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cnn.ops import convolution, local
from cnn.visualize.lecture.svg import Drawing

_WIDTH, _PITCH, _TOP, _BOTTOM, _HEIGHT, _RADIUS = 560, 70, 70, 250, 334, 15
_MOST_COLOURS = 3


@dataclasses.dataclass(frozen=True)
class Layer:
    """How a layer connects a sequence of single channels with its outputs.

    Attributes:
        name: what it is called.
        weights: int [outputs, inputs], the number of the weight of each connection,
            from 1; 0 where there is none.
    """

    name: str
    weights: np.ndarray

    @property
    def num_connections(self) -> int:
        """Return how many products one evaluation takes."""
        return int(np.count_nonzero(self.weights))

    @property
    def num_weights(self) -> int:
        """Return how many numbers are learnt."""
        return len(np.unique(self.weights[self.weights > 0]))


def find_layers(length: int = 6, size: int = 3) -> list[Layer]:
    """Find the connections of the lecture's three layers between the same two rows.

    Args:
        length: of the input.
        size: of the window of the local layers.

    Returns:
        The dense, the locally connected and the convolutional layer, all of which
        have length − size + 1 outputs.
    """
    outputs = length - (size - 1)
    operators = {
        "Dense layer": (lambda x, w: x[..., 0] @ w, (length, outputs)),
        "Locally connected layer": (
            lambda x, w: local.locally_connected1d(x, w)[..., 0],
            (outputs, size, 1, 1),
        ),
        "Convolutional layer": (
            lambda x, w: convolution.conv1d(x, w)[..., 0],
            (size, 1, 1),
        ),
    }
    layers, each_alone = [], jnp.eye(length)[:, :, None]
    for name, (operator, shape) in operators.items():
        numbers = jnp.arange(1.0, 1 + np.prod(shape)).reshape(shape)
        weights = np.asarray(operator(each_alone, numbers)).T
        layers.append(Layer(name, np.rint(weights).astype(int)))
    return layers


def draw(layer: Layer) -> Drawing:
    """Draw a layer: inputs below, outputs above, a line for each connection.

    Weights that are used more than once have a colour and dashes of their own.
    """
    outputs, inputs = layer.weights.shape
    title = (
        f"{layer.name}: {layer.num_connections} connections, "
        f"{layer.num_weights} weights"
    )
    drawing = Drawing(_WIDTH, _HEIGHT, title)
    drawing.text(16, 24, title, "title")
    below, above = _spread(inputs), _spread(outputs)
    drawing.text(16, _TOP, "outputs", "left small")
    drawing.text(16, _BOTTOM, "inputs", "left small")
    for (output, place), number in np.ndenumerate(layer.weights):
        if number:
            ends = (below[place], _BOTTOM, above[output], _TOP)
            drawing.line(*ends, _choose_style(layer, number))
    for x in above:
        drawing.circle(x, _TOP, _RADIUS, "unit")
    for x in below:
        drawing.circle(x, _BOTTOM, _RADIUS, "unit")
    _explain(drawing, layer)
    return drawing


def _spread(count: int) -> list[float]:
    first = 110 + (_WIDTH - 150 - _PITCH * (count - 1)) / 2
    return [first + _PITCH * place for place in range(count)]


def _is_shared(layer: Layer) -> bool:
    return layer.num_weights < layer.num_connections


def _choose_style(layer: Layer, number: int) -> str:
    return f"weight{(number - 1) % _MOST_COLOURS}" if _is_shared(layer) else "own"


def _explain(drawing: Drawing, layer: Layer) -> None:
    """Write below which lines share a weight."""
    y = _HEIGHT - 32
    if not _is_shared(layer):
        drawing.text(16, y, "each line has a weight of its own", "left small")
        return
    drawing.text(16, y, "lines alike share a weight:", "left small")
    for number in range(1, layer.num_weights + 1):
        x = 120 + 90 * number
        drawing.line(x, y, x + 40, y, _choose_style(layer, number))
        drawing.text(x + 48, y, f"w{number}", "left small")
