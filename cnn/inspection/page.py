"""The page of an inspection: `inspect.html`, one file with its pictures in it."""

import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import atomic
from cnn.data.images import Images
from cnn.data.labels import find_members
from cnn.errors import UserError
from cnn.inspection import summary
from cnn.inspection.findings import Findings, Pair
from cnn.inspection.read import read_image
from cnn.text import show_line
from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.page import report

PAGE_FILE = "inspect.html"
_EXAMPLES, _EXAMPLES_IN_ALL = 12, 1200
_PAIRS, _ROWS = 40, 1000  # pictures of each case; rows of a table
_SMALL, _LARGE, _GAP = 64, 192, 4  # pixels
_HEADINGS = {
    "leak": "Leaks: images of one part that are in another one too",
    "conflict": "Conflicts: images that are in two classes",
    "repeated": "Duplicates: images that are in a class twice",
}


def write_page(
    directory: Path,
    parts: Mapping[str, Images],
    findings: Findings,
    described: Mapping[str, Any],
    lines: Sequence[str],
) -> Path:
    """Write the page.

    Args:
        directory: where it goes.
        parts: the images that were looked at, in the order of positions.
        described: of `findings.describe`.
        lines: of `summary.list_lines`; those of single images are left out.

    Returns:
        The file.
    """
    notes = [
        re.sub(" +", ": ", line, count=1) for line in lines if not line.startswith(" ")
    ]
    with tempfile.TemporaryDirectory() as folder:
        draw = _Draw(Path(folder), parts, findings)
        sections = [draw.draw_pairs(case) for case in summary.CASES]
        sections.append(draw.draw_classes())
        return report.write_tables(
            directory,
            f"A look at {notes[0].removeprefix('dataset: ')}",
            notes[1:],
            _make_tables(findings, described),
            [section for section in sections if section.pictures],
            PAGE_FILE,
        )


def _make_tables(
    findings: Findings, described: Mapping[str, Any]
) -> dict[str, report.Table]:
    parts = described["parts"]
    rows = [
        {"class": name}
        | {part: found["classes"][name] for part, found in parts.items()}
        for name in findings.class_names
    ]
    bad = [
        {"image": findings.show(x), "reason": findings.looks[x].problem}
        for x in findings.unreadable
    ]
    listed = {
        "Classes": (("class", *parts), rows),
        "Sizes": (("width", "height", "count"), described["sizes"]),
        "Unreadable": (("image", "reason"), bad),
    }
    tables = {}
    for heading, (columns, rows) in listed.items():
        if len(rows) > _ROWS:
            heading += f" ({_ROWS} of {len(rows):,}, all are in dataset.json)"
        if rows:
            tables[heading] = report.tabulate(columns, rows[:_ROWS])
    return tables


class _Draw:
    """Draws pictures of images, which are read again for it."""

    def __init__(
        self, folder: Path, parts: Mapping[str, Images], findings: Findings
    ) -> None:
        """Draw into a folder."""
        self._folder, self._parts, self._findings = folder, parts, findings

    def draw_pairs(self, case: str) -> Section:
        """Draw the first pairs of a case that show something, side by side."""
        findings = self._findings
        found = summary.select_pairs(findings, case)
        pairs = [pair for pair in found if pair.one not in findings.flat]
        pictures = [
            self._draw_pair(f"{case}_{number}", pair)
            for number, pair in enumerate(pairs[:_PAIRS])
        ]
        more = len(found) - len(pictures)
        notes = (f"{more:,} more are in dataset.json",) if more else ()
        return Section(case, _HEADINGS[case], tuple(pictures), notes)

    def draw_classes(self) -> Section:
        """Draw some training images of each class, evenly spread."""
        findings = self._findings
        names = findings.class_names[:_EXAMPLES_IN_ALL]
        each = max(1, min(_EXAMPLES, _EXAMPLES_IN_ALL // len(names)))
        usable = findings.readable & (findings.parts == "train")
        pictures = []
        for label, name in enumerate(names):
            members = find_members(findings.labels, label)
            found = members[usable[members]]
            if not len(found):
                continue
            places = np.linspace(0, len(found) - 1, min(each, len(found)))
            chosen = found[places.round().astype(int)]
            caption = f"{len(chosen)} of {len(found):,} training images"
            title = show_line(name)
            pictures.append(
                self._draw(f"class_{label}", chosen, _SMALL, title, caption)
            )
        return Section(
            "examples", "Examples: some training images of each class", tuple(pictures)
        )

    def _draw_pair(self, file: str, pair: Pair) -> Picture:
        findings, ends = self._findings, (pair.one, pair.other)
        title = " and ".join(findings.show(x) for x in ends)
        sizes = (findings.looks[x].size for x in ends)
        first, second = (f"{width}x{height}" for height, width in sizes)
        how = summary.KINDS[pair.kind]
        caption = f"{how}; left {first}, right {second}"
        if pair.kind == "near":
            caption += (
                f"; details correlate by {pair.similarity:.3f}, hashes differ in "
                f"{pair.distance} of 64 bits"
            )
        return self._draw(file, ends, _LARGE, title, caption)

    def _draw(
        self, file: str, chosen: Sequence[int], size: int, title: str, caption: str
    ) -> Picture:
        """Draw images in a row, none wider or higher than `size` pixels."""
        from PIL import Image

        tiles = [_fit(self._read(int(x)), size) for x in chosen]
        lefts = np.cumsum([0, *(tile.width + _GAP for tile in tiles)])
        height = max(tile.height for tile in tiles)
        sheet = Image.new("RGB", (int(lefts[-1]) - _GAP, height), "white")
        for left, tile in zip(lefts, tiles, strict=False):
            sheet.paste(tile, (int(left), 0))
        path = self._folder / f"{file}.png"
        content = io.BytesIO()
        sheet.save(content, "PNG")
        atomic.write_bytes(path, content.getvalue())
        return Picture(path, title, caption)

    def _read(self, position: int) -> np.ndarray:
        """Read the image at a position among all parts."""
        for part in self._parts.values():
            if position < len(part):
                return read_image(part, position)
            position -= len(part)
        raise UserError(f"there is no image {position}")


def _fit(pixels: np.ndarray, size: int) -> Any:
    """Bring an image's longer side to `size` pixels."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    longer = max(image.size)
    enlarged = longer <= size // 3  # its pixels are meant to be seen
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    scale = size / longer
    shape = tuple(max(1, round(side * scale)) for side in image.size)
    return image.convert("RGB").resize(shape, method)
