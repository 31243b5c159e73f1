"""A model as a tree of blocks, branches and lines, equal neighbours folded.

A chain is what is computed one after the other: lines (a layer with the normalisation
and the activation around it), blocks (modules of modules), forks (branches side by side
that a sum, a product or a concatenation joins), repeats (equal blocks that follow each
other), and on top stages. It follows from `dataflow.trace` alone.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Union

import flax.linen as nn

from cnn.models.summary import describe_model
from cnn.visualize.compute import dataflow
from cnn.visualize.compute.dataflow import INPUT, Graph, Node, Step

_KERNELS = ("convolution", "dense")
_LIGHT = ("normalisation", "activation", "regularisation")
_LEAST_LINES = 3  # that are folded; of blocks two are
UNORDERED = "layers whose connections are not drawn"

Item = Union["Line", "Fork", "Block", "Repeat", "Stage"]
Chain = tuple[Item, ...]


@dataclasses.dataclass(frozen=True)
class Line:
    """Steps that are read as one: a convolution, its normalisation and its ReLU."""

    steps: tuple[Step, ...]


@dataclasses.dataclass(frozen=True)
class Fork:
    """Branches side by side, an empty one being a shortcut.

    `join` is what brings them together, None where what comes next does.
    """

    branches: tuple[Chain, ...]
    join: Step | None


@dataclasses.dataclass(frozen=True)
class Block:
    """A module of modules."""

    title: str
    path: str
    body: Chain


@dataclasses.dataclass(frozen=True)
class Repeat:
    """At least two neighbours that are alike.

    All numbers but those of their receptive fields are equal; where each is
    concatenated to what it is given, numbers of input channels differ too.
    """

    copies: tuple[Item, ...]


@dataclasses.dataclass(frozen=True)
class Stage:
    """The layers that the model's names count as one stage."""

    title: str
    body: Chain


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model for images of one shape.

    Attributes:
        image_shape: (H, W, C).
        body: from the image to the logits.
        training: steps that are computed in training alone, such as auxiliary
            classifiers: one for each layer of the model, without MACs.
    """

    image_shape: tuple[int, int, int]
    body: Chain
    training: tuple[Step, ...]

    @property
    def parameters(self) -> int:
        """Return how many numbers are learnt, those of training alone too."""
        return sum(x.parameters for x in [*list_steps(self.body), *self.training])

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of one image that is evaluated."""
        return sum(step.macs for step in list_steps(self.body))


def find_architecture(
    model: nn.Module, image_shape: tuple[int, int, int], shown: Sequence[str] = ()
) -> Architecture:
    """Find a model's architecture by tracing it; nothing is computed.

    Args:
        image_shape: (H, W, C).
        shown: as of `dataflow.trace`.

    Raises:
        UserError: the image is too small for the model.
    """
    layers = describe_model(model, image_shape)["layers"]
    graph = dataflow.trace(model, image_shape, layers, shown)
    body = _mark_stages(_fold(_arrange(graph)))
    seen = {step.path for step in list_steps(body)}
    # The model's own parameters are steps without a path in it.
    rest = [x for x in layers if x["path"] and x["path"] not in seen]
    rest = [x for x in rest if not _is_block(x["path"], graph)]
    groups = itertools.groupby(rest, key=lambda x: x["path"].partition("/")[0])
    return Architecture(
        image_shape, body, tuple(_sum_rows(path, list(rows)) for path, rows in groups)
    )


def list_steps(chain: Chain) -> Iterator[Step]:
    """Yield all steps, those of repeats as often as they are computed."""
    for item in chain:
        if isinstance(item, Line):
            yield from item.steps
        for part in list_parts(item):
            yield from list_steps(part)
        if isinstance(item, Fork) and item.join:
            yield item.join


def list_parts(item: Item) -> tuple[Chain, ...]:
    """Return the chains inside an item."""
    if isinstance(item, Fork):
        return item.branches
    if isinstance(item, Repeat):
        return (item.copies,)
    return () if isinstance(item, Line) else (item.body,)


