"""What is written about architectures: boxes, headings, and all of it in words.

Of items that are drawn as one, `a…b` is what the first and the last of them have.
"""

from collections.abc import Sequence

from cnn.visualize.compute import architecture
from cnn.visualize.compute.architecture import (
    Architecture,
    Block,
    Chain,
    Fork,
    Item,
    Line,
    Repeat,
    Stage,
)
from cnn.visualize.compute.dataflow import Step


def describe(found: Architecture) -> list[str]:
    """Say what a diagram shows, a line for each layer and each branch."""
    size = "×".join(map(str, found.image_shape))
    lines = [f"image {size}", *tell(found.body)]
    lines += [
        f"{x.title}: {x.path}, {count(x.parameters, 'parameters')}"
        for x in found.training
    ]
    return lines


def summarize(found: Architecture) -> str:
    """Say in a few sentences what the model is made of."""
    parts = []
    for item in found.body:
        first = item.copies[0] if isinstance(item, Repeat) else item
        if isinstance(first, Line):
            name = " · ".join(_name_line([first]))
        else:
            name = first.title if isinstance(first, Stage) else _name(first)
        times = f"{len(item.copies)} × " if isinstance(item, Repeat) else ""
        parts.append(f"{times}{name} ({write_shape([architecture.find_last(item)])})")
    size = "×".join(map(str, found.image_shape))
    totals = count(found.parameters, "parameters"), count(found.macs, "MACs")
    return (
        f"{' and '.join(totals)} for an image of {size}. Layers that are alike are "
        f"drawn once. In order: {', '.join(parts)}."
    )


def write_box(items: Sequence[Item]) -> tuple[list[str], list[str]]:
    """Return what is written into the box of items, its names and its details."""
    if isinstance(items[0], Line):
        return _name_line(items), _detail(items)
    wholes = [Line(tuple(architecture.list_steps((item,)))) for item in items]
    *titles, _ = _name_line(wholes)
    name, *rest = _detail(wholes)
    return [items[0].title], [_name(items[0]), *titles, "× input", *rest]


def write_head(items: Sequence[Item]) -> list[str]:
    """Return the heading of a frame: names, number, and what is inside in numbers."""
    copies = items[0].copies if isinstance(items[0], Repeat) else items
    is_repeat, first = isinstance(items[0], Repeat), copies[0]
    head = _range([_name(copy) for copy in copies], " … ")
    head = first.title if isinstance(first, Stage) else head
    details = [first.title] if isinstance(first, Block) and first.title != head else []
    for attribute, unit in (("parameters", "parameters"), ("macs", "MACs")):
        totals = [_total(copy, attribute) for copy in copies]
        if any(totals) and is_repeat:
            details.append(f"{count(sum(totals), unit)} in all")
        elif any(totals):
            details.append(_count_range(totals, unit))
    return [f"×{len(copies)} {head}" if is_repeat else head, *details]


def write_shape(steps: Sequence[Step]) -> str:
    """Write the shape of results, with the first and the last of what differs."""
    sizes = zip(*(step.shape for step in steps), strict=True)
    shape = "×".join(_range([str(x) for x in size], "…") for size in sizes)
    return f"{shape} units" if len(steps[0].shape) == 1 else shape


def count(number: int, unit: str) -> str:
    """Write a number; one of MACs, from ten thousand on, in four figures."""
    text = f"{number:,}"
    if unit == "MACs" and number >= 10_000:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if number >= size:
                text = f"{number / size:.4g} {letter}"
                break
    return f"{text} {unit}"


def list_copies(items: Sequence[Item]) -> list[Item]:
    """Return all copies of items that may be repeats."""
    return [
        copy
        for item in items
        for copy in (item.copies if isinstance(item, Repeat) else (item,))
    ]


def is_boxed(items: Sequence[Item]) -> bool:
    """Return whether items are a single box: lines, or what gates its input."""
    return isinstance(items[0], Line) or _is_gate(items[0])


def _is_gate(item: Item) -> bool:
    """Return whether a block multiplies its input with what lines make of it."""
    if not isinstance(item, Block) or len(item.body) != 1:
        return False
    fork = item.body[0]
    if not isinstance(fork, Fork) or len(fork.branches) != 2 or not fork.join:
        return False
    lines, shortcut = fork.branches
    is_flat = all(isinstance(x, Line) for x in lines)
    return is_flat and shortcut == () and fork.join.title == "×"


def tell(chain: Chain) -> list[str]:
    """Say what a chain consists of, in the order of computation."""
    lines = []
    for item in chain:
        copies = item.copies if isinstance(item, Repeat) else (item,)
        first = copies[0]
        times = f"{len(copies)} times " if len(copies) > 1 else ""
        if isinstance(first, Line):
            lines.append(times + ", ".join([*_name_line(copies), *_detail(copies)]))
        elif isinstance(first, Fork):
            for number, branch in enumerate(first.branches, start=1):
                inside = "; ".join(tell(branch)) or "shortcut"
                lines.append(f"{times}branch {number} ({inside})")
            lines += [first.join.title] if first.join else []
        else:
            inside = "; ".join(tell(first.body))
            lines.append(f"{', '.join(write_head((item,)))} ({inside})")
    return lines


def _total(item: Item, attribute: str) -> int:
    return sum(getattr(step, attribute) for step in architecture.list_steps((item,)))


def _name(item: Item) -> str:
    """Return the name of a layer of the model, or of a block inside another."""
    path = architecture.find_path(item)
    if isinstance(item, Fork):
        return path.partition("/")[0]
    return path.rpartition("/")[2] or getattr(item, "title", "")


def _name_line(lines: Sequence[Line]) -> list[str]:
    return [step.title for step in lines[0].steps]


def _detail(lines: Sequence[Line]) -> list[str]:
    """Return what is said of a line: name, shape, numbers, and what it sees."""
    lasts = [line.steps[-1] for line in lines]
    kinds = {step.kind for step in lines[0].steps}
    if kinds <= {"activation", "regularisation", "join"}:
        return []
    names = [_name(line) for line in lines]
    pieces = [_range(names, " … ")] if names[0] else []
    pieces.append(write_shape(lasts))
    for attribute, unit in (("parameters", "parameters"), ("macs", "MACs")):
        totals = [_total(line, attribute) for line in lines]
        pieces += [_count_range(totals, unit)] if any(totals) else []
    if len(lasts[0].shape) == 3:
        pieces.append(_write_field(lasts))
    return pieces


def _write_field(steps: Sequence[Step]) -> str:
    """Say how many pixels each value of results sees."""
    axes = [step.field.axes for step in steps]
    if any(reach is None for pair in axes for reach in pair):
        return "sees the whole image"
    sizes = [f"{rows.size}×{columns.size}" for rows, columns in axes]
    return f"sees {_range(sizes, '…')} px"


def _range(texts: Sequence[str], sign: str) -> str:
    """Return what texts have in common, or the first and the last of them."""
    is_one = len(set(texts)) == 1
    return texts[0] if is_one else f"{texts[0]}{sign}{texts[-1]}"


def _count_range(numbers: Sequence[int], unit: str) -> str:
    """Write numbers of one unit, the first and the last where they differ."""
    texts = [count(x, unit).removesuffix(f" {unit}") for x in numbers]
    return f"{_range(texts, '…')} {unit}"
