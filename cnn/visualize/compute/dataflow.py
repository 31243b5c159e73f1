"""A model's dataflow: its layers and operations, and which takes what of which.

It follows from the operations that the model really performs, traced without computing
anything. Each call of a module is traced as a function of its own, so that operations
come nested as the modules are, and no name says what a model is made of. Operations
between modules that matter to a reader (pooling, sums, concatenations, activations,
rearrangements) are steps too; what only scales, casts or broadcasts is none.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from cnn.models.summary import count_macs
from cnn.models.variables import count_parameters, create_variables, is_kernel
from cnn.visualize.compute import operations, receptive_field
from cnn.visualize.compute.receptive_field import Field

INPUT = -1
# What they make when their input is multiplied with it, as jax.nn spells it out.
_SELF_GATED = {"sigmoid": "SiLU", "erf": "GELU", "tanh": "GELU"}
_JOINS = {"add": "+", "add_any": "+", "mul": "×", "concatenate": "concat"}


@dataclasses.dataclass(frozen=True)
class Step:
    """One layer or operation.

    Attributes:
        kind: convolution, dense, normalisation, activation, pooling, rearrangement,
            regularisation, join or other.
        title: what it does, as `conv 3×3, 64, /2`.
        path: of the module; empty for an operation between modules.
        shape: of the result for one image: (H, W, channels) or (units,).
        parameters: how many numbers it learns.
        macs: multiply-accumulates for one image, as `summary.describe_model` counts.
        field: which pixels each value of the result is computed of.
    """

    kind: str
    title: str
    path: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    field: Field


@dataclasses.dataclass
class Node:
    """A step and the nodes that it takes; `inside` are those of a module of modules."""

    step: Step
    sources: list[int]
    inside: "Graph | None" = None


@dataclasses.dataclass
class Graph:
    """Nodes in the order of computation; `output` is the number of the last one.

    A source that is `INPUT` is what the graph itself is given.
    """

    nodes: list[Node]
    output: int


@dataclasses.dataclass(frozen=True)
class _Called:
    """A call of a module: `own` are its own parameters' shapes by name."""

    path: str
    type: str
    own: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class _Context:
    """What the graphs of one model share.

    Attributes:
        called: the calls of modules, by the name of the function that is one.
        parameters: shapes by path.
        rows: of `summary.describe_model`, by path.
        shown: as of `trace`.
        counted: paths of the parameters and modules that a step has already.
    """

    called: Mapping[str, _Called]
    parameters: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    shown: Sequence[str]
    counted: set[str]

    def take(self, path: str) -> tuple[int, int]:
        """Count the parameters and MACs of a module; nothing when asked again."""
        if path in self.counted:
            return 0, 0
        self.counted.add(path)
        rows = [x for p, x in self.rows.items() if f"{p}/".startswith(f"{path}/")]
        return sum(x["parameters"] for x in rows), sum(x["macs"] for x in rows)


@dataclasses.dataclass(frozen=True)
class _Move:
    """A rearrangement of an array: `kind` and the title that it has alone."""

    kind: str
    title: str
    shape: tuple[int, ...]
    field: Field


@dataclasses.dataclass(frozen=True)
class _Value:
    """What is known of an array: its field, None where no image reaches it.

    `moved` are the rearrangements between the node `source` and it, `parameters` the
    paths of those that it is made of.
    """

    field: Field | None = None
    source: int = INPUT
    moved: tuple[_Move, ...] = ()
    parameters: frozenset[str] = frozenset()


def trace(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    layers: Sequence[Mapping[str, Any]],
    shown: Sequence[str] = (),
) -> Graph:
    """Trace the dataflow of a model that evaluates images.

    Args:
        image_shape: (H, W, C).
        layers: of `summary.describe_model`.
        shown: types of modules that are steps although they change nothing in
            evaluation, such as `Dropout`.

    Raises:
        UserError: the image is too small for the model.
    """
    called: dict[str, _Called] = {}
    variables = jax.eval_shape(lambda: create_variables(model, 0, image_shape))
    # Two images, so that the axis of images is not taken for an axis of length one.
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

    def run(variables: Any, images: jax.Array) -> jax.Array:
        with nn.intercept_methods(_nest(called)):
            return model.apply(variables, images)

    closed = jax.make_jaxpr(run)(variables, images)
    parameters = _list_parameters(variables)
    rows = {row["path"]: row for row in layers}
    context = _Context(called, parameters, rows, shown, set())
    values = [_Value(parameters=frozenset({path})) for path in parameters]
    builder = _Builder(context)
    builder.walk(closed.jaxpr, [*values, _Value(receptive_field.PIXELS)])
    root = builder.nodes[-1]
    assert root.inside, "a model is a module that computes something"
    return root.inside


