"""Which nodes of ONNX each operation of a jaxpr becomes: the table `PRIMITIVES`.

An entry takes a `Call` and the operation's operands and returns its result, or a list
of its results; opset 17.
What ONNX has no counterpart for is refused by `graph.refuse`, never left out. A new
primitive is one function and one line of the table.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnn.weights.onnx.graph import (
    Graph,
    Node,
    Order,
    Size,
    Tensor,
    align_constant,
    get_uniform,
    is_one,
    make_constant,
    make_ints,
)


@dataclasses.dataclass(frozen=True)
class Call:
    """One operation of the jaxpr.

    Attributes:
        params: its parameters, as JAX names them.
        shapes: of its operands.
        shape: of its result.
        dtype: of its result.
    """

    graph: Graph
    name: str
    params: dict[str, Any]
    shapes: list[tuple[Size, ...]]
    shape: tuple[Size, ...]
    dtype: np.dtype


Write = Callable[..., Tensor | list[Tensor]]


def _elementwise(op: str, **attributes: Any) -> Write:
    """Make the entry of an operation that ONNX has, with ONNX's broadcasting."""

    def write(call: Call, *operands: Tensor) -> Tensor:
        return _apply(call.graph, op, operands, **attributes)

    return write


def _apply(
    graph: Graph, op: str, operands: Sequence[Tensor], **attributes: Any
) -> Tensor:
    aligned, order, sizes = graph.broadcast(operands)
    return graph.emit(op, aligned, order, sizes, **attributes)


def _number(call: Call, value: float) -> Tensor:
    return make_constant(np.asarray(value, call.dtype))


def _pass_on(call: Call, x: Tensor) -> Tensor:
    return x


def _convert(call: Call, x: Tensor) -> Tensor:
    return call.graph.emit("Cast", [x], x.axes, x.sizes, to=np.dtype(call.dtype))


def _square(call: Call, x: Tensor) -> Tensor:
    return _apply(call.graph, "Mul", [x, x])


def _integer_pow(call: Call, x: Tensor) -> Tensor:
    return _apply(call.graph, "Pow", [x, _number(call, call.params["y"])])


def _rsqrt(call: Call, x: Tensor) -> Tensor:
    return _apply(call.graph, "Reciprocal", [_apply(call.graph, "Sqrt", [x])])


def _expm1(call: Call, x: Tensor) -> Tensor:
    power = _apply(call.graph, "Exp", [x])
    return _apply(call.graph, "Sub", [power, _number(call, 1)])


def _log1p(call: Call, x: Tensor) -> Tensor:
    return _apply(call.graph, "Log", [_apply(call.graph, "Add", [x, _number(call, 1)])])


def _erfc(call: Call, x: Tensor) -> Tensor:
    """Write 1 - erf(x); where x = -u·c, as in GELU, 1 + erf(u·c), which is fused."""
    graph = call.graph
    product = graph.makers.get(x.name)
    if product and product.op == "Mul" and get_uniform(product.inputs[1]) is not None:
        negation = graph.makers.get(product.inputs[0].name)
        if negation and negation.op == "Neg" and negation.inputs[0].sizes == x.sizes:
            argument = dataclasses.replace(x, name=negation.inputs[0].name)
            inner = _apply(graph, "Mul", [argument, product.inputs[1]])
            erf = _apply(graph, "Erf", [inner])
            return _apply(graph, "Add", [erf, _number(call, 1)])
    return _apply(graph, "Sub", [_number(call, 1), _apply(graph, "Erf", [x])])


def _divide(call: Call, x: Tensor, divisor: Tensor) -> Tensor:
    """Write a quotient; an average that was made a sum becomes an average again."""
    number, product = get_uniform(divisor), call.graph.makers.get(x.name)
    if product is not None and product.op == "Mul":
        mean, factor = product.inputs
        if number is not None and get_uniform(factor) == number:
            if mean.sizes == x.sizes:
                return dataclasses.replace(x, name=mean.name)
        pool = call.graph.makers.get(mean.name)
        if pool and pool.op == "AveragePool" and _counts_pixels(pool, x, divisor):
            about = pool.attributes | {"count_include_pad": 0}
            return call.graph.emit(pool.op, pool.inputs, x.axes, x.sizes, **about)
    return _apply(call.graph, "Div", [x, divisor])


