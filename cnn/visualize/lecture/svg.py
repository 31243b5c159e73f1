"""Line art as SVG, still or animated, written without any library.

Positions and lengths are pixels, y downwards. An animated drawing is a flip-book: it
goes through its steps, each element is seen `during` some of them, and after the last
step it rests, then starts again. Where motion is unwanted (`prefers-reduced-motion`,
print) or unknown, the last step is seen. Nothing carries an id or needs a script.

In a page, `page.player` gives a drawing buttons and, where its numbers know how they
follow from others (`sheet`), a form for the reader's own.
"""

import dataclasses
from collections.abc import Callable, Mapping
from html import escape

import numpy as np

from cnn.visualize.lecture import sheet
from cnn.visualize.lecture.sheet import Number

SECONDS_PER_STEP = 1.2
RESTING_STEPS = 3
STYLE = """
svg{font-family:Arial,"Liberation Sans","DejaVu Sans",sans-serif}
text{fill:#111;text-anchor:middle;dominant-baseline:central;font-size:16px}
.left{text-anchor:start}
.small{font-size:14px}
.tap{font-size:11px;fill:#a33c00;text-anchor:end}
.title{font-size:17px;font-weight:bold;text-anchor:start}
.input{fill:#dcebf7;stroke:#444}
.padding{fill:#f1f1f1;stroke:#888;stroke-dasharray:4 3}
.kernel{fill:#fbe3c0;stroke:#444}
.output{fill:#cfeadf;stroke:#444}
.empty{fill:none;stroke:#888;stroke-dasharray:2 3}
.window{fill:none;stroke:#d55e00;stroke-width:4}
.new{fill:none;stroke:#00704f;stroke-width:4}
.unit{fill:#fff;stroke:#222;stroke-width:1.5}
.own{stroke:#555;stroke-width:1.3}
.shade0{fill:#bfe0f5;stroke:#444}
.shade1{fill:#fbe0a8;stroke:#444}
.shade2{fill:#b9e3d2;stroke:#444}
.shade3{fill:#d9a5c4;stroke:#444}
.channel0{fill:#f8c8c2;stroke:#444}
.channel1{fill:#c8eac4;stroke:#444}
.channel2{fill:#c6d8f8;stroke:#444}
.ink{fill:#000}
.red{fill:#f00;mix-blend-mode:screen}
.green{fill:#0f0;mix-blend-mode:screen}
.blue{fill:#00f;mix-blend-mode:screen}
.light{fill:#fff}
.off{fill:#f4f4f4;stroke:#888}
.grid{fill:none;stroke:#888}
.bar{fill:#0072b2}
.weight0{stroke:#0072b2;stroke-width:2.6}
.weight1{stroke:#d55e00;stroke-width:2.6;stroke-dasharray:9 4}
.weight2{stroke:#009e73;stroke-width:2.6;stroke-dasharray:2 4}
"""
_STANDING_STILL = (
    "@media (prefers-reduced-motion:reduce),print{*{animation:none!important}}"
)


@dataclasses.dataclass(frozen=True)
class Shown:
    """How a number is written into a drawing.

    Attributes:
        number: what is written.
        writer: the name of one of `WRITERS`.
        room: in pixels, for a reader's longer numbers; None up to the drawing's edge.
    """

    number: Number
    writer: str = "number"
    room: float | None = None

    @property
    def text(self) -> str:
        """Return what is written for the slide's own numbers."""
        return WRITERS[self.writer](self.number)


