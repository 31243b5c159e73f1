"""The reach of a value along one axis of the image, and what operations make of it."""

import dataclasses

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


def move(eqn: core.JaxprEqn, place: int, reach: Reach | None) -> Reach | None:
    """Follow the reach of one input through an operation.

    Args:
        eqn: the operation.
        place: which of its inputs it is.
        reach: along rows or along columns; None for the whole axis.

    Returns:
        That of the output.

    Raises:
        NotImplementedError: the operation is not known.
    """
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
