"""Receptive fields, exactly: which pixels each value of a feature map is computed of.

They follow from the operations that the model really performs, traced without
computing anything: along rows, and along columns, value i of an array sees the pixels
stride·i + first … stride·i + last, whatever is padding among them. A convolution or a
pooling of window k, stride s, dilation d and padding p before the first pixel makes of
that: first − p·stride, last + ((k − 1)·d − p)·stride, and s times the stride. Where
branches meet, the field is the smallest that holds both.

Source: Araujo, Norris and Sim 2019, Computing receptive fields of convolutional neural
    networks, https://distill.pub/2019/computing-receptive-fields/
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from cnn.visualize.reach import Reach, move

# Along rows and along columns; None where every value sees the whole axis.
Field = tuple[Reach | None, Reach | None]


def compute_fields(function: Callable[..., Any], images: Any) -> Any:
    """Compute the receptive field of everything that a function returns.

    Args:
        function: of images; returns a tree of arrays.
        images: [N, H, W, C], or their shape and dtype.

    Returns:
        The same tree with, for each array, its field.

    Raises:
        NotImplementedError: the function has an operation that this does not know.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(images)
    pixels = (Reach(1, 1, 0, 0), Reach(2, 1, 0, 0))
    fields = _propagate(closed.jaxpr, [pixels])
    everything = (None, None)
    return jax.tree.unflatten(
        jax.tree.structure(shapes), [field or everything for field in fields]
    )


def _propagate(jaxpr: core.Jaxpr, fields: list[Field | None]) -> list[Field | None]:
    """Follow fields through operations; None is what does not depend on the image."""
    known = dict(zip(jaxpr.invars, fields, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [
            None if isinstance(var, core.Literal) else known.get(var)
            for var in eqn.invars
        ]
        if any(inputs):
            known |= zip(eqn.outvars, _apply(eqn, inputs), strict=True)
    return [known.get(var) for var in jaxpr.outvars]


def _apply(eqn: core.JaxprEqn, inputs: list[Field | None]) -> list[Field | None]:
    name = eqn.primitive.name
    if name == "cond":
        # Branches for platforms; the last is the plain spelling of the same numbers.
        return _propagate(eqn.params["branches"][-1].jaxpr, inputs[1:])
    inner = eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
    if inner is not None:
        return _propagate(getattr(inner, "jaxpr", inner), inputs)
    if name == "optimization_barrier":
        return inputs
    moved = [
        field and tuple(move(eqn, place, reach) for reach in field)
        for place, field in enumerate(inputs)
    ]
    moved = [field for field in moved if field]
    return [tuple(_join(*reaches) for reaches in zip(*moved, strict=True))]


def _join(*reaches: Reach | None) -> Reach | None:
    """Return the smallest reach that holds all."""
    if None in reaches:
        return None
    axes, strides = ({getattr(r, x) for r in reaches} for x in ("axis", "stride"))
    if len(axes) > 1 or len(strides) > 1:
        raise NotImplementedError(f"branches of different strides meet: {reaches}")
    first, last = min(r.first for r in reaches), max(r.last for r in reaches)
    return dataclasses.replace(reaches[0], first=first, last=last)
