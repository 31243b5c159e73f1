"""Receptive fields, exactly: which pixels each value of a feature map is computed of.

They follow from the operations that the model really performs, traced without
computing anything: along rows, and along columns, value i of an array sees the pixels
stride·i + first … stride·i + last, whatever is padding among them. A convolution or a
pooling of window k, stride s, dilation d and padding p before the first pixel makes of
that: first − p·stride, last + ((k − 1)·d − p)·stride, and s times the stride. Where
branches meet, the field is the smallest that holds both. What comes after an operation
that has no rule here is taken to see the whole image, and names it.

Source: Araujo, Norris and Sim 2019, Computing receptive fields of convolutional neural
    networks, https://distill.pub/2019/computing-receptive-fields/
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

_ELEMENTWISE = (
    "add add_any sub mul div max min neg exp exp2 log tanh logistic erf erfc rsqrt "
    "sqrt cbrt square integer_pow pow select_n convert_element_type lt gt le ge eq ne "
    "and or xor not copy stop_gradient reduce_precision abs sign clamp expm1 log1p "
    "is_finite sin cos floor ceil round"
)
_REDUCTIONS = (
    "squeeze argmax argmin reduce_sum reduce_max reduce_min reduce_prod reduce_and "
    "reduce_or reduce_xor"
)
_WINDOWS = "reduce_window_max reduce_window_min reduce_window_sum"
_CALLS = "jit pjit closed_call checkpoint remat2 custom_jvp_call custom_vjp_call"


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


@dataclasses.dataclass(frozen=True)
class Field:
    """Which pixels of the image each value of an array is computed of.

    Attributes:
        axes: the reach along rows and along columns; None for the whole axis.
        unknown: the operations without a rule because of which an axis is whole.
    """

    axes: tuple[Reach | None, Reach | None] = (None, None)
    unknown: frozenset[str] = frozenset()

    def describe(self) -> str:
        """Say how many pixels each value sees."""
        rows, columns = self.axes
        if rows is None or columns is None:
            return "the whole image"
        return (
            f"{rows.size}×{columns.size} pixels, {rows.stride} px from its neighbour's"
        )


# What each pixel of images [N, H, W, C] sees: itself.
PIXELS = Field((Reach(1, 1, 0, 0), Reach(2, 1, 0, 0)))


def compute_fields(function: Callable[..., Any], images: Any) -> Any:
    """Compute the receptive field of everything that a function returns.

    Args:
        function: of images; returns a tree of arrays.
        images: [N, H, W, C], or their shape and dtype.

    Returns:
        The same tree with, for each array, its field.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(images)
    fields = _propagate(closed.jaxpr, [PIXELS])
    return jax.tree.unflatten(
        jax.tree.structure(shapes), [field or Field() for field in fields]
    )


def _propagate(jaxpr: core.Jaxpr, fields: Sequence[Field | None]) -> list[Field | None]:
    """Follow fields through operations; None is what does not depend on the image."""
    known = dict(zip(jaxpr.invars, fields, strict=True))

    def get(var: Any) -> Field | None:
        return None if isinstance(var, core.Literal) else known.get(var)

    for eqn in jaxpr.eqns:
        inputs = [get(var) for var in eqn.invars]
        if any(inputs):
            known |= zip(eqn.outvars, follow(eqn, inputs), strict=True)
    return [get(var) for var in jaxpr.outvars]


def get_body(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    """Return the operations that a call stands for; None of what is no call.

    Of branches for platforms it is the last, the plain spelling of the same numbers.
    Their arguments are the call's last ones.
    """
    if eqn.primitive.name == "cond":
        return eqn.params["branches"][-1].jaxpr
    if eqn.primitive.name not in _CALLS.split():
        return None
    inner = eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
    return getattr(inner, "jaxpr", inner)


def follow(eqn: core.JaxprEqn, inputs: list[Field | None]) -> list[Field | None]:
    """Return the fields of what an operation makes of arrays of given fields.

    Args:
        eqn: the operation.
        inputs: of its arguments; None of one that no image reaches.
    """
    name, body = eqn.primitive.name, get_body(eqn)
    if body and not (name == "cond" and inputs[0]):
        return _propagate(body, inputs[len(inputs) - len(body.invars) :])
    if name == "optimization_barrier":
        return inputs
    seen = [(place, field) for place, field in enumerate(inputs) if field]
    unknown, axes = frozenset().union(*(field.unknown for _, field in seen)), []
    for side in (0, 1):
        reaches = {place: field.axes[side] for place, field in seen}
        try:
            axes.append(_move(eqn, reaches))
        except Exception:  # no rule, or one that has not met these parameters yet
            axes.append(None)
            unknown |= {name}
    return [Field(tuple(axes), unknown)] * len(eqn.outvars)


def _move(eqn: core.JaxprEqn, reaches: dict[int, Reach | None]) -> Reach | None:
    """Follow, through an operation, the reach of its inputs by their place."""
    if None in reaches.values():
        return None
    rule = _RULES[eqn.primitive.name]
    moved = [rule(eqn, place, reach) for place, reach in reaches.items()]
    if None in moved:
        return None
    axes, strides = ({getattr(r, x) for r in moved} for x in ("axis", "stride"))
    if len(axes) > 1 or len(strides) > 1:
        raise NotImplementedError(f"branches of different strides meet: {moved}")
    first, last = min(r.first for r in moved), max(r.last for r in moved)
    return dataclasses.replace(moved[0], first=first, last=last)


def _keep(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    return reach


def _drop_axes(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach | None:
    gone = eqn.params["dimensions" if eqn.primitive.name == "squeeze" else "axes"]
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


def _slide(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    axis, params = reach.axis, eqn.params
    _refuse(params["base_dilation"][axis] != 1)
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
    _refuse(place == 1 or params["lhs_dilation"][side] != 1)
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
    length, outer = before[reach.axis], math.prod(before[: reach.axis])
    for axis in range(len(after)):
        if math.prod(after[:axis]) != outer:
            continue
        if after[axis] == length:
            return dataclasses.replace(reach, axis=axis)
        if axis + 1 < len(after) and after[axis] * after[axis + 1] == length:
            # A value of the blocks' axis stands for all the pixels of its block.
            block = after[axis + 1]
            last = reach.last + (block - 1) * reach.stride
            return Reach(axis, reach.stride * block, reach.first, last)
    return None


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
    _refuse(interior)
    return _widen(reach, reach.axis, 1, 1, int(low), 1)


def _slice(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    start = eqn.params["start_indices"][reach.axis]
    stride = (eqn.params["strides"] or (1,) * (reach.axis + 1))[reach.axis]
    return _widen(reach, reach.axis, 1, stride, -start, 1)


def _stay(eqn: core.JaxprEqn, place: int, reach: Reach) -> Reach:
    """Follow what changes along one axis alone, not that of the reach."""
    changed = eqn.params["axis" if eqn.primitive.name == "split" else "dimension"]
    _refuse(changed == reach.axis)
    return reach


def _refuse(has_no_rule: bool) -> None:
    if has_no_rule:
        raise NotImplementedError


_RULES = {
    **dict.fromkeys(_ELEMENTWISE.split(), _keep),
    **dict.fromkeys(_REDUCTIONS.split(), _drop_axes),
    **dict.fromkeys(_WINDOWS.split(), _slide),
    "conv_general_dilated": _convolve,
    "dot_general": _multiply,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "pad": _pad,
    "slice": _slice,
    "concatenate": _stay,
    "split": _stay,
}