@dataclasses.dataclass
class Drawing:
    """A drawing that grows by its methods and is written by `to_svg`.

    Attributes:
        width: in pixels.
        height: in pixels.
        title: one line, read by screen readers.
        steps: how many steps it goes through; 1 stands still.
    """

    width: float
    height: float
    title: str
    steps: int = 1

    def __post_init__(self) -> None:
        """Start with nothing drawn."""
        self._elements: list[_Element] = []
        self.tables: list[sheet.Table] = []

    def offer(self, name: str, numbers: np.ndarray) -> None:
        """Let the reader of a page replace numbers.

        Args:
            name: what the drawing calls them.
            numbers: `sheet.Number` [columns] or [rows, columns].
        """
        self.tables.append(sheet.Table(name, np.atleast_2d(numbers)))

    def rectangle(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        style: str,
        during: range | None = None,
    ) -> None:
        """Draw a rectangle.

        Args:
            x: of its left side.
            y: of its top.
            width: in pixels.
            height: in pixels.
            style: a class of the style sheet, such as `input` or `window`.
            during: the steps in which it is seen; all when None.
        """
        numbers = {"x": x, "y": y, "width": width, "height": height}
        self._add("rect", numbers, style, during)

    def text(
        self,
        x: float,
        y: float,
        text: str | Shown,
        style: str = "",
        during: range | None = None,
    ) -> None:
        """Write one line of text, centred at (x, y) unless the style says otherwise."""
        self._add("text", {"x": x, "y": y}, style, during, text)

    def cells(
        self,
        x: float,
        y: float,
        values: np.ndarray,
        style: str,
        size: float,
        during: range | None = None,
    ) -> None:
        """Draw a table of numbers in square cells.

        Args:
            x: of its left side.
            y: of its top.
            values: [rows, columns], of floats or of `sheet.Number`; NaN leaves a cell
                without a number.
            style: the cells' class.
            size: a cell's side, in pixels.
            during: the steps in which it is seen; all when None.
        """
        for (row, column), value in np.ndenumerate(values):
            left, top = x + column * size, y + row * size
            self.rectangle(left, top, size, size, style, during)
            if isinstance(value, Number):
                text: str | Shown = Shown(value, room=size - 4)
            elif np.isnan(value):
                continue
            else:
                text = format_number(value)
            self.text(left + size / 2, top + size / 2, text, "", during)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Draw a straight line from (x1, y1) to (x2, y2)."""
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, style)

    def circle(self, x: float, y: float, radius: float, style: str) -> None:
        """Draw a circle around (x, y)."""
        self._add("circle", {"cx": x, "cy": y, "r": radius}, style)

    def list_texts(self, step: int) -> list[str]:
        """List what is written at a step, in the order in which it was drawn."""
        seen = [e for e in self._elements if step in e.during]
        return [e.text for e in seen if e.tag == "text" and e.text]

    def sort_numbers(self) -> dict[Number, int]:
        """Number the numbers that are offered, written or read; see `sheet`."""
        shown = [e.shown.number for e in self._elements if e.shown]
        return sheet.sort_numbers(self.tables, shown)

    def pixels(
        self,
        x: float,
        y: float,
        values: np.ndarray,
        size: float,
        during: range | None = None,
    ) -> None:
        """Draw an image.

        Args:
            x: of its left side.
            y: of its top.
            values: [rows, columns], grey, or [rows, columns, 3], RGB; in 0..1.
            size: a pixel's side.
            during: the steps in which it is seen; all when None.
        """
        for row, column in np.ndindex(values.shape[:2]):
            spot = {"x": x + column * size, "y": y + row * size}
            spot |= {"width": size, "height": size}
            value = values[row, column]
            if values.ndim == 2:
                if value < 1:
                    shade = {"fill-opacity": 1 - value}
                    self._add("rect", spot | shade, "ink", during)
                continue
            self._add("rect", spot, "ink", during)
            for style, amount in zip(("red", "green", "blue"), value, strict=True):
                if amount:
                    self._add("rect", spot | {"fill-opacity": amount}, style, during)
        rows, columns = values.shape[:2]
        self.rectangle(x, y, columns * size, rows * size, "grid", during)

    def to_svg(self, step: int | None = None) -> str:
        """Write the file's text.

        Args:
            step: this step alone, standing still; the whole flip-book when None.
        """
        rules: dict[str, str] = {}
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" '
            f'height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}">',
            f"<title>{escape(self.title)}</title>",
            '<rect width="100%" height="100%" fill="#fff"/>',
        ]
        for element in self._elements:
            animated, during = "", element.during
            if step is None and len(during) < self.steps:
                animated = f"from{during.start}to{during.stop}"
                rules[animated] = self._animate(animated, during)
            if (step is None or step in during) and not element.is_blank:
                lines.append(element.to_svg(animated))
        moving = [*rules.values(), _STANDING_STILL] if rules else []
        lines.insert(2, f"<style>{STYLE}{''.join(moving)}</style>")
        return "\n".join([*lines, "</svg>\n"])

    def to_inline(self, places: Mapping[Number, int]) -> str:
        """Write the drawing as a part of a page, for the script of `page.player`.

        What was drawn for some steps says for which, `data-steps="FIRST END"`, and has
        the class `resting` if it is seen in the last, `unseen` if not. A number that is
        shown says which it is, and how it is written.

        Args:
            places: the numbers, as `sort_numbers` does.
        """
        lines = [
            f'<svg role="img" aria-label="{escape(self.title)}" width="{self.width:g}" '
            f'height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}">',
            '<rect width="100%" height="100%" fill="#fff"/>',
        ]
        for element in self._elements:
            state, during, data = "", element.during, {}
            if element.is_timed:
                state = "resting" if during.stop >= self.steps else "unseen"
                data["steps"] = f"{during.start} {during.stop}"
            if shown := element.shown:
                room = shown.room or self.width - element.numbers["x"] - 8
                data |= {"number": f"{places[shown.number]}", "writer": shown.writer}
                data["room"] = f"{room:g}"
            lines.append(element.to_svg(state, data))
        return "\n".join([*lines, "</svg>"])

    def _add(
        self,
        tag: str,
        numbers: dict[str, float],
        style: str,
        during: range | None = None,
        text: str | Shown = "",
    ) -> None:
        seen = range(self.steps) if during is None else during
        shown = text if isinstance(text, Shown) else None
        text = text.text if isinstance(text, Shown) else text
        timed = during is not None
        self._elements.append(_Element(tag, numbers, style, seen, text, timed, shown))

    def _animate(self, name: str, during: range) -> str:
        """Write the style of what is seen during some steps only."""
        total = self.steps + RESTING_STEPS
        begin, end = (100 * step / total for step in (during.start, during.stop))
        at_last = int(during.stop >= self.steps)
        frames = f"0%{{opacity:{int(during.start == 0)}}}{begin:.3f}%{{opacity:1}}"
        frames += "" if at_last else f"{end:.3f}%{{opacity:0}}"
        frames += f"100%{{opacity:{at_last}}}"
        seconds = total * SECONDS_PER_STEP
        return (
            f"@keyframes {name}{{{frames}}}\n.{name}{{opacity:{at_last};"
            f"animation:{name} {seconds:g}s step-end infinite}}\n"
        )


@dataclasses.dataclass(frozen=True)
class _Element:
    tag: str
    numbers: dict[str, float]
    style: str
    during: range
    text: str
    is_timed: bool
    shown: Shown | None

    @property
    def is_blank(self) -> bool:
        return self.tag == "text" and not self.text

    def to_svg(self, state: str, data: Mapping[str, str] | None = None) -> str:
        inside = [f'{name}="{value:g}"' for name, value in self.numbers.items()]
        if classes := f"{self.style} {state}".strip():
            inside.append(f'class="{classes}"')
        inside += [f'data-{name}="{value}"' for name, value in (data or {}).items()]
        return f"<{self.tag} {' '.join(inside)}>{escape(self.text)}</{self.tag}>"


def format_number(value: float) -> str:
    """Write a number with at most two decimals and a true minus sign."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "\N{MINUS SIGN}")


