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

ELEMENTWISE = frozenset(
    "add add_any sub mul div max min neg exp log tanh logistic erf erfc rsqrt sqrt "
    "square integer_pow pow select_n convert_element_type lt gt le ge eq ne and or not "
    "copy stop_gradient reduce_precision abs sign clamp expm1 log1p is_finite".split()
)


@dataclasses.dataclass(frozen=True)
class Reach:
    """Which pixels along one axis of the image a value is computed of.

    Attributes:
        axis: the array's axis that runs along it.
        stride: pixels between the fields of neighbouring values.
        first: the first pixel that value 0 sees; negative in the padding.
        last: the last one.
    """

    axis: int
    stride: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Return how many pixels a value sees."""
        return self.last - self.first + 1

    def locate(self, index: int) -> tuple[int, int]:
        """Return the first pixel that value `index` sees and the one after the last."""
        low = self.stride * index + self.first
        return low, low + self.size


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
        field and tuple(_move(eqn, place, reach) for reach in field)
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


def _move(eqn: core.JaxprEqn, place: int, reach: Reach | None) -> Reach | None:
    """Follow one reach of one input through one operation."""
    if reach is None:
        return None
    name, params = eqn.primitive.name, eqn.params
    if name in ELEMENTWISE:
        return reach
    if name.startswith("reduce_window"):
        return _slide(eqn, reach)
    if name.startswith(("reduce_", "squeeze", "arg")):
        gone = params.get("axes", params.get("dimensions"))
        return _drop_axes(reach, gone)
    if name in _RULES:
        return _RULES[name](eqn, place, reach)
    raise NotImplementedError(f"the receptive field of {name} is not known")


def _drop_axes(reach: Reach, gone: tuple[int, ...]) -> Reach | None:
    if reach.axis in gone:
        return None
    before = sum(axis < reach.axis for axis in gone)
    return dataclasses.replace(reach, axis=reach.axis - before)


def _widen(
    reach: Reach, axis: int, window: int, stride: int, low: int, dilation: int
) -> Reach:
    """Let windows slide over what has a reach."""
    first = reach.first - low * reach.stride
    last = reach.last + ((window - 1) * dilation - low) * reach.stride
    return Reach(axis, reach.stride * stride, first, last)


def _slide(eqn: core.JaxprEqn, reach: Reach) -> Reach:
    axis, params = reach.axis, eqn.params
    return _widen(
        reach,
        axis,
        params["window_dimensions"][axis],
        params["window_strides"][axis],
        params["padding"][axis][0],
        params["window_dilation"][axis],
    )


def _convolve(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    params, kernel = eqn.params, eqn.invars[1].aval.shape
    numbers = params["dimension_numbers"]
    side = numbers.lhs_spec[2:].index(reach.axis)
    return _widen(
        reach,
        numbers.out_spec[2:][side],
        kernel[numbers.rhs_spec[2:][side]],
        params["window_strides"][side],
        params["padding"][side][0],
        params["rhs_dilation"][side],
    )


def _multiply(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach | None:
    contracted, batch = eqn.params["dimension_numbers"]
    if reach.axis in contracted[place]:
        return None
    if reach.axis in batch[place]:
        return dataclasses.replace(reach, axis=batch[place].index(reach.axis))
    used = {*contracted[place], *batch[place]}
    axis = len(batch[0]) + sum(a not in used for a in range(reach.axis))
    if place == 1:
        axis += eqn.invars[0].aval.ndim - len(contracted[0]) - len(batch[0])
    return dataclasses.replace(reach, axis=axis)


def _reshape(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach | None:
    """Follow an axis that stays, or is cut into blocks; one that is merged is lost."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if before == after:
        return reach
    length, outer = before[reach.axis], _count(before[: reach.axis])
    for axis in range(len(after)):
        if _count(after[:axis]) != outer:
            continue
        if after[axis] == length:
            return dataclasses.replace(reach, axis=axis)
        if axis + 1 < len(after) and after[axis] * after[axis + 1] == length:
            # A value of the blocks' axis stands for all the pixels of its block.
            block = after[axis + 1]
            last = reach.last + (block - 1) * reach.stride
            return Reach(axis, reach.stride * block, reach.first, last)
    return None


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def _transpose(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    axis = eqn.params["permutation"].index(reach.axis)
    return dataclasses.replace(reach, axis=axis)


def _broadcast(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach | None:
    axis = eqn.params["broadcast_dimensions"][reach.axis]
    if eqn.params["shape"][axis] != eqn.invars[0].aval.shape[reach.axis]:
        return None
    return dataclasses.replace(reach, axis=axis)


def _pad(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    low, _, interior = eqn.params["padding_config"][reach.axis]
    if interior:
        raise NotImplementedError("padding between pixels")
    return _widen(reach, reach.axis, 1, 1, int(low), 1)


def _slice(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    start = eqn.params["start_indices"][reach.axis]
    stride = (eqn.params["strides"] or (1,) * (reach.axis + 1))[reach.axis]
    return _widen(reach, reach.axis, 1, stride, -start, 1)


def _concatenate(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    if eqn.params["dimension"] == reach.axis:
        raise NotImplementedError("concatenation along rows or columns")
    return reach


_RULES = {
    "conv_general_dilated": _convolve,
    "dot_general": _multiply,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "pad": _pad,
    "slice": _slice,
    "concatenate": _concatenate,
}