def _list_parameters(variables: Any) -> dict[str, Any]:
    """List the variables' shapes by path, parameters by theirs within `params`.

    They are in the order in which a traced function takes them.
    """
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    paths = [jax.tree_util.keystr(x, simple=True, separator="/") for x, _ in leaves]
    names = [path.removeprefix("params/") for path in paths]
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


def _nest(called: dict[str, _Called]) -> Callable[..., Any]:
    """Return an interceptor that traces each call of a module as its own function."""

    def nest(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = {i: x for i, x in enumerate(leaves) if isinstance(x, jax.Array)}
        module = context.module

        def run(*given: jax.Array) -> Any:
            filled = dict(enumerate(leaves)) | dict(zip(arrays, given, strict=True))
            args, kwargs = jax.tree.unflatten(tree, list(filled.values()))
            return call(*args, **kwargs)

        run.__name__ = f"module_{len(called)}"
        called[run.__name__] = _Called("/".join(module.path), type(module).__name__, {})
        result = jax.jit(run)(*arrays.values())
        params = module.variables.get("params", {})
        own = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in params.items()
            if hasattr(leaf, "shape")
        }
        noted = called[run.__name__]
        called[run.__name__] = dataclasses.replace(noted, own=own)
        return result

    return nest


class _Builder:
    """Builds one graph while operations are followed in their order."""

    def __init__(self, context: _Context) -> None:
        self._context = context
        self.nodes: list[Node] = []
        self._settled: dict[tuple[int, tuple[_Move, ...]], int] = {}
        # Nodes of several operations, which go on until another node takes them.
        self._open: set[int] = set()
        self._kernels: dict[str, int] = {}

    def walk(
        self, jaxpr: core.Jaxpr, values: Sequence[_Value | None]
    ) -> list[_Value | None]:
        """Follow operations; None stands for what depends on neither."""
        known = dict(zip(jaxpr.invars, values, strict=True))

        def get(var: Any) -> _Value | None:
            return None if isinstance(var, core.Literal) else known.get(var)

        for eqn in jaxpr.eqns:
            inputs = [get(var) for var in eqn.invars]
            if any(inputs):
                known |= zip(eqn.outvars, self._follow(eqn, inputs), strict=True)
        return [get(var) for var in jaxpr.outvars]

    def settle(self, value: _Value) -> int:
        """Return the node that a value is, with its rearrangements as nodes."""
        key = value.source, value.moved
        if key not in self._settled:
            source = value.source
            for step in _merge_moves(self._get_shape(source), value.moved):
                source = self._add(step, [source])
            self._settled[key] = source
        return self._settled[key]

    def _get_shape(self, source: int) -> tuple[int, ...]:
        return self.nodes[source].step.shape if source != INPUT else ()

    def _add(self, step: Step, sources: list[int]) -> int:
        self.nodes.append(Node(step, sources))
        return len(self.nodes) - 1

    def _follow(
        self, eqn: core.JaxprEqn, inputs: list[_Value | None]
    ) -> list[_Value | None]:
        """Follow one operation, and into those that are calls."""
        parameters = frozenset().union(*(x.parameters for x in inputs if x)) - {""}
        if not any(x and x.field for x in inputs):
            return [_Value(parameters=parameters)] * len(eqn.outvars)
        name, body = operations.get_name(eqn), receptive_field.get_body(eqn)
        if name in self._context.called:
            return self._enter(eqn, inputs, self._context.called[name])
        if body and name not in operations.ACTIVATIONS:
            return self.walk(body, inputs[len(inputs) - len(body.invars) :])
        if eqn.primitive.name == "optimization_barrier":
            return inputs
        fields = _follow_fields(eqn, inputs)
        if eqn.primitive.name == "split":
            return _split(eqn, inputs[0], fields)
        seen = [x for x in inputs if x and x.field]
        if parameters:
            return [self._meet_parameters(eqn, seen, parameters, fields[0])]
        return [self._apply(eqn, seen, fields[0])] * len(eqn.outvars)

    def _apply(self, eqn: core.JaxprEqn, seen: list[_Value], field: Field) -> _Value:
        """Follow an operation of images alone that is no call."""
        shape, found = (
            tuple(eqn.outvars[0].aval.shape[1:]),
            operations.name_operation(eqn),
        )
        source = seen[0].source
        if len({(x.source, x.moved) for x in seen}) > 1 and not (
            source in self._open and {x.source for x in seen} == {source}
        ):
            return self._join(eqn.primitive.name, seen, shape, field)
        if source in self._open and eqn.primitive.name != "reshape":
            if not found or found[1] == self.nodes[source].step.title:
                return self._finish(source, shape, field)
        if not found:
            moved, named = seen[0].moved, operations.name_move(eqn)
            moved += (_Move(*named, shape, field),) if named else ()
            return _Value(field, source, moved)
        moved = () if all(x.kind == "pad" for x in seen[0].moved) else seen[0].moved
        source = self.settle(dataclasses.replace(seen[0], moved=moved))
        number = self._add(Step(*found, "", shape, 0, 0, field), [source])
        if eqn.primitive.name == "dot_general":
            self._open.add(number)
        return _Value(field, number)

    def _finish(self, number: int, shape: tuple[int, ...], field: Field) -> _Value:
        """Let a node have an operation that belongs to it."""
        node = self.nodes[number]
        node.step = dataclasses.replace(node.step, shape=shape, field=field)
        return _Value(field, number)

    def _join(
        self, kind: str, seen: list[_Value], shape: tuple[int, ...], field: Field
    ) -> _Value:
        is_one = len({x.source for x in seen}) == 1
        if kind == "concatenate" and is_one and all(map(_is_sliced, seen)):
            # Parts of one array, in another order.
            return _Value(field, seen[0].source, (_Move("order", kind, shape, field),))
        sources = list(dict.fromkeys(self.settle(x) for x in seen))
        for source in sources:
            others = [x for x in sources if x != source]
            node = self.nodes[source] if source != INPUT else None
            if not node or node.sources != others or kind != "mul":
                continue
            title = _SELF_GATED.get(node.step.title, node.step.title)
            if node.step.kind == "normalisation" or title != node.step.title:
                # What it is multiplied with is of what is multiplied.
                node.step = dataclasses.replace(node.step, title=title)
                return _Value(field, source)
        step = Step("join", _JOINS.get(kind, kind), "", shape, 0, 0, field)
        return _Value(field, self._add(step, sources))

    def _meet_parameters(
        self,
        eqn: core.JaxprEqn,
        seen: list[_Value],
        parameters: frozenset[str],
        field: Field,
    ) -> _Value:
        """Follow an operation of images and of parameters right in the module."""
        context, shape = self._context, tuple(eqn.outvars[0].aval.shape[1:])
        fresh = sorted(parameters - context.counted)
        context.counted.update(fresh)
        own = {path: context.parameters[path] for path in fresh}
        count, source = count_parameters(own), seen[0].source
        # Its kernel at another place, or its bias.
        source = self._kernels.get(min(parameters), source)
        if source in self._open:
            node = self.nodes[source]
            total = node.step.parameters + count
            node.step = dataclasses.replace(node.step, parameters=total)
            return self._finish(source, shape, field)
        name = min(parameters).rpartition("/")[2]
        if any(map(is_kernel, parameters)):
            title, path = (
                operations.name_kernel([eqn], context.parameters[min(parameters)]),
                name,
            )
            macs = count_macs(own, eqn.outvars[0].aval)
        else:
            title, path, macs = ("normalisation", name.replace("_", " ")), "", 0
            source = self.settle(seen[0])
        step = Step(*title, path, shape, count, macs, field)
        number = self._add(step, [source])
        if path:
            self._open.add(number)
            self._kernels[min(parameters)] = number
        return _Value(field, number)

    def _enter(
        self, eqn: core.JaxprEqn, inputs: list[_Value | None], module: _Called
    ) -> list[_Value | None]:
        """Follow the call of a module: one step, or a graph of its own."""
        body, context = eqn.params["jaxpr"].jaxpr, self._context
        given = list(dict.fromkeys(x for x in inputs if x and x.field))
        is_leaf = module.path and module.own and not _has_calls(body, context.called)
        if not is_leaf and len(given) == len(body.outvars) == 1:
            inside = _Builder(context)
            entering = [_Value(x.field) if x and x.field else x for x in inputs]
            result = inside.walk(body, entering)[0]
            output = inside.settle(result)
            if inside.nodes:
                last = inside.nodes[output].step
                step = dataclasses.replace(
                    last, kind="block", title=module.type, path=module.path
                )
                graph = Graph(inside.nodes, output)
                return [_Value(result.field, self._add_block(step, given[0], graph))]
            if module.type not in context.shown:
                return [given[0]]
        fields = _follow_fields(eqn, inputs)
        shape = tuple(body.outvars[0].aval.shape[1:])
        kind, title = _name_module(module, body)
        count, macs = context.take(module.path)
        step = Step(kind, title, module.path, shape, count, macs, fields[0])
        number = self._add(step, [self.settle(x) for x in given])
        return [_Value(field, number) for field in fields]

    def _add_block(self, step: Step, given: _Value, graph: Graph) -> int:
        self.nodes.append(Node(step, [self.settle(given)], graph))
        return len(self.nodes) - 1