def format_products(values: np.ndarray, taps: np.ndarray, total: float) -> str:
    """Write `5·(−1) + 7·3 = 16`, leaving out taps of 0; of these alone, `0 = 0`."""
    terms = [
        f"{_enclose(value)}·{_enclose(tap)}"
        for value, tap in zip(np.ravel(values), np.ravel(taps), strict=True)
        if tap
    ]
    return f"{' + '.join(terms) or '0'} = {format_number(total)}"


def format_sum(values: np.ndarray, total: float) -> str:
    """Write `(−10) + 6 + 7 = 3`."""
    return f"{' + '.join(map(_enclose, values))} = {format_number(total)}"


def format_mean(values: np.ndarray, mean: float) -> str:
    """Write `(1 + 4 + (−2)) / 3 = 1`."""
    terms = " + ".join(map(_enclose, values))
    return f"({terms}) / {len(values)} = {format_number(mean)}"


def format_maximum(values: np.ndarray, largest: float) -> str:
    """Write `max(1, 4, 7) = 7`."""
    inside = ", ".join(map(format_number, np.ravel(values)))
    return f"max({inside}) = {format_number(largest)}"


def _enclose(value: float) -> str:
    text = format_number(value)
    return f"({text})" if value < 0 else text


def _write_number(number: Number) -> str:
    return format_number(number.value)


def _write_tap(number: Number) -> str:
    return f"×{format_number(number.value)}"


def _write_line(number: Number) -> str:
    lists = [[one.value for one in read] for read in number.reads]
    return LINES[number.operation](*lists, number.value)


def _mark_best(number: Number) -> str:
    return "← the best match" if number.value else ""


# How a number is written, and the line that says how an operation of `sheet` came to
# it. `page/player.js` has the same.
WRITERS: dict[str, Callable[[Number], str]] = {
    "number": _write_number,
    "tap": _write_tap,
    "line": _write_line,
    "best": _mark_best,
}
LINES: dict[str, Callable[..., str]] = {
    "dot": format_products,
    "sum": format_sum,
    "mean": format_mean,
    "max": format_maximum,
}
