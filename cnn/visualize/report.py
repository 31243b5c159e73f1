"""The report: one HTML file with the runs' results, options and every picture.

Images are part of the file, so that it needs no network and no other file. The page
is `report.html.jinja`, beside this code.
"""

import base64
import dataclasses
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cnn import workdir
from cnn.errors import UserError
from cnn.visualize import run_tables
from cnn.visualize.picture import Picture, Section

_TYPES = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}
_WIDE = 720


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture as the page has it, `source` being a data URI; sizes in pixels."""

    title: str
    caption: str
    source: str
    width: int
    height: int

    @property
    def is_wide(self) -> bool:
        """Return whether it takes the page's whole width."""
        return self.width > _WIDE


def write_report(
    directory: Path,
    runs: Sequence[Path],
    sections: Sequence[Section],
    run_options: Collection[str] = (),
) -> Path:
    """Write `report.html`.

    Args:
        directory: where it goes.
        runs: the directories of the runs that are shown; empty when none was needed.
        sections: the pictures, in order.
        run_options: names of the options that are shown where runs differ in them.

    Returns:
        The file.

    Raises:
        UserError: jinja2 is not installed, or the directory cannot be written.
    """
    try:
        import jinja2
    except ImportError:
        raise UserError("report.html needs: pip install jinja2") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        **run_tables.describe_runs(runs, run_options),
        sections=[_describe_section(s) for s in sections],
    )
    path = directory / "report.html"
    workdir.write_text(path, page)
    return path


def embed(path: Path) -> Figure:
    """Read a picture as a part of the page, the SVG beside it where there is one.

    Args:
        path: of a PNG, GIF or SVG.

    Returns:
        The figure, without title and caption.
    """
    drawn = path.with_suffix(".svg")
    path = drawn if drawn.exists() else path
    content = path.read_bytes()
    width, height = _measure(path.suffix, content)
    source = f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(content).decode()}"
    return Figure("", "", source, width, height)


def _measure(suffix: str, content: bytes) -> tuple[int, int]:
    """Return width and height in CSS pixels."""
    if suffix == ".svg":
        size = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', content)
        assert size, "our SVGs, and matplotlib's, have such a viewBox"
        is_in_points = re.search(rb'<svg[^>]* width="[\d.]+pt"', content)
        scale = 4 / 3 if is_in_points else 1
        width, height = (round(float(length) * scale) for length in size.groups())
        return width, height
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.size


def _describe_section(section: Section) -> dict[str, Any]:
    heading, _, about = section.title.partition(":")
    return {
        "name": section.name,
        "heading": heading,
        "about": about.strip()[:1].upper() + about.strip()[1:],
        "notes": section.notes,
        "figures": [_make_figure(picture) for picture in section.pictures],
    }


def _make_figure(picture: Picture) -> Figure:
    return dataclasses.replace(
        embed(picture.path), title=picture.title, caption=picture.caption
    )
