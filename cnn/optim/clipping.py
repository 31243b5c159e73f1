"""Clipping: how long a gradient may be; at most one of three limits, each traced.

Gradients are those of the whole batch, of the parameters that train.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnn.config import Numbers
from cnn.errors import UserError
from cnn.models.variables import is_kernel
from cnn.optim import paths
from cnn.optim.freezing import Phase
from cnn.optim.options import OptimizerOptions

_FLAGS = ("clip_norm", "clip_value", "clip_adaptive")
_SMALLEST_WEIGHT = 1e-3
_SMALLEST_GRADIENT = 1e-6
HEAD = "head"


def check(options: OptimizerOptions) -> None:
    """Refuse several limits at once.

    Raises:
        UserError: naming the flags.
    """
    given = {name: getattr(options, name) for name in _FLAGS if getattr(options, name)}
    shown = " and ".join(f"--{name}={value:g}" for name, value in given.items())
    if len(given) > 1:
        raise UserError(f"{shown} are limits of one gradient: give one of them")
    if given and options.decoupled_rates:  # gradients are times their rates by then
        raise UserError(
            f"--{next(iter(given))} and --decoupled_rates do not go together"
        )


def check_clipped(
    options: OptimizerOptions, params: Iterable[str], phases: Iterable[Phase | None]
) -> None:
    """Refuse adaptive clipping where nothing trains but what it leaves alone.

    Args:
        params: paths of all parameters.
        phases: what trains when.

    Raises:
        UserError: naming the flag.
    """
    if options.clip_adaptive and not any(
        phase is None or phase.trains(layer)
        for layer in {path.split("/")[0] for path in params} - {HEAD}
        for phase in phases
    ):
        raise UserError(
            f"--clip_adaptive={options.clip_adaptive:g} leaves {HEAD} as it is, and "
            "nothing else trains; leave it out, or use --clip_norm"
        )


def make_clipping(numbers: Numbers) -> list[optax.GradientTransformation]:
    """Make the limit of the gradient, if there is one."""
    if numbers.clip_norm is not None:
        return [_make(lambda updates, _: _clip_norm(updates, numbers.clip_norm))]
    if numbers.clip_value is not None:
        return [_make(lambda updates, _: _clip_values(updates, numbers.clip_value))]
    if numbers.clip_adaptive is not None:
        return [_make(lambda updates, params: _clip_units(updates, params, numbers))]
    return []


def _make(clip: Callable[[Any, Any], Any]) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple:
        return clip(updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _clip_norm(updates: Any, largest: jax.Array) -> Any:
    """Clip as torch.nn.utils.clip_grad_norm_ does."""
    scale = jnp.minimum(1.0, largest / (optax.tree.norm(updates) + 1e-6))
    return jax.tree.map(lambda update: update * scale, updates)


def _clip_values(updates: Any, largest: jax.Array) -> Any:
    """Clip as torch.nn.utils.clip_grad_value_ does."""
    return jax.tree.map(lambda update: jnp.clip(update, -largest, largest), updates)


def _clip_units(updates: Any, params: Any, numbers: Numbers) -> Any:
    """Clip each unit's gradient to a share of the norm of its weights; not the head's.

    Source: Brock et al. 2021, https://arxiv.org/abs/2102.06171
    """

    def clip(path: Any, gradient: jax.Array, param: jax.Array) -> jax.Array:
        name = paths.write_path(path)
        if name.split("/")[0] == HEAD:
            return gradient
        axes = paths.list_input_axes(param) if is_kernel(name) else None
        weight = jnp.maximum(_norm(param, axes), _SMALLEST_WEIGHT)
        largest, norm = numbers.clip_adaptive * weight, _norm(gradient, axes)
        clipped = gradient * (largest / jnp.maximum(norm, _SMALLEST_GRADIENT))
        return jnp.where(norm < largest, gradient, clipped)

    return jax.tree_util.tree_map_with_path(clip, updates, params)


def _norm(array: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    return jnp.sqrt(jnp.sum(array * array, axis=axes, keepdims=True))