def _follow_fields(
    eqn: core.JaxprEqn, inputs: Sequence[_Value | None]
) -> list[Field | None]:
    return receptive_field.follow(eqn, [x.field if x else None for x in inputs])


def _is_sliced(value: _Value) -> bool:
    return {move.kind for move in value.moved} in ({"slice"}, {"slice", "order"})


def _split(
    eqn: core.JaxprEqn, value: _Value, fields: Sequence[Field | None]
) -> list[_Value]:
    """Name the parts that channels are split into."""
    start, parts = 0, []
    for var, field in zip(eqn.outvars, fields, strict=True):
        shape = tuple(var.aval.shape[1:])
        size = var.aval.shape[eqn.params["axis"]]
        title = operations.name_channels(start, size)
        moved = *value.moved, _Move("slice", title, shape, field)
        parts.append(_Value(field, value.source, moved))
        start += size
    return parts


def _has_calls(jaxpr: core.Jaxpr, called: Mapping[str, _Called]) -> bool:
    """Return whether modules are called anywhere inside."""
    for eqn in jaxpr.eqns:
        body = receptive_field.get_body(eqn)
        if operations.get_name(eqn) in called or (body and _has_calls(body, called)):
            return True
    return False


def _name_module(module: _Called, body: core.Jaxpr) -> tuple[str, str]:
    """Return the kind and the title of a module that is one step."""
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", module.type).lower()
    kernels = [leaf for name, leaf in module.own.items() if is_kernel(name)]
    if len(kernels) == 1:
        return operations.name_kernel(operations.list_operations(body), kernels[0])
    if kernels:
        return "other", title
    return ("normalisation" if module.own else "regularisation"), title


def _merge_moves(before: tuple[int, ...], moved: Sequence[_Move]) -> Iterator[Step]:
    """Yield the steps that rearrangements are, those of one kind as one."""
    for kind, group in itertools.groupby(moved, key=lambda move: move.kind):
        moves = list(group)
        last, title = moves[-1], moves[-1].title
        after = last.shape
        if kind in ("order", "flatten"):
            is_kept = all(move.title == "reshape" for move in moves)
            title = operations.name_order(before, after)
            if is_kept and _squeeze(before) == _squeeze(after):
                continue
        yield Step("rearrangement", title, "", after, 0, 0, last.field)
        before = after


def _squeeze(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size > 1]
