"""Diagrams of architectures: boxes from above to below, branches side by side, as SVG.

A line of `architecture` is a box, a block a frame around its boxes; of neighbours that
are alike the first is drawn and their number written, `a…b` being what the first and
the last of them have. Lengths are pixels. Texts are broken, or cut in the middle, so
that none leaves its box.
"""

import dataclasses
from collections.abc import Sequence
from html import escape

from cnn.visualize.compute import architecture
from cnn.visualize.compute.architecture import (
    Architecture,
    Block,
    Chain,
    Fork,
    Item,
    Repeat,
    Stage,
)
from cnn.visualize.compute.dataflow import Step
from cnn.visualize.lecture import wording
from cnn.visualize.lecture.svg import Drawing

_NARROWEST, _WIDEST = 340, 900  # of a drawing
_BOX, _MOST_BOX = 200, 330  # of a box that can choose
_PAD, _GAP, _ROW, _MARGIN, _LANE = 9, 16, 16, 14, 26
_SIZES = {"name": 13, "detail": 12, "title": 17, "heading": 13}
_KINDS = {
    "convolution": "convolution",
    "dense": "dense",
    "normalisation": "normalisation, activation",
    "pooling": "pooling",
    "rearrangement": "rearrangement",
    "regularisation": "in training alone",
    "join": "joins branches",
    "shortcut": "shortcut",
    "other": "other",
}
_STYLE = """
.name{font-size:13px;font-weight:bold;text-anchor:start}
.detail{font-size:12px;text-anchor:start}
.heading{font-size:13px;font-weight:bold;text-anchor:start}
.sign{font-size:13px;font-weight:bold}
.image{fill:#fff;stroke:#333}
.convolution{fill:#cfe5f7;stroke:#2a6496}
.dense{fill:#e4d7f3;stroke:#6b3fa0}
.normalisation{fill:#eceff1;stroke:#607078}
.pooling{fill:#fbe3c0;stroke:#9a6200}
.rearrangement{fill:#f6f6e4;stroke:#77772b}
.regularisation,.other{fill:#fff;stroke:#607078;stroke-dasharray:4 3}
.join{fill:#cfeadf;stroke:#00704f}
.block{fill:#fafbfc;stroke:#8a959c}
.copy{fill:#e9edf0;stroke:#8a959c}
.stage{fill:none;stroke:#8a959c;stroke-dasharray:2 4}
.flow{stroke:#444;stroke-width:1.5;stroke-linecap:round}
.shortcut{stroke:#c04a00;stroke-width:2;stroke-linecap:round}
"""
_ROUNDING = 1e-6  # of a width that is what a text needs
# Widths of letters in thousandths of the size, as Arial has them.
_WIDTHS = {
    **dict.fromkeys("ijl|'", 222),
    **dict.fromkeys(" .,:;/!ftI·", 278),
    **dict.fromkeys("-()r", 333),
    **dict.fromkeys("ckszvxyJ", 500),
    **dict.fromkeys("CDHNRUwGOQ", 760),
    **dict.fromkeys("mMW", 890),
    **dict.fromkeys("ABEKPSVXY", 667),
    **dict.fromkeys("…→", 1000),
}
_OTHER_WIDTH, _SAFETY = 570, 1.13  # wider fonts may have to do


