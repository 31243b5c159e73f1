"""A trained network as plain data, which a page's own interpreter computes.

The operations are those of ONNX, as `cnn.weights.onnx` writes them, from `images`
float32 [1, H, W, C] of 0..255 to logits [1, K] and the features of each stage. The
interpreter, `page/network.js`, knows `OPERATIONS`.
"""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn.errors import UserError
from cnn.ops import scaling
from cnn.training import multilabel, steps
from cnn.training.tasks import MULTILABEL
from cnn.training.trained import Trained
from cnn.visualize.compute.features import map_batches
from cnn.weights.onnx.graph import Graph, Node, name_constants
from cnn.weights.onnx.trace import INPUT, NHWC, make_structure, write_graph

OPERATIONS = frozenset(
    "Add AveragePool BatchNormalization Clip Concat Conv Div Erf Exp Expand "
    "Gather Gemm Greater LayerNormalization MatMul MaxPool Mul Pad Pow Reciprocal "
    "ReduceMax ReduceMean Relu Reshape Sigmoid Slice Sqrt Sub Tanh Transpose Unsqueeze "
    "Where".split()
)
LIMIT = 10_000_000  # bytes of weights; base64 makes a third more of them
TOLERANCE = 1e-3  # of a logit
_ALIGNED = 4  # bytes, where a float32 array may start


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as plain data.

    Attributes:
        description: what the interpreter loads, of texts, numbers and lists.
        num_bytes: of the weights.
        rounding: the largest change of a logit that weights of float16 make; None
            where they are float32.
        num_checked: on how many images.
    """

    description: dict[str, Any]
    num_bytes: int
    rounding: float | None
    num_checked: int


def make_network(trained: Trained, images: np.ndarray) -> Network:
    """Write down the network of a run, with weights as small as give its answers.

    Args:
        images: uint8 [N, H, W, C], on which weights of float16 have to give the same
            classes and, within `TOLERANCE`, the same logits.

    Raises:
        UserError: the weights are too large, or an operation is unknown.
    """
    leaves = jax.tree.leaves(trained.variables)
    check_size(sum(2 * leaf.size for leaf in leaves))
    rounded = dataclasses.replace(trained, variables=round_kernels(trained.variables))
    rounding = _compare(trained, rounded, images)
    description, weights = _describe(trained if rounding is None else rounded)
    check_size(len(weights))
    description["weights"] = base64.b64encode(weights).decode()
    return Network(description, len(weights), rounding, len(images))


def check_size(num_bytes: int) -> None:
    """Refuse weights of more than `LIMIT` bytes.

    Raises:
        UserError: naming both sizes.
    """
    if num_bytes > LIMIT:
        raise UserError(
            f"the weights take {num_bytes / 1e6:,.1f} MB, and a page holds "
            f"{LIMIT / 1e6:g} MB of them: give a run of a smaller model"
        )


def round_kernels(variables: Any) -> Any:
    """Round every array of two axes and more to float16; vectors are few and stay."""

    def round_one(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf, np.float32)
        return _halve(array).astype(np.float32) if array.ndim > 1 else array

    return jax.tree.map(round_one, variables)


def _compare(trained: Trained, rounded: Trained, images: np.ndarray) -> float | None:
    """Return the largest change of a logit; None: answers change."""
    structure = make_structure(trained)
    predict = jax.jit(steps.predict_step, static_argnums=0)
    own, other = (
        map_batches(
            lambda batch, one=one: predict(structure, one.variables, batch),
            images,
            pixels=images[0, :, :, 0].size,
        )
        for one in (trained, rounded)
    )
    change = float(np.abs(own - other).max())
    are_same = np.array_equal(_answer(trained, own), _answer(trained, other))
    return change if are_same and change <= TOLERANCE else None  # None of NaN too


def _answer(trained: Trained, logits: np.ndarray) -> np.ndarray:
    """Return the class of each image [N], or where it may have several these."""
    task = trained.structure.task
    if task is not MULTILABEL:
        return logits.argmax(axis=1)
    probabilities = np.asarray(task.to_probabilities(logits))
    return multilabel.choose_labels(probabilities, trained.thresholds)


def _describe(trained: Trained) -> tuple[dict[str, Any], bytes]:
    """Return what the interpreter loads, without the weights, and these."""
    structure, stages = make_structure(trained), []

    def compute(variables: Mapping[str, Any], images: jax.Array) -> Any:
        scaled = scaling.scale_images(images, structure.mean, structure.std)
        logits, updated = structure.model.apply(variables, scaled, mutable=["features"])
        found = traverse_util.flatten_dict(dict(updated.get("features", {})), sep="/")
        stages[:] = [name.removesuffix("_out") for name in found]
        return logits, *(x[0] for x in found.values())

    try:
        graph, results = write_graph(compute, trained, jnp.float32, NHWC)
    except UserError as error:
        raise UserError(f"the page cannot compute the network: {error}") from None
    _check_operations(graph)
    constants, weights = _store(name_constants(graph))
    logits, *maps = [tensor.name for tensor in results]
    description = {
        "input": INPUT,
        "image_shape": list(trained.image_shape),
        "logits": logits,
        "stages": [
            {"name": name, "value": value}
            for name, value in zip(stages, maps, strict=True)
        ],
        "operations": [_describe_node(node) for node in graph.nodes],
        "constants": constants,
    }
    return description, weights


def _check_operations(graph: Graph) -> None:
    for node in graph.nodes:
        is_flat = node.op in ("Conv", "MaxPool", "AveragePool")
        axes = len(node.attributes["kernel_shape"]) if is_flat else 2
        if node.op not in OPERATIONS or axes != 2:
            what = node.op if axes == 2 else f"{node.op} of {axes} axes"
            raise UserError(
                f"the page cannot compute {what} of {node.name}: add it to "
                "cnn/visualize/page/network.js"
            )


def _describe_node(node: Node) -> dict[str, Any]:
    return {
        "op": node.op,
        "name": node.name,
        "inputs": [tensor.name for tensor in node.inputs],
        "output": node.output,
        "attributes": node.attributes,
    }


def _halve(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # inf is no rounded number, and is told from one
        return array.astype(np.float16)


def _store(arrays: Mapping[str, np.ndarray]) -> tuple[list[dict[str, Any]], bytes]:
    """Describe constants, and lay those of many floats out one behind the other.

    What float16 holds exactly, as rounded kernels, is stored as that.
    """
    described, weights = [], bytearray()
    for name, array in arrays.items():
        about: dict[str, Any] = {"name": name, "shape": list(array.shape)}
        if array.size == 1 or not np.issubdtype(array.dtype, np.floating):
            described.append(
                about | {"type": "list", "numbers": array.ravel().tolist()}
            )
            continue
        array = array.astype(np.float32)
        halves = _halve(array)
        stored = halves if (halves.astype(np.float32) == array).all() else array
        described.append(about | {"type": str(stored.dtype), "start": len(weights)})
        weights += stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        weights += bytes(-len(weights) % _ALIGNED)
    return described, bytes(weights)