def _counts_pixels(pool: Node, x: Tensor, divisor: Tensor) -> bool:
    """Say whether a divisor is how many real pixels each window of a pooling sees."""
    if divisor.array is None:
        return False
    about, counts = pool.attributes, np.ones((1, 1), np.float32)
    half = len(about["pads"]) // 2
    sides = (pool.inputs[0].sizes[2:], x.sizes[2:], about["kernel_shape"])
    sides += (about["strides"], about["pads"][:half])
    for length, windows, size, stride, low in zip(*sides, strict=True):
        starts = np.arange(windows) * stride - low
        real = np.minimum(starts + size, length) - np.maximum(starts, 0)
        counts = counts[..., None] * real
    array = align_constant(divisor, x.axes).array
    return array.shape == counts.shape and bool((array == counts).all())


def _maximum(call: Call, *operands: Tensor) -> Tensor:
    x, bound = sorted(operands, key=lambda x: x.array is not None)
    number = get_uniform(bound)
    if number is None or not np.issubdtype(call.dtype, np.floating):
        return _apply(call.graph, "Max", operands)
    if number == 0:
        return _apply(call.graph, "Relu", [x])
    return _clip(call, x, number, None)


def _minimum(call: Call, *operands: Tensor) -> Tensor:
    x, bound = sorted(operands, key=lambda x: x.array is not None)
    number = get_uniform(bound)
    if number is None or not np.issubdtype(call.dtype, np.floating):
        return _apply(call.graph, "Min", operands)
    return _clip(call, x, None, number)


def _clamp(call: Call, low: Tensor, x: Tensor, high: Tensor) -> Tensor:
    return _apply(call.graph, "Min", [_apply(call.graph, "Max", [x, low]), high])


def _clip(call: Call, x: Tensor, low: float | None, high: float | None) -> Tensor:
    least = np.finfo(call.dtype).min if low is None else low
    bounds = [least] if high is None else [least, high]
    bounds = [_number(call, bound) for bound in bounds]
    return call.graph.emit("Clip", [x, *bounds], x.axes, x.sizes)


def _not_equal(call: Call, *operands: Tensor) -> Tensor:
    return _apply(call.graph, "Not", [_apply(call.graph, "Equal", operands)])


def _select(call: Call, which: Tensor, *cases: Tensor) -> Tensor:
    if len(cases) != 2:
        raise call.graph.refuse(f"a choice among {len(cases)} arrays")
    return _apply(call.graph, "Where", [which, cases[1], cases[0]])


def _broadcast(call: Call, x: Tensor) -> Tensor:
    places = call.params["broadcast_dimensions"]
    return dataclasses.replace(x, axes=tuple(places[axis] for axis in x.axes))


def _transpose(call: Call, x: Tensor) -> Tensor:
    order = call.params["permutation"]
    return dataclasses.replace(x, axes=tuple(order.index(axis) for axis in x.axes))


def _squeeze(call: Call, x: Tensor) -> Tensor:
    return _drop(call, x, call.params["dimensions"], "Squeeze")


def _drop(
    call: Call, x: Tensor, axes: Sequence[int], op: str, **options: Any
) -> Tensor:
    """Write an operation that removes axes of JAX's array, and number the others."""
    places = [i for i, axis in enumerate(x.axes) if axis in axes]
    kept = [i for i, axis in enumerate(x.axes) if axis not in axes]
    left = tuple(x.axes[i] - sum(a < x.axes[i] for a in axes) for i in kept)
    sizes = [x.sizes[i] for i in kept]
    if not places:
        return dataclasses.replace(x, axes=left)
    if op in ("Squeeze", "ReduceSum"):  # the others have them as an attribute
        inputs = [x, make_ints(places)]
    else:
        inputs, options = [x], options | {"axes": places}
    return call.graph.emit(op, inputs, left, sizes, **options)


def _reduce(op: str) -> Write:
    def write(call: Call, x: Tensor) -> Tensor:
        axes = call.params["axes"]
        x = _fill(call, x, axes)
        return _drop(call, x, axes, op, keepdims=0)

    return write