class Diagram(Drawing):
    """A drawing with the styles of diagrams, and what it shows in words.

    Attributes:
        words: the same content, for those who do not see it.
    """

    words: Sequence[str] = ()

    def to_svg(self, step: int | None = None) -> str:
        """Write the file's text; as `Drawing.to_svg`."""
        text = super().to_svg(step)
        words = f"</title>\n<desc>{escape('; '.join(self.words))}</desc>"
        text = text.replace("</title>", words, 1)
        return text.replace("</style>", f"{_STYLE}</style>", 1)

    def box(self, x: float, y: float, width: float, height: float, style: str) -> None:
        """Draw a rectangle with round corners."""
        numbers = {"x": x, "y": y, "width": width, "height": height, "rx": 4}
        self._add("rect", numbers, style)

    def go(self, points: Sequence[tuple[float, float]], style: str = "flow") -> None:
        """Draw straight lines from point to point."""
        for (x1, y1), (x2, y2) in zip(points, points[1:], strict=False):
            self.line(x1, y1, x2, y2, style)

    def point(self, x: float, y: float, dx: int, dy: int, style: str = "flow") -> None:
        """Draw the head of an arrow that ends at (x, y) and goes along (dx, dy)."""
        for side in (-4, 4):
            tail = x - 6 * dx + side * dy, y - 6 * dy + side * dx
            self.line(*tail, x, y, style)

    def count(self) -> int:
        """Return how many elements there are."""
        return len(self._elements)

    def put_behind(self, place: int, start: int) -> None:
        """Move what was drawn from `start` on behind what came at `place`."""
        moved = self._elements[start:]
        del self._elements[start:]
        self._elements[place:place] = moved


def draw(found: Architecture, name: str) -> Diagram:
    """Draw a whole model.

    Args:
        name: the model's, for the title.
    """
    whole = _Chain.of([found.body])
    needed = max(whole.wish, _NARROWEST) + 2 * _MARGIN
    width = min(needed, _WIDEST)
    diagram = Diagram(width, 0, f"The architecture of {name}")
    diagram.words = wording.describe(found)
    inside = width - 2 * _MARGIN
    y = _write_head(diagram, found, name, inside)
    centre = width / 2
    size = "×".join(map(str, found.image_shape))
    y = _draw_box(diagram, [f"image {size}"], [], (centre - 80, y, 160), "image")
    y = _arrow(diagram, centre, y)
    y = whole.draw(diagram, _MARGIN, y, inside)
    for step in found.training:
        texts = [step.path, step.title], [wording.count(step.parameters, "parameters")]
        left = _MARGIN + (inside - _MOST_BOX) / 2
        y = _draw_box(diagram, *texts, (left, y + _GAP, _MOST_BOX), "other")
    diagram.height = y + _MARGIN
    return diagram


def draw_blocks(title: str, blocks: Sequence[tuple[str, str, Block]]) -> Diagram:
    """Draw blocks side by side.

    Args:
        title: of the drawing.
        blocks: of each a heading, what is said below it, and the block.
    """
    columns = [_Chain.of([block.body]) for *_, block in blocks]
    gaps = _GAP * (len(columns) - 1) + 2 * _MARGIN
    widths = _share(columns, _WIDEST - gaps)
    diagram = Diagram(sum(widths) + gaps, 0, title)
    diagram.words = [
        f"{heading}: {text}: {'; '.join(wording.tell(block.body))}"
        for heading, text, block in blocks
    ]
    diagram.text(_MARGIN, 24, title, "title")
    x, bottoms = _MARGIN, []
    for (heading, text, _), column, width in zip(blocks, columns, widths, strict=True):
        y = _write(diagram, [heading], x, 44, width, "heading")
        _write(diagram, text.split(" · "), x, y, width, "detail")
        centre, y = x + width / 2, y + 3 * _ROW
        diagram.go([(centre, y), (centre, y + _GAP)])
        y = column.draw(diagram, x, y + _GAP, width)
        bottoms.append(_arrow(diagram, centre, y))
        x += width + _GAP
    diagram.height = max(bottoms) + _MARGIN
    return diagram


@dataclasses.dataclass
class _Chain:
    """Copies of a chain that is drawn once, and the width that it needs and wishes."""

    copies: list[Chain]
    need: float
    wish: float

    @classmethod
    def of(cls, copies: Sequence[Chain]) -> "_Chain":
        """Measure a chain."""
        sizes = [_measure(items) for items in zip(*copies, strict=True)]
        needs, wishes = zip(*sizes, strict=True) if sizes else ((0,), (0,))
        return cls(list(copies), max(needs), max(wishes))

    def draw(self, diagram: Diagram, x: float, y: float, width: float) -> float:
        """Draw the chain from (x, y) on; return where it ends."""
        rows = list(zip(*self.copies, strict=True))
        lines = [_measure(x)[1] for x in rows if wording.is_boxed(x)]
        wide = min(max(lines, default=0), width)
        for place, items in enumerate(rows):
            if place and not isinstance(items[0], Fork):
                y = _arrow(diagram, x + width / 2, y)
            if wording.is_boxed(items):
                spot = x + (width - wide) / 2, y, wide
                y = _draw_box(
                    diagram, *wording.write_box(items), spot, _get_kind(items[0])
                )
            elif isinstance(items[0], Fork):
                y = _draw_fork(diagram, items, x, y, width)
            else:
                y = _draw_frame(diagram, items, x, y, width)
        return y


