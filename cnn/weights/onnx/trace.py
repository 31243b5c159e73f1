"""From a model to the graph of its evaluation, by way of its jaxpr.

The model computes in float32 and in the plain formulation of convolution; the number
of images is the symbol N. Parameters and running statistics are constants that bear
their paths.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.tree_util import keystr

from cnn import models
from cnn.models import layers, own
from cnn.models.options import ModelOptions
from cnn.ops import standardization
from cnn.option import read_group
from cnn.training import steps
from cnn.training.steps import Structure
from cnn.training.trained import Trained
from cnn.weights.onnx.fuse import drop_unused, fuse_biases
from cnn.weights.onnx.graph import Graph, Order, Tensor, make_constant
from cnn.weights.onnx.primitives import PRIMITIVES, Call

INPUT = "images"
# Calls of a function once, whose operations are written in its place.
_CALLS = ("jit", "pjit", "closed_call", "checkpoint")
_CALLS += ("custom_jvp_call", "custom_vjp_call")
NHWC, NCHW = (0, 1, 2, 3), (0, 3, 1, 2)

# What is computed of parameters alone and is one constant: its name is known to
# `torch_model`, which computes it of the tensor in the state dict.
STANDARDIZED = "standardize_kernel"

# Normalisations as one operation each: ONNX has them, and runtimes join them to the
# convolution before. They are only ever written down, so that shapes are all they know.
batch_normalization = core.Primitive("batch_normalization")
layer_normalization = core.Primitive("layer_normalization")
for _primitive in (batch_normalization, layer_normalization):
    _primitive.def_abstract_eval(lambda x, *vectors, epsilon: x)


def make_structure(trained: Trained) -> Structure:
    """Return a run's structure in float32 and with plain convolutions."""
    options = read_group(ModelOptions, trained.options)
    options = dataclasses.replace(options, convolution="plain")
    model = models.create_model(options, len(trained.class_names))
    return dataclasses.replace(trained.structure, model=model)


def make_graph(trained: Trained, preprocessing: bool) -> tuple[Graph, Tensor]:
    """Write down the graph from `images` to logits.

    Args:
        preprocessing: whether images are uint8 [N, H, W, C], scaled in the graph; else
            they are float32 [N, C, H, W], standardised already.

    Returns:
        The graph and its logits [N, K].

    Raises:
        UserError: something that the model computes has no counterpart.
    """
    structure = make_structure(trained)

    def compute(variables: Any, images: jax.Array) -> jax.Array:
        if preprocessing:
            return steps.predict_step(structure, variables, images)
        return structure.model.apply(variables, images, train=False)

    dtype, order = (jnp.uint8, NHWC) if preprocessing else (jnp.float32, NCHW)
    graph, (logits,) = write_graph(compute, trained, dtype, order)
    return graph, logits


def write_graph(
    compute: Callable[[Any, jax.Array], Any],
    trained: Trained,
    dtype: jax.typing.DTypeLike,
    order: Order,
) -> tuple[Graph, list[Tensor]]:
    """Write down the graph from `images` to the arrays that a function returns.

    Args:
        compute: of the run's variables and images [N, H, W, C] of that type.
        order: of the axes in which the graph takes the images.

    Returns:
        The graph, and what each array of the result is: [N, C, H, W] of images and
        maps, all other axes in JAX's order.

    Raises:
        UserError: the function computes what has no counterpart.
    """

    def write(variables: Any, images: jax.Array) -> Any:
        with nn.intercept_methods(_write_norms):
            return compute(variables, images)

    (count,) = jax.export.symbolic_shape("N")
    shape = (count, *trained.image_shape)
    with own.explaining(trained.options["model"], own.ANY_NUMBER):
        closed = jax.make_jaxpr(write)(
            trained.variables, jax.ShapeDtypeStruct(shape, dtype)
        )
    leaves = jax.tree_util.tree_flatten_with_path(trained.variables)[0]
    constants = [
        make_constant(array, keystr(path, simple=True, separator="/"))
        for path, array in leaves
    ]
    tensor = Tensor(INPUT, order, tuple(shape[axis] for axis in order))
    graph = Graph()
    found = _translate(graph, closed, [*constants, tensor], "")
    results = [
        graph.complete(
            x, NCHW if like.ndim == 4 else tuple(range(like.ndim)), like.shape
        )
        for x, like in zip(found, closed.out_avals, strict=True)
    ]
    fuse_biases(graph, results)
    drop_unused(graph, results)
    return graph, results


