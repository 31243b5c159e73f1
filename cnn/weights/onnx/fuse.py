"""Biases join their layers, as ONNX has them: an operand of Conv and of Gemm."""

import collections
from collections.abc import Sequence

from cnn.weights.onnx.graph import Graph, Node, Tensor


def fuse_biases(graph: Graph, results: Sequence[Tensor]) -> None:
    """Move each bias that follows a convolution or a dense layer into it.

    Args:
        results: what the graph returns; a layer that gives one has its name afterwards.
    """
    uses = collections.Counter(x.name for node in graph.nodes for x in node.inputs)
    uses.update(x.name for x in results)
    fused = set()
    for node in graph.nodes:
        found = _find_bias(graph, node) if node.op == "Add" else None
        if found and uses[found[0].output] == 1:
            layer, bias = found
            layer.inputs.append(bias)
            layer.output = node.output
            graph.makers[node.output] = layer
            fused.add(id(node))
    graph.nodes = [node for node in graph.nodes if id(node) not in fused]


def _find_bias(graph: Graph, addition: Node) -> tuple[Node, Tensor] | None:
    """Return the layer before an addition, and what is added to each channel of it."""
    x, bias = sorted(addition.inputs, key=lambda x: x.array is not None)
    layer = graph.makers.get(x.name)
    if bias.array is None or layer is None or len(layer.inputs) != 2:
        return None
    if layer.op not in ("Conv", "Gemm"):
        return None
    channel = len(bias.sizes) - (len(x.sizes) - 1)  # the second axis of x
    sizes = [size for i, size in enumerate(bias.sizes) if i != channel]
    if channel < 0 or any(size != 1 for size in sizes):
        return None
    if bias.sizes[channel] != x.sizes[1]:
        return None
    return layer, Tensor(bias.name, (0,), (x.sizes[1],), bias.array.reshape(-1))


def drop_unused(graph: Graph, results: Sequence[Tensor]) -> None:
    """Remove nodes whose output nothing reads."""
    read, kept = {x.name for x in results}, []
    for node in reversed(graph.nodes):
        if node.output in read:
            read |= {x.name for x in node.inputs}
            kept.append(node)
    graph.nodes = kept[::-1]
