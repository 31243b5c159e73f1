"""Sharpness-aware minimisation: where in the weights' neighbourhood to differentiate.

A step takes the gradient of its batch twice: at the weights, and at those that
`perturb` returns. Of the first pass it keeps loss, metrics and running statistics; the
second gives the gradient that the optimizer gets.

Source: Foret et al. 2021 (SAM), https://arxiv.org/abs/2010.01412; Kwon et al. 2021
    (ASAM), https://arxiv.org/abs/2102.11600
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnn.config import Numbers
from cnn.models.variables import replace_leaves
from cnn.optim import freezing, paths
from cnn.optim.optimizer import Rule

_ETA = 0.01  # ASAM's, as its authors have it


def perturb(rule: Rule, numbers: Numbers, params: Any, gradients: Any) -> Any:
    """Move the weights that train uphill, by `sam_rho` all together.

    Args:
        rule: has the kind, `sam` or `asam`, and what trains.
        numbers: `sam_rho`.
        params: all parameters.
        gradients: of those that train, over the whole batch.

    Returns:
        All parameters, those that train at `w + rho · T² g / |T g|`: T is 1 in sam,
        and in asam `|w| + 0.01` but for biases, where it is 1.
    """
    trained = freezing.select_trained(rule.phase, params)

    def scale(path: Any, weight: jax.Array, gradient: jax.Array) -> jax.Array:
        name = paths.write_path(path)
        if rule.options.sam == "sam" or name.endswith("bias"):
            return gradient
        return (jnp.abs(weight) + _ETA) * gradient

    def move(path: Any, weight: jax.Array, scaled: jax.Array) -> jax.Array:
        return weight + step * scale(path, weight, scaled)

    scaled = jax.tree_util.tree_map_with_path(scale, trained, gradients)
    step = numbers.sam_rho / (optax.tree.norm(scaled) + 1e-12)
    near = jax.tree_util.tree_map_with_path(move, trained, scaled)
    return replace_leaves(params, near)