def _get_bodies(items: Sequence[Item]) -> list[Chain]:
    """Return the chains inside the frame of items that are drawn as one."""
    copies = wording.list_copies(items)
    has_body = isinstance(copies[0], Block | Stage)
    return [x.body if has_body else (x,) for x in copies]


def _measure(items: Sequence[Item]) -> tuple[float, float]:
    """Return the least and the wished width of items that are drawn as one."""
    if wording.is_boxed(items):
        rows = dict(zip(("name", "detail"), wording.write_box(items), strict=True))
        need = max(_length(x, style) for style, row in rows.items() for x in row)
        wish = _length(" · ".join(rows["name"]), "name")
        least = min(need, _MOST_BOX) + 2 * _PAD
        return least, min(max(wish + 2 * _PAD, _BOX, least), _MOST_BOX)
    if not isinstance(items[0], Fork):
        inside = _Chain.of(_get_bodies(items))
        return inside.need + 2 * _PAD, inside.wish + 2 * _PAD
    columns = _get_columns(items)
    gaps = _GAP * (len(columns) - 1) + _get_lanes(items[0])
    return sum(x.need for x in columns) + gaps, sum(x.wish for x in columns) + gaps


def _get_columns(forks: Sequence[Fork]) -> list[_Chain]:
    """Return the branches that have boxes."""
    branches = zip(*(fork.branches for fork in forks), strict=True)
    return [_Chain.of(copies) for copies in branches if copies[0]]


def _get_lanes(fork: Fork) -> float:
    """Return the room that a shortcut takes; on both sides, to stay in the middle."""
    return 2 * _LANE if () in fork.branches else 0


def _draw_frame(
    diagram: Diagram, items: Sequence[Item], x: float, y: float, width: float
) -> float:
    """Draw a block, a stage or a repeat around what is inside."""
    inside, copies = _Chain.of(_get_bodies(items)), wording.list_copies(items)
    wide = min(width, max(inside.wish, _BOX + 40) + 2 * _PAD)
    left = x + (width - wide) / 2
    before = diagram.count()
    head, *details = wording.write_head(items)
    bottom = y + _PAD
    bottom = _write(diagram, [head], left + _PAD, bottom, wide - 2 * _PAD, "heading")
    bottom = _write(diagram, details, left + _PAD, bottom, wide - 2 * _PAD, "detail")
    centre = left + wide / 2
    top = _enter(diagram, inside, centre, bottom)
    bottom = inside.draw(diagram, left + _PAD, top, wide - 2 * _PAD) + _PAD
    start = diagram.count()
    if isinstance(items[0], Repeat):
        for offset in (6, 3):
            diagram.box(left + offset, y + offset, wide, bottom - y, "copy")
    style = "stage" if isinstance(copies[0], Stage) else "block"
    diagram.box(left, y, wide, bottom - y, style)
    diagram.put_behind(before, start)
    return bottom + (6 if isinstance(items[0], Repeat) else 0)


