"""A line of PyTorch for each operation of a graph: the tables and the `Writer`.

An operation that has no line yet is refused; a new one is a line of a table.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.ops import standardization
from cnn.training.trained import Trained
from cnn.weights import names
from cnn.weights.onnx.graph import Node, Tensor, get_uniform
from cnn.weights.onnx.trace import INPUT, STANDARDIZED
from cnn.weights.torch_model.views import list_views, match

_MOST_NUMBERS = 64  # that are written down where the state dict has none like them
_UNARY = {
    "Abs": "torch.abs",
    "Ceil": "torch.ceil",
    "Cos": "torch.cos",
    "Erf": "torch.erf",
    "Exp": "torch.exp",
    "Floor": "torch.floor",
    "Log": "torch.log",
    "Neg": "torch.neg",
    "Not": "torch.logical_not",
    "Reciprocal": "torch.reciprocal",
    "Relu": "F.relu",
    "Sigmoid": "torch.sigmoid",
    "Sign": "torch.sign",
    "Sin": "torch.sin",
    "Sqrt": "torch.sqrt",
    "Tanh": "torch.tanh",
}
_BINARY = {
    "Add": "+",
    "And": "&",
    "Div": "/",
    "Equal": "==",
    "Greater": ">",
    "GreaterOrEqual": ">=",
    "Less": "<",
    "LessOrEqual": "<=",
    "MatMul": "@",
    "Mul": "*",
    "Or": "|",
    "Pow": "**",
    "Sub": "-",
}
_REDUCTIONS = {
    "ReduceMax": "amax",
    "ReduceMean": "mean",
    "ReduceMin": "amin",
    "ReduceSum": "sum",
}


class Writer:
    """Writes nodes as lines; a variable that nothing reads any more is used again."""

    def __init__(self, trained: Trained, state_dict: Mapping[str, np.ndarray]) -> None:
        """Remember which of our arrays each tensor of the state dict is."""
        flat = flatten_paths(trained.variables)
        model = trained.options["model"]
        spelling = names.choose_written(model, trained.options)
        entries = names.list_entries(model, flat, spelling)
        self._entries = {entry.path: entry for entry in entries}
        self._tensors = state_dict
        self._variables = {INPUT: "images"}

    def write_nodes(self, nodes: Sequence[Node], logits: Tensor) -> list[str]:
        """Return the lines of all nodes, in order, and the last, `return …`."""
        last = {x.name: i for i, node in enumerate(nodes) for x in node.inputs}
        last[logits.name] = len(nodes)
        lines, layer, free = [], "", []
        numbers = (f"x{i}" for i in itertools.count(1))
        for i, node in enumerate(nodes):
            parts = node.name.split("/")[:-1]
            here = "/".join(part for part in parts if "." not in part)
            if here and here != layer:
                lines.append(f"# {here}")
            layer, value = here or layer, self._write(node)
            for name in dict.fromkeys(x.name for x in node.inputs if x.array is None):
                if last[name] == i and name != INPUT:
                    free.append(self._variables[name])
            self._variables[node.output] = free.pop() if free else next(numbers)
            lines.append(f"{self._variables[node.output]} = {value}")
        return [*lines, f"return {self._variables[logits.name]}"]

    def _write(self, node: Node) -> str:
        """Return the expression of a node."""
        if node.op in _UNARY:
            return f"{_UNARY[node.op]}({self._read(node.inputs[0])})"
        if node.op in _BINARY:
            left, right = map(self._read, node.inputs)
            return f"{left} {_BINARY[node.op]} {right}"
        if node.op in _REDUCTIONS:
            return self._write_reduction(node)
        if node.op not in _WRITERS:
            raise UserError(f"no line of PyTorch is known for {node.op} of {node.name}")
        return _WRITERS[node.op](self, node)

    def _read(self, tensor: Tensor) -> str:
        """Return the expression of an operand."""
        if tensor.array is None:
            return self._variables[tensor.name]
        number = get_uniform(tensor)
        if number is not None and math.prod(tensor.array.shape) == 1:
            return repr(number.item())
        return self.read_array(tensor)

    def read_array(self, tensor: Tensor) -> str:
        """Return the expression of a constant that is an array.

        Raises:
            UserError: the state dict holds none like it, and it is large.
        """
        wanted, path = tensor.array, tensor.name
        entry = next(
            (
                x
                for p, x in self._entries.items()
                if path == p or path.startswith(f"{p}/")
            ),
            None,
        )
        if entry is not None:
            held = self._tensors[entry.name]
            if path.endswith(f"/{STANDARDIZED}"):  # over all axes but the first
                inputs, epsilon = tuple(held.shape[1:]), standardization.EPSILON
                return f'F.layer_norm(w["{entry.name}"], {inputs}, eps={epsilon!r})'
            for text, array in list_views(
                f'w["{entry.name}"]', held, entry.layout.side
            ):
                if array.size == wanted.size and (found := match(text, array, wanted)):
                    return found
        if wanted.size > _MOST_NUMBERS:
            raise UserError(f"the state dict has no tensor like {path}")
        return f"torch.tensor({wanted.tolist()})"

    def _write_reduction(self, node: Node) -> str:
        axes = node.attributes.get("axes")
        axes = tuple(node.inputs[1].array.tolist() if axes is None else axes)
        x, method = self._read(node.inputs[0]), _REDUCTIONS[node.op]
        return f"{x}.{method}({axes}{', keepdim=True' * node.attributes['keepdims']})"

    def convolve(self, node: Node) -> str:
        """Write a convolution; unequal padding comes before it."""
        x, kernel, *bias = node.inputs
        about = node.attributes
        text, padding = self._pad(self._read(x), about["pads"], "0.0")
        arguments = [text, self.read_array(kernel)]
        arguments.append(self.read_array(bias[0]) if bias else "None")
        arguments += [str(tuple(about["strides"])), str(padding)]
        arguments += [str(tuple(about["dilations"])), str(about["group"])]
        return f"F.conv2d({', '.join(arguments)})"

    def pool(self, node: Node) -> str:
        """Write a pooling; what is around an image is never its maximum."""
        is_max, about = node.op == "MaxPool", node.attributes
        if not is_max and any(about["pads"]) and not about["count_include_pad"]:
            return self._average(node)
        outside = '-float("inf")' if is_max else "0.0"
        text, padding = self._pad(self._read(node.inputs[0]), about["pads"], outside)
        name = "F.max_pool2d" if is_max else "F.avg_pool2d"
        numbers = [about["kernel_shape"], about["strides"], padding]
        return f"{name}({text}, {', '.join(str(tuple(x)) for x in numbers)})"

    def _average(self, node: Node) -> str:
        """Write averages of real pixels alone, as PyTorch has them of equal padding.

        Raises:
            UserError: the sides are unequal by more than its `ceil_mode` adds.
        """
        about, (x,) = node.attributes, node.inputs
        sizes, strides, low = about["kernel_shape"], about["strides"], about["pads"][:2]
        more = [b - a for a, b in zip(low, about["pads"][2:], strict=True)]
        sides = zip(x.sizes[2:], sizes, strides, low, strict=True)
        ceil = [(size - length - 2 * a) % step for length, size, step, a in sides]
        if more not in ([0, 0], ceil):
            raise UserError(f"no line of PyTorch is known for the mean {node.name}")
        numbers = ", ".join(str(tuple(x)) for x in (sizes, strides, low))
        return (
            f"F.avg_pool2d({self._read(x)}, {numbers}, ceil_mode={any(more)}, "
            "count_include_pad=False)"
        )

    @staticmethod
    def _pad(x: str, pads: Sequence[int], outside: str) -> tuple[str, tuple[int, int]]:
        """Return x, padded where the sides are unequal, and what is left to pad."""
        top, left, bottom, right = pads
        if (top, left) == (bottom, right):
            return x, (top, left)
        return f"F.pad({x}, {(left, right, top, bottom)}, value={outside})", (0, 0)

    def call(self, node: Node) -> str:
        """Write what PyTorch has under another name, its numbers in order."""
        x, *others = node.inputs
        text, numbers = self._read(x), [y.array.tolist() for y in others]
        if node.op == "Transpose":
            return f"{text}.permute({tuple(node.attributes['perm'])})"
        if node.op == "Reshape":
            return f"{text}.reshape({tuple(numbers[0])})"
        if node.op == "Unsqueeze":
            return text + "".join(f".unsqueeze({i})" for i in sorted(numbers[0]))
        if node.op == "Squeeze":
            return f"{text}.squeeze({tuple(numbers[0])})"
        if node.op == "Expand":
            return f"{text}.expand({tuple(-1 if n == 1 else n for n in numbers[0])})"
        if node.op == "Pad":
            half = len(numbers[0]) // 2
            pairs = zip(numbers[0][:half], numbers[0][half:], strict=True)
            flat = tuple(n for pair in reversed([*pairs]) for n in pair)
            return f"F.pad({text}, {flat}, value={numbers[1]})"
        if node.op == "Clip":
            return f"{text}.clamp({', '.join(map(str, numbers))})"
        kind = str(np.dtype(node.attributes["to"]))  # Cast
        return f"{text}.to(torch.{kind})"

    def cut(self, node: Node) -> str:
        """Write a slice, and a reversal where the steps are -1."""
        text = self._read(node.inputs[0])
        starts, ends, axes, steps = (x.array.tolist() for x in node.inputs[1:])
        if all(step == -1 for step in steps):
            return f"{text}.flip({tuple(axes)})"
        parts = [":"] * (max(axes) + 1)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            parts[axis] = f"{start}:{end}" + (f":{step}" if step != 1 else "")
        return f"{text}[{', '.join(parts)}]"

    def join(self, node: Node) -> str:
        """Write operations that take several operands."""
        texts = [self._read(x) for x in node.inputs]
        if node.op == "Concat":
            return f"torch.cat([{', '.join(texts)}], {node.attributes['axis']})"
        if node.op == "Einsum":
            return f"torch.einsum({node.attributes['equation']!r}, {', '.join(texts)})"
        if node.op == "Where":
            return f"torch.where({', '.join(texts)})"
        if node.op == "Gather":
            axis, rows = node.attributes["axis"], node.inputs[1].array.tolist()
            return f"{texts[0]}.index_select({axis}, torch.tensor({rows}))"
        name = "torch.maximum" if node.op == "Max" else "torch.minimum"
        return f"{name}({', '.join(self._as_tensor(x) for x in node.inputs)})"

    def _as_tensor(self, tensor: Tensor) -> str:
        text = self._read(tensor)
        return text if tensor.array is None else f"torch.tensor({text})"

    def multiply(self, node: Node) -> str:
        """Write a dense layer."""
        x, kernel, *bias = node.inputs
        matrix = Tensor(
            kernel.name, kernel.axes[::-1], kernel.sizes[::-1], kernel.array.T
        )
        arguments = [self._read(x), self.read_array(matrix)]
        arguments += [self.read_array(vector) for vector in bias]
        return f"F.linear({', '.join(arguments)})"

    def normalise(self, node: Node) -> str:
        """Write a normalisation."""
        x, scale, bias, *statistics = node.inputs
        ones = get_uniform(scale) == 1
        vectors = ["None" if ones else self.read_array(scale), self.read_array(bias)]
        epsilon = f"eps={node.attributes['epsilon']!r}"
        if node.op == "LayerNormalization":
            shape = str(tuple(scale.sizes))
            return (
                f"F.layer_norm({', '.join([self._read(x), shape, *vectors, epsilon])})"
            )
        running = [self.read_array(vector) for vector in statistics]
        arguments = [self._read(x), *running, *vectors, epsilon]
        return f"F.batch_norm({', '.join(arguments)})"


_WRITERS: dict[str, Callable[[Writer, Node], str]] = {
    "AveragePool": Writer.pool,
    "BatchNormalization": Writer.normalise,
    "Cast": Writer.call,
    "Clip": Writer.call,
    "Concat": Writer.join,
    "Conv": Writer.convolve,
    "Einsum": Writer.join,
    "Expand": Writer.call,
    "Gather": Writer.join,
    "Gemm": Writer.multiply,
    "LayerNormalization": Writer.normalise,
    "Max": Writer.join,
    "MaxPool": Writer.pool,
    "Min": Writer.join,
    "Pad": Writer.call,
    "Reshape": Writer.call,
    "Slice": Writer.cut,
    "Squeeze": Writer.call,
    "Transpose": Writer.call,
    "Unsqueeze": Writer.call,
    "Where": Writer.join,
}
