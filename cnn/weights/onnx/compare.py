"""The logits of what was written from a graph beside the model's own."""

from collections.abc import Callable

import jax
import numpy as np

from cnn.errors import UserError
from cnn.training import steps
from cnn.training.trained import Trained
from cnn.weights.onnx.trace import make_structure


def check_logits(
    trained: Trained,
    compute: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
    who: str,
) -> float:
    """Compare another's logits with ours, for one image and for three.

    Args:
        compute: the other's logits [N, K] of uint8 images [N, H, W, C].
        tolerance: the largest difference that rounding explains, as is returned.
        who: computes them, for the message.

    Returns:
        The largest difference over the largest logit.

    Raises:
        UserError: it is more than rounding explains, or there is no number.
    """
    structure, differences = make_structure(trained), []
    predict = jax.jit(steps.predict_step, static_argnums=0)
    for count in (1, 3):
        shape = (count, *trained.image_shape)
        pixels = np.random.default_rng(count).integers(0, 256, shape, np.uint8)
        wanted = np.asarray(predict(structure, trained.variables, pixels))
        difference = np.abs(compute(pixels) - wanted).max()
        differences.append(difference / (np.abs(wanted).max() or 1))
    worst = float(np.max(differences))  # NaN if one is
    if not worst <= tolerance:
        raise UserError(
            f"{who} gives other logits (by {worst:.1e} of the largest), so the file "
            "was not written. Please report model and versions"
        )
    return worst
