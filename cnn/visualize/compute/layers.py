"""Which weights a model multiplies with what, found in its traced operations.

A layer is where weights meet what was computed of the image, in a convolution or a
product. How the model is written, and which layers have a bias or a normalisation, does
not matter.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

_CALLS = "jit pjit closed_call checkpoint remat2 custom_jvp_call custom_vjp_call"
_MEETINGS = ("conv_general_dilated", "dot_general")


@dataclasses.dataclass(frozen=True)
class Layer:
    """Weights that a model multiplies with what was computed of the image.

    Attributes:
        path: their place in the variables, as `params/stem/kernel`.
        kernel: float32 [I, O] or [S, S, C / groups, O]; where each place has weights of
            its own, the axes of places stand before.
        groups: in how many parts the channels come in.
        after: the paths of the layers that what comes in has passed.
        macs: multiply-accumulates for one image.
    """

    path: str
    kernel: np.ndarray
    groups: int
    after: frozenset[str]
    macs: int = 0

    @property
    def name(self) -> str:
        """Return the path without `kernel` at its end, if anything is left."""
        name = self.path.removeprefix("params/")
        return name.removesuffix("kernel").rstrip("/_") or name

    @property
    def is_convolution(self) -> bool:
        """Return whether all places share one kernel [S, S, C / groups, O]."""
        return self.kernel.ndim == 4


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What a value is computed of: the image or not, and which of the variables."""

    is_image: bool
    paths: frozenset[str]


@dataclasses.dataclass(frozen=True)
class _Meeting:
    """Where weights meet what comes in, which is computed of these variables."""

    groups: int
    passed: frozenset[str]
    macs: int


def list_layers(
    forward: Callable[[Any, jax.Array], Any],
    variables: Any,
    image_shape: tuple[int, int, int],
) -> tuple[Layer, ...]:
    """List a model's layers in the order of execution; nothing is computed.

    Args:
        forward: maps variables and images float32 [N, H, W, C] to what is computed.
        variables: `params` and `batch_stats`.
        image_shape: (H, W, C).

    Returns:
        Each layer once.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]
    }
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    jaxpr = jax.make_jaxpr(forward)(variables, images).jaxpr
    origins = [_Origin(False, frozenset([path])) for path in leaves]
    found: dict[str, _Meeting] = {}
    _follow(jaxpr, [*origins, _Origin(True, frozenset())], found)
    found = {path: x for path, x in found.items() if jnp.ndim(leaves[path]) > 1}
    return tuple(
        Layer(
            path,
            np.asarray(leaves[path], np.float32),
            meeting.groups,
            meeting.passed & found.keys(),
            meeting.macs,
        )
        for path, meeting in found.items()
    )


def _follow(
    jaxpr: core.Jaxpr, inputs: Sequence[_Origin], found: dict[str, _Meeting]
) -> list[_Origin]:
    """Follow what values are computed of through operations; meetings are noted.

    Args:
        jaxpr: the operations.
        inputs: of what they are given.
        found: by path of the weights, where they first meet what comes in.

    Returns:
        Of what they return.
    """
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def get(var: Any) -> _Origin:
        is_literal = isinstance(var, core.Literal)
        return _NOTHING if is_literal else known.get(var, _NOTHING)

    for eqn in jaxpr.eqns:
        origins = [get(var) for var in eqn.invars]
        known |= zip(eqn.outvars, _apply(eqn, origins, found), strict=True)
    return [get(var) for var in jaxpr.outvars]


def _apply(
    eqn: core.JaxprEqn, origins: list[_Origin], found: dict[str, _Meeting]
) -> list[_Origin]:
    name, params = eqn.primitive.name, eqn.params
    if name == "cond" and not origins[0].is_image:
        # Branches for platforms; the last is the plain spelling of the same numbers.
        return _follow(params["branches"][-1].jaxpr, origins[1:], found)
    if name in _CALLS.split():
        inner = params.get("call_jaxpr", params.get("jaxpr"))
        return _follow(getattr(inner, "jaxpr", inner), origins, found)
    if name == "optimization_barrier":
        return origins
    if name in _MEETINGS:
        _note(eqn, origins, found)
    paths = frozenset().union(*(origin.paths for origin in origins))
    is_image = any(origin.is_image for origin in origins)
    return [_Origin(is_image, paths)] * len(eqn.outvars)


def _note(
    eqn: core.JaxprEqn, origins: list[_Origin], found: dict[str, _Meeting]
) -> None:
    """Note an operation of two values if one is weights and the other is not."""
    weights, coming = sorted(origins, key=lambda origin: origin.is_image)
    if weights.is_image or not coming.is_image:
        return
    groups, macs = eqn.params.get("feature_group_count", 1), _count_macs(eqn)
    for path in sorted(weights.paths):
        first = found.get(path, _Meeting(groups, coming.paths, 0))
        found[path] = dataclasses.replace(first, macs=first.macs + macs)


def _count_macs(eqn: core.JaxprEqn) -> int:
    """Count the multiply-accumulates of a convolution or a product."""
    one, other = (var.aval.shape for var in eqn.invars)
    numbers = eqn.params["dimension_numbers"]
    if eqn.primitive.name == "dot_general":
        ((contracted, _), _) = numbers
        summed = math.prod(one[axis] for axis in contracted)
    else:
        summed = math.prod(other) // other[numbers.rhs_spec[0]]
    return eqn.outvars[0].aval.size * summed


_NOTHING = _Origin(False, frozenset())