def _write_norms(
    next_call: Callable, args: tuple, kwargs: dict, context: Any
) -> jax.Array:
    """Apply a normalisation as one operation, and any other module as it is."""
    module = context.module
    if context.method_name != "__call__" or module.is_initializing():
        return next_call(*args, **kwargs)
    params = module.variables.get("params", {})
    if type(module) is layers.BatchNorm:
        stats = module.variables["batch_stats"]
        ones = jnp.ones_like(stats["mean"])
        vectors = params.get("scale", ones), params["bias"], stats["mean"], stats["var"]
        return batch_normalization.bind(args[0], *vectors, epsilon=module.epsilon)
    if type(module) is nn.LayerNorm and params.keys() == {"scale", "bias"}:
        vectors = params["scale"], params["bias"]
        return layer_normalization.bind(args[0], *vectors, epsilon=module.epsilon)
    return next_call(*args, **kwargs)


def _translate(
    graph: Graph, closed: core.ClosedJaxpr, operands: list[Tensor], scope: str
) -> list[Tensor]:
    """Write the nodes of a jaxpr, those of the functions that it calls in their place.

    Args:
        operands: what it is called with.
        scope: the layer that calls it.
    """
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, map(make_constant, closed.consts), strict=True))
    known |= dict(zip(jaxpr.invars, operands, strict=True))

    def read(atom: Any) -> Tensor:
        if isinstance(atom, core.Literal):
            return make_constant(np.asarray(atom.val, atom.aval.dtype))
        return known[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        stack = str(equation.source_info.name_stack)
        graph.scope = "/".join(name for name in (scope, stack) if name)
        inner = _find_function(equation)
        if equation.params.get("name") == STANDARDIZED:
            outputs = [_standardize(*inputs)]
        elif inner is not None:
            outputs = _translate(graph, inner, inputs, graph.scope)
        elif equation.primitive.name == "optimization_barrier":
            outputs = inputs
        elif equation.primitive.name == "platform_index":
            outputs = [make_constant(np.int32(0))]  # of no platform: the default's
        elif branch := _find_default(equation):
            outputs = _translate(graph, branch, inputs[1:], graph.scope)
        else:
            outputs = _write(graph, equation, inputs)
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _standardize(kernel: Tensor) -> Tensor:
    """Compute the constant that a standardised kernel is."""
    array = np.asarray(standardization.standardize_kernel(kernel.array))
    return make_constant(array, f"{kernel.name}/{STANDARDIZED}")


def _find_function(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Return the function that an equation calls once, whatever kind the call is."""
    if equation.primitive.name not in _CALLS:
        return None
    params = equation.params
    inner = params["call_jaxpr" if "call_jaxpr" in params else "jaxpr"]
    return core.ClosedJaxpr(inner, ()) if isinstance(inner, core.Jaxpr) else inner


def _find_default(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Return what is computed on platforms that have no formulation of their own."""
    platforms = equation.params.get("branches_platforms")
    if equation.primitive.name != "cond" or platforms is None:
        return None
    return equation.params["branches"][platforms.index(None)]


def _write(
    graph: Graph, equation: core.JaxprEqn, operands: list[Tensor]
) -> list[Tensor]:
    """Write an equation's nodes; compute it instead where all operands are known."""
    name = equation.primitive.name
    shapes = [atom.aval.shape for atom in equation.invars]
    result = equation.outvars[0].aval
    known = all(operand.array is not None for operand in operands)
    if known and name != "broadcast_in_dim" and not _depends_on_images(equation):
        pairs = zip(operands, shapes, strict=True)
        full = [graph.complete(x, tuple(range(len(n))), n) for x, n in pairs]
        values = equation.primitive.bind(*[x.array for x in full], **equation.params)
        values = values if equation.primitive.multiple_results else [values]
        named = next((x.name for x in full if x.name != "constant"), None)
        name = f"{named}/{name}" if named else "constant"
        return [make_constant(value, name) for value in values]
    if name not in PRIMITIVES:
        raise graph.refuse(f"the operation {name}")
    call = Call(graph, name, equation.params, shapes, result.shape, result.dtype)
    found = PRIMITIVES[name](call, *operands)
    return found if isinstance(found, list) else [found]


def _depends_on_images(equation: core.JaxprEqn) -> bool:
    """Return whether the shape of a result depends on the number of images."""
    sizes = [size for var in equation.outvars for size in var.aval.shape]
    return not all(isinstance(size, int) for size in sizes)
