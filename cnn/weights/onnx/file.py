"""The ONNX file of a trained run, and onnxruntime's logits beside ours.

Input `images`; outputs `logits` [N, K] and, before them where the preprocessing is
inside, `probabilities` [N, K]; any N, height and width of the run. Opset 17 is the
first with layer normalisation; onnxruntime reads it since 1.12. The properties of the
file hold `model`, `class_names`, `mean` and `std`, all but the first as JSON.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.ops import scaling
from cnn.training.tasks import MULTILABEL, Task
from cnn.training.trained import Trained
from cnn.weights.onnx.compare import check_logits
from cnn.weights.onnx.graph import Graph, Node, Tensor, name_constants
from cnn.weights.onnx.trace import INPUT, make_graph

OPSET, IR_VERSION = 17, 8
_TOLERANCE = 1e-4
_LIMIT = 2**31 - 2**20  # bytes of a protobuf file, less what is not an array


def make_file(trained: Trained, preprocessing: bool) -> bytes:
    """Make the ONNX file of a loaded run, computing in float32.

    Args:
        preprocessing: whether `images` are uint8 [N, H, W, C], scaled inside; else
            they are float32 [N, C, H, W], scaled by the run's mean and deviation.

    Raises:
        UserError: the package onnx is missing, the model computes what has no
            counterpart, or it is larger than such a file can be.
    """
    try:
        import onnx
    except ImportError:
        raise UserError(
            "--export_format=onnx needs onnx: pip install onnx onnxruntime"
        ) from None
    graph, logits = make_graph(trained, preprocessing)
    task = trained.structure.task
    names = _name_outputs(graph, logits, task if preprocessing else None)
    constants = name_constants(graph)
    if sum(array.nbytes for array in constants.values()) > _LIMIT:
        raise UserError(
            "The weights are larger than the 2 GB that an ONNX file holds; export "
            "another --export_format"
        )
    model = _make_model(trained, graph, constants, names, preprocessing)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"onnx refuses what was made ({reason}); nothing was written. Please "
            "report model and versions"
        ) from None
    return model.SerializeToString()


def check_file(trained: Trained, content: bytes, preprocessing: bool) -> float | None:
    """Compare onnxruntime's logits with ours.

    Returns:
        The largest difference over the largest logit; None without onnxruntime.

    Raises:
        UserError: it is more than rounding explains.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def compute(pixels: np.ndarray) -> np.ndarray:
        images = pixels if preprocessing else prepare(trained, pixels)
        return session.run(["logits"], {INPUT: images})[0]

    return check_logits(trained, compute, _TOLERANCE, "onnxruntime")


def prepare(trained: Trained, images: np.ndarray) -> np.ndarray:
    """Scale uint8 [N, H, W, C] as a file without preprocessing takes them."""
    structure = trained.structure
    scaled = scaling.scale_images(images, structure.mean, structure.std)
    return np.asarray(scaled).transpose(0, 3, 1, 2)


def _name_outputs(graph: Graph, logits: Tensor, task: Task | None) -> list[str]:
    """Name the logits, and add probabilities; return the outputs' names in order.

    Args:
        task: whose probabilities are added; None: none.
    """
    graph.makers[logits.name].output = "logits"
    logits = dataclasses.replace(logits, name="logits")
    if task is None:
        return ["logits"]
    op, attributes = "Softmax", {"axis": -1}
    if task is MULTILABEL:
        op, attributes = "Sigmoid", {}
    graph.nodes.append(Node(op, op, [logits], "probabilities", attributes))
    return ["probabilities", "logits"]


def _make_model(
    trained: Trained,
    graph: Graph,
    constants: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    preprocessing: bool,
) -> Any:
    """Put onnx's model together from a graph whose outputs are named."""
    import onnx

    height, width, channels = trained.image_shape
    shape = (height, width, channels) if preprocessing else (channels, height, width)
    kinds, make_value = onnx.TensorProto, onnx.helper.make_tensor_value_info
    kind = kinds.UINT8 if preprocessing else kinds.FLOAT
    classes = len(trained.class_names)
    proto = onnx.helper.make_graph(
        [_make_node(node) for node in graph.nodes],
        trained.options["model"],
        [make_value(INPUT, kind, ["N", *shape])],
        [make_value(name, kinds.FLOAT, ["N", classes]) for name in outputs],
        [onnx.numpy_helper.from_array(x, name) for name, x in constants.items()],
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(
        proto, opset_imports=[opset], ir_version=IR_VERSION, producer_name="cnn"
    )
    onnx.helper.set_model_props(model, _describe(trained))
    return model


def _make_node(node: Node) -> Any:
    import onnx

    attributes = {
        name: onnx.helper.np_dtype_to_tensor_dtype(value)
        if isinstance(value, np.dtype)
        else value
        for name, value in node.attributes.items()
    }
    inputs = [tensor.name for tensor in node.inputs]
    return onnx.helper.make_node(
        node.op, inputs, [node.output], name=node.name, **attributes
    )


def _describe(trained: Trained) -> dict[str, str]:
    """Make the properties of the file."""
    structure = trained.structure
    values = {
        "class_names": trained.class_names,
        "mean": structure.mean,
        "std": structure.std,
    }
    texts = {name: json.dumps(value) for name, value in values.items()}
    return {"model": trained.options["model"]} | texts