def _sum(call: Call, x: Tensor) -> Tensor:
    """Write a sum, of known length as an average times it (see `_divide`)."""
    axes = call.params["axes"]
    sizes = [call.shapes[0][axis] for axis in axes]
    floating = np.issubdtype(call.dtype, np.floating)
    if not floating or not all(isinstance(size, int) for size in sizes):
        return _reduce("ReduceSum")(call, x)
    mean = _reduce("ReduceMean")(call, x)
    return _apply(call.graph, "Mul", [mean, _number(call, math.prod(sizes))])


def _fill(call: Call, x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return x with these axes of JAX's array, at their full lengths."""
    shape = call.shapes[0]
    sizes = dict(zip(x.axes, x.sizes, strict=True))
    if all(axis in sizes and _is_full(sizes[axis], shape[axis]) for axis in axes):
        return x
    order = x.axes + tuple(a for a in range(len(shape)) if a not in x.axes)
    return call.graph.complete(x, order, shape)


def _is_full(size: Size, length: Size) -> bool:
    return is_one(length) or not is_one(size)


def _reshape(call: Call, x: Tensor) -> Tensor:
    shape, last = call.shapes[0], len(call.shapes[0]) - 1
    if last and call.shape == (*shape[: last - 1], math.prod(shape[last - 1 :])):
        # The last two axes become one: the others stay where they are.
        order = _insert(x.axes, [a for a in range(last + 1) if a not in x.axes])
        order = [axis for axis in order if axis != last]
        axes = tuple(order)
        order.insert(order.index(last - 1) + 1, last)
    else:
        order, axes = range(last + 1), tuple(range(len(call.shape)))
    x = call.graph.complete(x, tuple(order), shape)
    return _reshape_stored(call, x, axes, [call.shape[axis] for axis in axes])


def _insert(order: Order, axes: Sequence[int]) -> Order:
    """Insert axes into an order, each behind the one that it follows in JAX's array."""
    order = list(order)
    for axis in axes:
        before = axis - 1 in order
        order.insert(order.index(axis - 1) + 1 if before else len(order), axis)
    return tuple(order)


def _reshape_stored(call: Call, x: Tensor, axes: Order, sizes: Sequence) -> Tensor:
    """Write a reshape; the one size that depends on the images is left to ONNX."""
    numbers = [size if isinstance(size, int) else -1 for size in sizes]
    if numbers.count(-1) > 1:
        raise call.graph.refuse("a reshape to several sizes that depend on the images")
    return call.graph.emit("Reshape", [x, make_ints(numbers)], axes, sizes)


def _slice(call: Call, x: Tensor) -> Tensor:
    starts, limits = call.params["start_indices"], call.params["limit_indices"]
    strides = call.params["strides"] or (1,) * len(starts)
    return _cut(call, x, starts, limits, strides)


def _split(call: Call, x: Tensor) -> list[Tensor]:
    parts, shape, axis, first = [], call.shapes[0], call.params["axis"], 0
    for size in call.params["sizes"]:
        starts, limits = [0] * len(shape), list(shape)
        starts[axis], limits[axis] = first, first + size
        part = [*shape[:axis], size, *shape[axis + 1 :]]
        one = dataclasses.replace(call, shape=tuple(part))
        parts.append(_cut(one, x, starts, limits, (1,) * len(shape)))
        first += size
    return parts


def _dynamic_slice(call: Call, x: Tensor, *starts: Tensor) -> Tensor:
    if any(start.array is None for start in starts):
        raise call.graph.refuse("a slice whose place depends on the images")
    sizes, shape = call.params["slice_sizes"], call.shapes[0]
    first = [
        0 if size == length else min(max(int(start.array), 0), length - size)
        for start, size, length in zip(starts, sizes, shape, strict=True)
    ]
    limits = [low + size for low, size in zip(first, sizes, strict=True)]
    return _cut(call, x, first, limits, (1,) * len(first))


def _cut(
    call: Call, x: Tensor, starts: Sequence, limits: Sequence, strides: Sequence
) -> Tensor:
    """Write a slice of those axes that it shortens."""
    shape = call.shapes[0]
    cut = [
        axis
        for axis in range(len(shape))
        if starts[axis] != 0 or limits[axis] != shape[axis] or strides[axis] != 1
    ]
    places = [
        i for i, axis in enumerate(x.axes) if axis in cut and not is_one(x.sizes[i])
    ]
    if not places:
        return x
    values = [[v[x.axes[i]] for i in places] for v in (starts, limits, strides)]
    sizes = list(x.sizes)
    for place in places:
        sizes[place] = call.shape[x.axes[place]]
    inputs = [make_ints(v) for v in (*values[:2], places, values[2])]
    return call.graph.emit("Slice", [x, *inputs], x.axes, sizes)


def _reverse(call: Call, x: Tensor) -> Tensor:
    places = [i for i, axis in enumerate(x.axes) if axis in call.params["dimensions"]]
    if not places:
        return x
    ones = [-1] * len(places)
    ends = [np.iinfo(np.int64).min] * len(places)
    inputs = [make_ints(v) for v in (ones, ends, places, ones)]
    return call.graph.emit("Slice", [x, *inputs], x.axes, x.sizes)


def _gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Write whole rows and columns of known numbers, as x[:, ::2, ::2] takes them."""
    numbers = call.params["dimension_numbers"]
    axes = numbers.start_index_map
    sizes = call.params["slice_sizes"]
    whole = all(
        sizes[axis] == (1 if axis in axes else length)
        for axis, length in enumerate(call.shapes[0])
    )
    plain = indices.array is not None and numbers.collapsed_slice_dims == axes
    batch = indices.array.ndim - 1 if plain else 0
    # The places where the indices' own axes stand in the result.
    chosen = [a for a in range(len(call.shape)) if a not in numbers.offset_dims]
    if not (plain and whole and batch == len(axes) and tuple(chosen) == axes):
        raise call.graph.refuse("a gather that does not take whole rows and columns")
    x = _fill(call, x, axes)
    for i, axis in enumerate(axes):
        table = indices.array[..., i]
        row = np.moveaxis(table, i, 0).reshape(table.shape[i], -1)
        if (
            (row != row[:, :1]).any()
            or row.min() < 0
            or row.max() >= call.shapes[0][axis]
        ):
            raise call.graph.refuse(
                "a gather that does not take whole rows and columns"
            )
        place = x.axes.index(axis)
        shape = list(x.sizes)
        shape[place] = call.shape[axis]
        inputs = [x, make_ints(row[:, 0])]
        x = call.graph.emit("Gather", inputs, x.axes, shape, axis=place)
    return x


def _concatenate(call: Call, *parts: Tensor) -> Tensor:
    order = max(parts, key=lambda x: (x.array is None, len(x.axes))).axes
    order = _insert(order, [a for a in range(len(call.shape)) if a not in order])
    parts = [
        call.graph.complete(part, order, shape)
        for part, shape in zip(parts, call.shapes, strict=True)
    ]
    sizes = [call.shape[axis] for axis in order]
    place = order.index(call.params["dimension"])
    return call.graph.emit("Concat", parts, order, sizes, axis=place)


def _pad(call: Call, x: Tensor, value: Tensor) -> Tensor:
    config = call.params["padding_config"]
    if any(between for _, _, between in config) or value.array is None:
        raise call.graph.refuse("a padding between pixels, or by values of the images")
    padded = [axis for axis, (low, high, _) in enumerate(config) if low or high]
    if not padded:
        return x
    x = _fill(call, x, padded)
    pads = [config[axis][side] for side in (0, 1) for axis in x.axes]
    sizes = [n + sum(config[a][:2]) for a, n in zip(x.axes, x.sizes, strict=True)]
    return call.graph.emit("Pad", [x, make_ints(pads), value], x.axes, sizes)


def _convolve(call: Call, x: Tensor, kernel: Tensor) -> Tensor:
    params, graph = call.params, call.graph
    numbers = params["dimension_numbers"]
    if any(size != 1 for size in params["lhs_dilation"]):
        raise graph.refuse("a transposed convolution")
    if params["batch_group_count"] != 1:
        raise graph.refuse("a convolution in groups of images")
    if any(pad < 0 for pair in params["padding"] for pad in pair):
        raise graph.refuse("a convolution of negative padding")
    x = graph.complete(x, tuple(numbers.lhs_spec), call.shapes[0])
    kernel = graph.complete(kernel, tuple(numbers.rhs_spec), call.shapes[1])
    order = tuple(numbers.out_spec)
    return graph.emit(
        "Conv",
        [x, kernel],
        order,
        [call.shape[axis] for axis in order],
        kernel_shape=list(kernel.sizes[2:]),
        strides=list(params["window_strides"]),
        pads=[pair[side] for side in (0, 1) for pair in params["padding"]],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )


def _pool(op: str, **attributes: Any) -> Write:
    """Make the entry of a windowed maximum or average."""

    def write(call: Call, x: Tensor) -> Tensor:
        params, shape = call.params, call.shapes[0]
        if set(params["base_dilation"]) | set(params["window_dilation"]) != {1}:
            raise call.graph.refuse("a pooling with dilation")
        columns = ("window_dimensions", "window_strides", "padding")
        windows = list(zip(*(params[name] for name in columns), strict=True))
        slid = [i for i, window in enumerate(windows) if window != (1, 1, (0, 0))]
        order = x.axes + tuple(a for a in range(len(shape)) if a not in x.axes)
        rest = [axis for axis in order if axis not in slid]
        if len(rest) < 2:
            raise call.graph.refuse("a pooling over images or channels")
        # ONNX pools over all axes but the first two.
        order = tuple(rest[:2] + [axis for axis in order if axis not in rest[:2]])
        x = call.graph.complete(x, order, shape)
        sizes, strides, pads = zip(*(windows[axis] for axis in order[2:]), strict=True)
        return call.graph.emit(
            op,
            [x],
            order,
            [call.shape[axis] for axis in order],
            kernel_shape=list(sizes),
            strides=list(strides),
            pads=[pair[side] for side in (0, 1) for pair in pads],
            **attributes,
        )

    return write


def _window_sum(call: Call, x: Tensor) -> Tensor:
    """Write a windowed sum as an average times the window (see `_divide`)."""
    mean = _pool("AveragePool", count_include_pad=1)(call, x)
    count = math.prod(call.params["window_dimensions"])
    return _apply(call.graph, "Mul", [mean, _number(call, count)])


def _dot(call: Call, left: Tensor, right: Tensor) -> Tensor:
    """Write a product of matrices, or of stacks of them as einsum makes them."""
    (left_sum, right_sum), (left_batch, right_batch) = call.params["dimension_numbers"]
    graph, (left_shape, right_shape) = call.graph, call.shapes
    left_free = _list_free(left, left_shape, (*left_sum, *left_batch))
    right_free = _list_free(right, right_shape, (*right_sum, *right_batch))
    is_one_sum = len(left_sum) == 1 and left_free and right_free
    if (
        not is_one_sum
        or min(len(left_free), len(right_free)) > 1
        or (left_batch and len(left_free) + len(right_free) > 2)
    ):
        return _einsum(call, left, right)
    # Axes of the result: those of the stack, the left one's, the right one's.
    stack = tuple(range(len(left_batch)))
    places = {axis: i for i, axis in enumerate(sorted(left_free), len(stack))}
    after = len(stack) + len(left_free)
    other = {axis: i for i, axis in enumerate(sorted(right_free), after)}
    if len(right_free) > 1 and len(left_free) == 1:
        left, right, left_shape, right_shape = right, left, right_shape, left_shape
        left_free, right_free, places, other = right_free, left_free, other, places
        left_sum, right_sum = right_sum, left_sum
        left_batch, right_batch = right_batch, left_batch
    left = graph.complete(left, (*left_batch, *left_free, *left_sum), left_shape)
    right = graph.complete(right, (*right_batch, *right_sum, *right_free), right_shape)
    axes = (*stack, *(places[axis] for axis in left_free), other[right_free[0]])
    op = "Gemm" if len(axes) == 2 else "MatMul"
    return graph.emit(op, [left, right], axes, [call.shape[axis] for axis in axes])


def _einsum(call: Call, *operands: Tensor) -> Tensor:
    """Write a product of arrays that is none of matrices, axis by axis."""
    sums, batches = call.params["dimension_numbers"]
    letters = [["" for _ in shape] for shape in call.shapes]
    names = iter("abcdefghijklmnopqrstuvwxyz")
    for pairs in (batches, sums):
        for places in zip(*pairs, strict=True):
            letter = next(names)
            for mine, place in zip(letters, places, strict=True):
                mine[place] = letter
    result = [letters[0][place] for place in batches[0]]
    for mine in letters:
        free = [place for place, letter in enumerate(mine) if not letter]
        for place in free:
            mine[place] = next(names)
        result += [mine[place] for place in free]
    inputs = [
        call.graph.complete(x, tuple(range(len(shape))), shape)
        for x, shape in zip(operands, call.shapes, strict=True)
    ]
    equation = ",".join(map("".join, letters)) + "->" + "".join(result)
    axes = tuple(range(len(call.shape)))
    return call.graph.emit("Einsum", inputs, axes, call.shape, equation=equation)


def _list_free(x: Tensor, shape: Sequence, taken: Sequence[int]) -> list[int]:
    """List the axes of JAX's array that are not taken, in the tensor's order."""
    order = x.axes + tuple(a for a in range(len(shape)) if a not in x.axes)
    return [axis for axis in order if axis not in taken]


def _normalise_batch(call: Call, x: Tensor, *vectors: Tensor) -> Tensor:
    rank = len(call.shape)
    order = (0, rank - 1, *range(1, rank - 1))
    return _normalise(call, "BatchNormalization", order, [x, *vectors])


def _normalise_layer(call: Call, x: Tensor, *vectors: Tensor) -> Tensor:
    last = len(call.shape) - 1
    order = tuple(axis for axis in x.axes if axis != last)
    order += tuple(axis for axis in range(last) if axis not in order)
    operands = [x, *vectors]
    return _normalise(call, "LayerNormalization", (*order, last), operands, axis=-1)


def _normalise(
    call: Call, op: str, order: Order, operands: list[Tensor], **attributes: Any
) -> Tensor:
    """Write a normalisation of the first operand by vectors, the others."""
    orders = [order] + [(0,)] * (len(operands) - 1)
    inputs = [
        call.graph.complete(*operand)
        for operand in zip(operands, orders, call.shapes, strict=True)
    ]
    attributes |= {"epsilon": call.params["epsilon"]}
    return call.graph.emit(op, inputs, order, inputs[0].sizes, **attributes)


PRIMITIVES: dict[str, Write] = {
    "abs": _elementwise("Abs"),
    "add": _elementwise("Add"),
    "and": _elementwise("And"),
    "batch_normalization": _normalise_batch,
    "broadcast_in_dim": _broadcast,
    "ceil": _elementwise("Ceil"),
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolve,
    "convert_element_type": _convert,
    "copy": _pass_on,
    "cos": _elementwise("Cos"),
    "div": _divide,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "eq": _elementwise("Equal"),
    "erf": _elementwise("Erf"),
    "erfc": _erfc,
    "exp": _elementwise("Exp"),
    "expm1": _expm1,
    "floor": _elementwise("Floor"),
    "gather": _gather,
    "ge": _elementwise("GreaterOrEqual"),
    "gt": _elementwise("Greater"),
    "integer_pow": _integer_pow,
    "layer_normalization": _normalise_layer,
    "le": _elementwise("LessOrEqual"),
    "log": _elementwise("Log"),
    "log1p": _log1p,
    "logistic": _elementwise("Sigmoid"),
    "lt": _elementwise("Less"),
    "max": _maximum,
    "min": _minimum,
    "mul": _elementwise("Mul"),
    "ne": _not_equal,
    "neg": _elementwise("Neg"),
    "not": _elementwise("Not"),
    "or": _elementwise("Or"),
    "pad": _pad,
    "pow": _elementwise("Pow"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _sum,
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _window_sum,
    "reshape": _reshape,
    "rev": _reverse,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "sign": _elementwise("Sign"),
    "sin": _elementwise("Sin"),
    "slice": _slice,
    "split": _split,
    "sqrt": _elementwise("Sqrt"),
    "square": _square,
    "squeeze": _squeeze,
    "sub": _elementwise("Sub"),
    "tanh": _elementwise("Tanh"),
    "transpose": _transpose,
}