def _draw_fork(
    diagram: Diagram, forks: Sequence[Fork], x: float, y: float, width: float
) -> float:
    """Draw branches side by side, the lines that part and join them, and a shortcut."""
    columns, lanes = _get_columns(forks), _get_lanes(forks[0])
    room = width - lanes - _GAP * (len(columns) - 1)
    widths = _share(columns, room)
    total = sum(widths) + _GAP * (len(columns) - 1)
    left, centre = x + (width - total) / 2, x + width / 2
    top, middles, bottoms = y + 20, [], []
    for column, wide in zip(columns, widths, strict=True):
        middles.append(left + wide / 2)
        diagram.go([(centre, y), (centre, y + 8), (middles[-1], y + 8)])
        _arrow(diagram, middles[-1], y + 8, top - y - 8)
        bottoms.append(column.draw(diagram, left, top, wide))
        left += wide + _GAP
    bottom = max(bottoms, default=top) + 8
    for middle, end in zip(middles, bottoms, strict=True):
        diagram.go([(middle, end), (middle, bottom), (centre, bottom)])
    lane = centre + total / 2 + _LANE - 8
    join = forks[0].join
    if join is None:
        if lanes:
            corners = [(centre, y + 8), (lane, y + 8), (lane, bottom), (centre, bottom)]
            diagram.go(corners, "shortcut")
        return bottom
    end = _draw_join(diagram, [fork.join for fork in forks], centre, bottom, width)
    if lanes:
        half, middle = _get_sign(join.title) / 2, bottom + 12 + 11
        edge = centre + half
        corners = [(centre, y + 8), (lane, y + 8), (lane, middle), (edge, middle)]
        diagram.go(corners, "shortcut")
        diagram.point(edge, middle, -1, 0, "shortcut")
    return end


def _get_sign(title: str) -> float:
    """Return how wide the sign of a join is."""
    return max(_length(title, "name") + 16, 30)


def _draw_join(
    diagram: Diagram,
    joins: Sequence[Step],
    centre: float,
    y: float,
    width: float,
) -> float:
    """Draw what joins branches, as a sign with the shape of the result below it."""
    title = joins[0].title
    wide, top = _get_sign(title), _arrow(diagram, centre, y, 12)
    diagram.box(centre - wide / 2, top, wide, 22, "join")
    diagram.text(centre, top + 11, title, "sign")
    shape = wording.write_shape(joins)
    room = width / 2 - wide / 2 - 4
    if _length(shape, "detail") <= room - 2:
        start = centre - wide / 2 - 6 - _length(shape, "detail")
        diagram.text(start, top + 11, shape, "detail")
    return top + 22


def _enter(diagram: Diagram, chain: _Chain, x: float, y: float) -> float:
    """Draw what comes into a frame below its heading; return where it ends."""
    if isinstance(chain.copies[0][0], Fork):  # it draws its own
        diagram.go([(x, y), (x, y + 8)])
        return y + 8
    return _arrow(diagram, x, y, 12)


def _get_kind(item: Item) -> str:
    """Return the kind that the box of a line, or of a gate, has the colour of."""
    kinds = [step.kind for step in architecture.list_steps((item,))]
    kind = next((x for x in kinds if x in ("convolution", "dense")), kinds[0])
    return "normalisation" if kind == "activation" else kind


def _share(columns: Sequence[_Chain], room: float) -> list[float]:
    """Share a width among columns: what they wish, or less in even measure."""
    needs, wishes = [x.need for x in columns], [x.wish for x in columns]
    if sum(wishes) <= room:
        return wishes
    if sum(needs) >= room:
        return [need * room / sum(needs) for need in needs]
    share = (room - sum(needs)) / (sum(wishes) - sum(needs))
    return [n + share * (w - n) for n, w in zip(needs, wishes, strict=True)]


def _arrow(diagram: Diagram, x: float, y: float, length: float = _GAP) -> float:
    """Draw an arrow downwards; return where it ends."""
    diagram.go([(x, y), (x, y + length)])
    diagram.point(x, y + length, 0, 1)
    return y + length


def _draw_box(
    diagram: Diagram,
    names: Sequence[str],
    details: Sequence[str],
    place: tuple[float, float, float],
    kind: str,
) -> float:
    """Draw a box with its texts at (x, y, width); return where it ends."""
    x, y, width = place
    before = diagram.count()
    bottom = _write(diagram, names, x + _PAD, y + 5, width - 2 * _PAD, "name")
    bottom = _write(diagram, details, x + _PAD, bottom, width - 2 * _PAD, "detail")
    start = diagram.count()
    diagram.box(x, y, width, bottom + 5 - y, kind)
    diagram.put_behind(before, start)
    return bottom + 5