def find_last(item: Item) -> Step:
    """Return the step whose result is the item's."""
    *_, last = list_steps((item,))
    return last


def find_path(item: Item) -> str:
    """Return the path of an item, in place of one that has none its first layer's.

    That of a line is the path of what has a kernel in it.
    """
    if isinstance(item, Block) and item.path:
        return item.path
    steps = [step for step in list_steps((item,)) if step.path]
    if isinstance(item, Line):
        steps.sort(key=lambda step: step.kind not in _KERNELS)
    return steps[0].path if steps else ""


def _is_block(path: str, graph: Graph) -> bool:
    """Return whether a path is that of a module of modules in the graph."""
    inner = [node for node in graph.nodes if node.inside]
    return any(x.step.path == path or _is_block(path, x.inside) for x in inner)


def _sum_rows(path: str, rows: Sequence[dict[str, Any]]) -> Step:
    shape = tuple(rows[-1]["output_shape"])
    parameters = sum(row["parameters"] for row in rows)
    whole = dataflow.Field()
    return Step("other", "in training alone", path, shape, parameters, 0, whole)


def _arrange(graph: Graph) -> Chain:
    """Arrange the nodes that the output depends on as a chain."""
    needed = {graph.output}
    for number in range(graph.output, -1, -1):
        if number in needed:
            needed.update(graph.nodes[number].sources)
    region = sorted(needed - {INPUT})
    return _Arrangement(graph.nodes, region).lay(INPUT, region, None)


class _Arrangement:
    """Takes a graph apart into what comes one after the other and side by side."""

    def __init__(self, nodes: Sequence[Node], needed: Sequence[int]) -> None:
        """Take the nodes, and the numbers of those that matter."""
        self._nodes = nodes
        self._readers: dict[int, list[int]] = {x: [] for x in (INPUT, *needed)}
        for number in needed:
            for source in nodes[number].sources:
                self._readers[source].append(number)

    def lay(self, start: int, region: list[int], end: int | None) -> Chain:
        """Arrange what lies between two nodes, in the order of computation.

        A node that no connection of those before it bypasses is a link of the chain.
        """
        chain: list[Item] = []
        places = {number: place for place, number in enumerate(region)}
        reach = max((places[x] for x in self._readers[start] if x in places), default=0)
        before, between = start, []
        for place, number in enumerate(region):
            if reach <= place:
                chain += self._join(before, between, number)
                before, between = number, []
            else:
                between.append(number)
            readers = self._readers[number]
            far = [places.get(reader, len(region)) for reader in readers]
            reach = max([reach, *far])
        if between == region:
            body = tuple(self._make(number) for number in region)
            return (Block(UNORDERED, "", _fuse(body)),)
        if between:
            chain.append(Fork(self._branch(before, between, end), None))
        return _fuse(chain)

    def _join(self, start: int, between: list[int], end: int) -> list[Item]:
        """Return the branches between two links, and the second link."""
        step = self._nodes[end].step
        if not between:
            return [self._make(end)]
        branches = self._branch(start, between, end)
        if step.kind == "join":
            return [Fork(branches, step)]
        return [Fork(branches, None), self._make(end)]

    def _branch(
        self, start: int, between: list[int], end: int | None
    ) -> tuple[Chain, ...]:
        """Part what is not connected, and arrange each part; a shortcut comes last."""
        groups: list[set[int]] = []
        for number in between:
            linked = {number, *self._nodes[number].sources} & set(between)
            touched = [group for group in groups if group & linked]
            groups = [group for group in groups if not group & linked]
            groups.append(linked.union(*touched))
        order = self._nodes[end].sources if end is not None else []
        # As what joins them takes them.
        groups.sort(
            key=lambda x: [i for i, n in enumerate(order) if n in x] or [min(x)]
        )
        branches = [self.lay(start, sorted(group), end) for group in groups]
        return (*branches, ()) if end in self._readers[start] else tuple(branches)

    def _make(self, number: int) -> Item:
        node = self._nodes[number]
        if node.inside is None:
            return Line((node.step,))
        return Block(node.step.title, node.step.path, _arrange(node.inside))


