"""An ONNX graph while it is made: its nodes, its constants, and which axis is which.

JAX's arrays are [N, H, W, C] here, ONNX's convolutions take [N, C, H, W]. So a tensor
says for each of its axes which axis of JAX's array it is. A transposition then costs
nothing until a node needs another order, and a broadcast costs nothing at all: axes
may be missing, or of size 1, where JAX's array is longer; ONNX's arithmetic stretches
them.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn.errors import UserError

Order = tuple[int, ...]
Size = Any  # an int, or an expression of the symbolic number of images


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph.

    Attributes:
        name: of the tensor; of a constant, what it is called unless another is.
        axes: which axis of JAX's array each of its own is.
        sizes: how long its own axes are.
        array: the values of a constant, None where they depend on the images.
    """

    name: str
    axes: Order
    sizes: tuple[Size, ...]
    array: np.ndarray | None = None


@dataclasses.dataclass
class Node:
    """An operation of ONNX of one output; attributes may be NumPy's dtypes."""

    op: str
    name: str
    inputs: list[Tensor]
    output: str
    attributes: dict[str, Any]


class Graph:
    """Nodes in the order in which they run; `scope` is the layer that is written."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.nodes: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.scope = ""
        self._count: collections.Counter = collections.Counter()
        self._moved: dict[tuple[str, Order], Tensor] = {}

    def emit(
        self,
        op: str,
        inputs: Sequence[Tensor],
        axes: Order,
        sizes: Sequence[Size],
        /,
        **attributes: Any,
    ) -> Tensor:
        """Add a node; return its output, whose axes and sizes are given."""
        layer = self._get_layer()
        name = f"{layer}/{op}" if layer else op
        self._count[name] += 1
        if self._count[name] > 1:
            name = f"{name}_{self._count[name]}"
        node = Node(op, name, list(inputs), f"{name}_output", attributes)
        self.nodes.append(node)
        self.makers[node.output] = node
        return Tensor(node.output, tuple(axes), tuple(sizes))

    def refuse(self, what: str) -> UserError:
        """Make the error that the layer which is written has no counterpart."""
        layer = self._get_layer()
        where = f"the layer {layer}" if layer else "the model"
        return UserError(
            f"--export_format=onnx cannot write {what} of {where}: add it to "
            "cnn/weights/onnx/primitives.py, or export another --export_format"
        )

    def _get_layer(self) -> str:
        return self.scope.partition("/")[2]  # behind the model's own class

    def align(self, tensor: Tensor, order: Order) -> Tensor:
        """Bring a tensor's axes into an order; those that it lacks have size 1."""
        if tensor.axes == order:
            return tensor
        if tensor.array is not None:
            return align_constant(tensor, order)
        if (tensor.name, order) not in self._moved:
            self._moved[tensor.name, order] = self._move(tensor, order)
        return self._moved[tensor.name, order]

    def _move(self, tensor: Tensor, order: Order) -> Tensor:
        kept = tuple(axis for axis in order if axis in tensor.axes)
        if kept != tensor.axes:
            places = [tensor.axes.index(axis) for axis in kept]
            sizes = [tensor.sizes[place] for place in places]
            tensor = self.emit("Transpose", [tensor], kept, sizes, perm=places)
        added = [place for place, axis in enumerate(order) if axis not in kept]
        if not added:
            return tensor
        sizes = dict(zip(kept, tensor.sizes, strict=True))
        sizes = [sizes.get(axis, 1) for axis in order]
        return self.emit("Unsqueeze", [tensor, make_ints(added)], order, sizes)

    def complete(self, tensor: Tensor, order: Order, shape: Sequence[Size]) -> Tensor:
        """Bring a tensor into an order and to the full lengths of JAX's array."""
        tensor = self.align(tensor, order)
        wanted = tuple(shape[axis] for axis in order)
        if tensor.sizes == wanted:
            return tensor
        if tensor.array is not None and all(isinstance(n, int) for n in wanted):
            array = np.broadcast_to(tensor.array, wanted)
            return Tensor(tensor.name, order, wanted, array)
        stretched = [
            1 if size == full else full
            for size, full in zip(tensor.sizes, wanted, strict=True)
        ]
        if not all(isinstance(size, int) for size in stretched):
            raise self.refuse("an array that repeats the same values for every image")
        return self.emit("Expand", [tensor, make_ints(stretched)], order, wanted)

    def broadcast(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Order, list]:
        """Bring tensors into one order, that of the one with the most axes.

        Returns:
            The tensors, the order, and the sizes that ONNX's arithmetic gives.
        """
        first = max(tensors, key=lambda x: (x.array is None, len(x.axes)))
        order = first.axes
        others = {axis for tensor in tensors for axis in tensor.axes} - set(order)
        if others:
            order = tuple(sorted(others | set(order)))
        sizes: dict[int, Size] = dict.fromkeys(order, 1)
        for tensor in tensors:
            for axis, size in zip(tensor.axes, tensor.sizes, strict=True):
                sizes[axis] = size if is_one(sizes[axis]) else sizes[axis]
        aligned = []
        for tensor in tensors:  # leading axes may stay away
            start = next(
                (i for i, axis in enumerate(order) if axis in tensor.axes), len(order)
            )
            aligned.append(self.align(tensor, order[start:]))
        return aligned, order, [sizes[axis] for axis in order]


def is_one(size: Size) -> bool:
    """Return whether a size is 1, not a number of images."""
    return isinstance(size, int) and size == 1


def make_constant(array: Any, name: str = "constant") -> Tensor:
    """Make a constant from an array, its axes in JAX's order."""
    array = np.asarray(array)
    return Tensor(name, tuple(range(array.ndim)), array.shape, array)


def make_ints(values: Sequence[int]) -> Tensor:
    """Make the constant int64 vector that ONNX takes for axes, shapes and places."""
    return make_constant(np.asarray(values, np.int64), "numbers")


def align_constant(tensor: Tensor, order: Order) -> Tensor:
    """Bring a constant's axes into an order; those that it lacks have size 1."""
    kept = [axis for axis in order if axis in tensor.axes]
    array = tensor.array.transpose([tensor.axes.index(axis) for axis in kept])
    added = tuple(place for place, axis in enumerate(order) if axis not in kept)
    array = np.expand_dims(array, added)
    return Tensor(tensor.name, order, array.shape, array)


def get_uniform(tensor: Tensor) -> float | None:
    """Return the number that all values of a constant equal; None where none."""
    array = tensor.array
    if array is None or not array.size or (array != array.flat[0]).any():
        return None
    return array.flat[0]


def name_constants(graph: Graph) -> dict[str, np.ndarray]:
    """Give each constant a name of its own, equal ones of one name the same."""
    named: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        for place, tensor in enumerate(node.inputs):
            if tensor.array is None:
                continue
            name, number = tensor.name, 1
            while not _is_same(named.setdefault(name, tensor.array), tensor.array):
                number += 1
                name = f"{tensor.name}_{number}"
            node.inputs[place] = dataclasses.replace(tensor, name=name)
    return named


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two constants are the same bits."""
    if a is b:
        return True
    alike = (a.dtype, a.shape) == (b.dtype, b.shape)
    return alike and a.tobytes() == b.tobytes()