def _write(
    diagram: Diagram,
    pieces: Sequence[str],
    x: float,
    y: float,
    width: float,
    style: str,
) -> float:
    """Write pieces of text in as few rows as hold them; return where they end."""
    for row in _break(pieces, width, style):
        diagram.text(x, y + _ROW / 2, row, style)
        y += _ROW
    return y


def _break(pieces: Sequence[str], width: float, style: str) -> list[str]:
    """Break pieces into rows: between them, else between words, else cut a word."""
    rows = _fill(pieces, " · ", width, style)
    if all(_fits(row, width, style) for row in rows):
        return rows
    broken: list[str] = []
    for row in rows:
        words = [row] if _fits(row, width, style) else row.split(" ")
        broken += _fill([_cut(x, width, style) for x in words], " ", width, style)
    return broken


def _fill(parts: Sequence[str], sign: str, width: float, style: str) -> list[str]:
    """Join parts by a sign as long as they fit in a row."""
    rows: list[str] = []
    for part in parts:
        joined = f"{rows[-1]}{sign}{part}" if rows else part
        if rows and _fits(joined, width, style):
            rows[-1] = joined
        else:
            rows.append(part)
    return rows


def _cut(text: str, width: float, style: str) -> str:
    """Cut a text that is too long in its middle."""
    kept, shown = len(text), text
    while kept > 2 and not _fits(shown, width, style):
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def _fits(text: str, width: float, style: str) -> bool:
    return _length(text, style) <= width + _ROUNDING


def _length(text: str, style: str) -> float:
    """Return how long a text is at most, in pixels."""
    total = sum(_WIDTHS.get(letter, _OTHER_WIDTH) for letter in text)
    bold = 1.0 if style == "detail" else 1.12
    return total / 1000 * _SIZES[style] * bold * _SAFETY


def _write_head(
    diagram: Diagram, found: Architecture, name: str, width: float
) -> float:
    """Write the title, the totals, and what the colours and numbers mean."""
    diagram.text(_MARGIN, 24, _cut(name, width, "title"), "title")
    totals = (
        wording.count(found.parameters, "parameters"),
        wording.count(found.macs, "MACs"),
    )
    y = _write(diagram, totals, _MARGIN, 40, width, "detail")
    told = "in a box: the layer", "its name", "the shape of its result", "parameters"
    told += "multiply-accumulates", "the pixels of the image that each value sees"
    y = _write(diagram, told, _MARGIN, y, width, "detail") + 6
    return _write_legend(diagram, found, y, width) + 12


def _write_legend(
    diagram: Diagram, found: Architecture, y: float, width: float
) -> float:
    """Write what the colours mean that the drawing has; return where it ends."""
    used, x = _list_kinds(found.body), _MARGIN
    used |= {step.kind for step in found.training}
    for kind, label in _KINDS.items():
        if kind not in used:
            continue
        if x + 22 + _length(label, "detail") > _MARGIN + width:
            x, y = _MARGIN, y + _ROW + 2
        if kind == "shortcut":
            diagram.go([(x, y + _ROW / 2), (x + 16, y + _ROW / 2)], kind)
        else:
            diagram.box(x, y + 2, 16, 12, kind)
        diagram.text(x + 22, y + _ROW / 2, label, "detail")
        x += 36 + _length(label, "detail")
    return y + _ROW


def _list_kinds(chain: Chain) -> set[str]:
    """Return the kinds of boxes, signs and lines that a chain is drawn with."""
    kinds = set()
    for item in chain:
        if wording.is_boxed([item]):
            kinds.add(_get_kind(item))
            continue
        if isinstance(item, Fork):
            kinds |= {"join"} if item.join else set()
            kinds |= {"shortcut"} if () in item.branches else set()
        for part in architecture.list_parts(item):
            kinds |= _list_kinds(part)
    return kinds