def _fuse(chain: Sequence[Item]) -> Chain:
    """Make one line of a layer and the normalisation and activation around it."""
    fused: list[Item] = []
    for is_line, group in itertools.groupby(chain, lambda x: isinstance(x, Line)):
        if not is_line:
            fused += group
            continue
        steps = [step for line in group for step in line.steps]
        fused += [Line(part) for part in _part(steps)]
    return tuple(fused)


def _part(steps: list[Step]) -> Iterator[tuple[Step, ...]]:
    """Part steps into lines; a layer has what comes before it where all begins so."""
    kernels = [place for place, x in enumerate(steps) if x.kind in _KERNELS]
    comes_first = bool(kernels) and all(x.kind in _LIGHT for x in steps[: kernels[0]])
    comes_first = comes_first and kernels[0] > 0
    part: list[Step] = []
    for place, step in enumerate(steps):
        has_kernel = any(x.kind in _KERNELS for x in part)
        if step.kind in _LIGHT:
            is_next = comes_first and has_kernel and place < kernels[-1]
        else:
            is_next = not (step.kind in _KERNELS and comes_first and not has_kernel)
        is_alone = bool(part) and part[0].kind not in (*_KERNELS, *_LIGHT)
        if part and (is_next or is_alone):
            yield tuple(part)
            part = []
        part.append(step)
    yield tuple(part)


def _fold(chain: Chain) -> Chain:
    """Fold neighbours that are alike, here and inside."""
    folded: list[Item] = []
    for _, group in itertools.groupby(chain, key=_describe_item):
        copies = tuple(_fold_inside(item) for item in group)
        least = _LEAST_LINES if isinstance(copies[0], Line) else 2
        folded += copies if len(copies) < least else [Repeat(copies)]
    return tuple(folded)


def _fold_inside(item: Item) -> Item:
    if isinstance(item, Fork):
        return Fork(tuple(_fold(branch) for branch in item.branches), item.join)
    return Block(item.title, item.path, _fold(item.body)) if _has_body(item) else item


def _has_body(item: Item) -> bool:
    return isinstance(item, Block | Stage)


def _describe_item(item: Item) -> Any:
    """Return what is equal of items that are alike."""
    grows = isinstance(item, Fork) and item.join and item.join.title == "concat"
    return _describe_parts(item, bool(grows) and () in item.branches)


def _describe_parts(item: Item, grows: bool) -> Any:
    """Return an item's structure with its numbers; without input channels if it grows.

    What it is concatenated to is then wider for each copy.
    """
    own: list[Any] = [type(item).__name__]
    steps = item.steps if isinstance(item, Line) else ()
    if isinstance(item, Fork) and item.join:
        steps = (item.join,)
    for step in steps:
        if grows:
            own.append((step.kind, step.title, step.shape[:-1]))
        else:
            own.append((step.kind, step.title, step.shape, step.parameters, step.macs))
    parts = [[_describe_parts(x, grows) for x in part] for part in list_parts(item)]
    return [*own, getattr(item, "title", ""), *parts]


def _mark_stages(chain: Chain) -> Chain:
    """Put neighbours whose names begin with the same `stageN` into a stage."""
    marked: list[Item] = []
    for stage, group in itertools.groupby(chain, key=_name_stage):
        items = tuple(group)
        is_one = not stage or len(items) == 1
        marked += items if is_one else [Stage(stage, items)]
    return tuple(marked)


def _name_stage(item: Item) -> str:
    found = re.match(r"stage(\d+)(_|$)", find_path(item).partition("/")[0])
    return f"stage {found[1]}" if found else ""
