"""Muon: steps along the nearest orthogonal matrix to a kernel's momentum.

A kernel [..., O] is a matrix of its inputs by its outputs; that of a locally connected
layer is such a matrix at each place. Two versions: optax's with AdamW for vectors, and
the speedrun's for convolutions alone, with SGD for the rest. A leaf's name says whether
it is a kernel (`variables.is_kernel`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from cnn.config import Numbers
from cnn.models.variables import is_kernel
from cnn.optim import paths
from cnn.optim.options import OptimizerOptions

_QUINTIC = (3.4445, -4.7750, 2.0315)
_SPEEDRUN_STEPS = 3


def make_muon_adamw(
    options: OptimizerOptions, learning_rate: jax.Array, numbers: Numbers
) -> optax.GradientTransformation:
    """Make Muon for kernels, each a matrix of its inputs by its outputs, else AdamW.

    As optax has it, moments are bias-corrected and `nesterov` holds for AdamW too.
    Updates have AdamW's root mean square (0.2), so that one learning rate serves both.
    The decay is decoupled, times the learning rate; `epsilon` is AdamW's, and added to
    a matrix's norm.

    Source: Liu et al. 2025, https://arxiv.org/abs/2502.16982
    """
    momentum = numbers.momentum
    decay = 0.0 if numbers.weight_decay is None else numbers.weight_decay
    return optax.contrib.muon(
        learning_rate,
        beta=0.0 if momentum is None else momentum,
        nesterov=options.nesterov and momentum is not None,
        eps=numbers.epsilon,
        weight_decay=decay,
        adam_b1=numbers.adam_beta1,
        adam_b2=numbers.adam_beta2,
        adam_weight_decay=decay if options.decay_norms else 0.0,
        muon_weight_dimension_numbers=_kernel_dimensions,
        consistent_rms=0.2,
    )


def make_muon_sgd(
    muon_rate: jax.Array,
    muon_momentum: jax.Array,
    nesterov: bool,
    others: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Make Muon for kernels of convolutions, and another rule for the rest.

    Args:
        muon_rate: float32 [], length of the orthogonal step.
        others: rule of all other parameters, its learning rate in it.

    Source: airbench94_muon.py of github.com/KellerJordan/cifar10-airbench
    """
    rules = {
        "muon": step_orthogonally(muon_rate, muon_momentum, nesterov),
        "others": others,
    }

    def name_rule(path: Any, leaf: jax.Array) -> str:
        return "muon" if is_stepped(paths.write_path(path), leaf) else "others"

    return optax.partition(
        rules, functools.partial(jax.tree_util.tree_map_with_path, name_rule)
    )


def is_stepped(path: str, leaf: Any) -> bool:
    """Say whether muon_sgd's Muon trains a parameter: a convolution's kernel.

    Kernels of dense layers [I, O] and of locally connected ones, which have a matrix
    at each place, are not: the rule's norm sqrt(O) is that of one matrix.
    """
    return is_kernel(path) and leaf.ndim == 4


def step_orthogonally(
    rate: jax.Array, momentum: jax.Array, nesterov: bool
) -> optax.GradientTransformation:
    """Bring each kernel to the norm sqrt(O), then step along its momentum's matrix.

    Returns:
        A transformation whose updates are to be added; it has no weight decay, as the
        norm is fixed.
    """
    trace = optax.trace(momentum, nesterov=nesterov)

    def step(direction: jax.Array, kernel: jax.Array) -> jax.Array:
        outputs = kernel.shape[-1]
        matrix = orthogonalise(direction.reshape(-1, outputs)).reshape(kernel.shape)
        norm = jnp.maximum(jnp.linalg.norm(kernel.ravel()), 1e-7)
        return (outputs**0.5 / norm - 1) * kernel - rate * matrix

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        directions, state = trace.update(updates, state, params)
        return jax.tree.map(step, directions, params), state

    return optax.GradientTransformation(trace.init, update)


def orthogonalise(matrix: jax.Array) -> jax.Array:
    """Bring all singular values of a matrix near 1 (0.5 to 1.5), by three products.

    Args:
        matrix: float32 [I, O].

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (jnp.linalg.norm(x) + 1e-7)
    one, three, five = _QUINTIC
    for _ in range(_SPEEDRUN_STEPS):
        square = x @ x.T
        x = one * x + (three * square + five * square @ square) @ x
    return x.T if is_tall else x


def _kernel_dimensions(params: Any) -> Any:
    """Say which axes of each kernel are inputs and which outputs; None: a vector."""

    def dimensions(
        leaf: jax.Array, is_kernel: bool
    ) -> optax.contrib.MuonDimensionNumbers | None:
        if not is_kernel:
            return None
        inputs = paths.list_input_axes(leaf)
        return optax.contrib.MuonDimensionNumbers(inputs, (leaf.ndim - 1,))

    return jax.tree.map(dimensions, params, paths.mark_kernels(params))
