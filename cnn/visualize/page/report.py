"""The report: one HTML file with the results, options and pictures of runs or a sweep.

Images are part of the file, so that it needs no network and no other file. The page
is `report.html.jinja`, beside this code.
"""

import base64
import dataclasses
import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import atomic, workdir
from cnn.errors import UserError
from cnn.option import format_value
from cnn.text import show_line
from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.lecture.slide import Slide
from cnn.visualize.named_run import name_runs
from cnn.visualize.page import player, template

_TYPES = {".svg": "image/svg+xml", ".webp": "image/webp"}
_TYPES |= {".png": "image/png", ".gif": "image/gif"}
_WIDE = 720
PAGE_FILE = "report.html"
_RESULTS = {
    "test_accuracy": ("test accuracy", "{:.2%}"),
    "test_mean_average_precision": ("test mean average precision", "{:.2%}"),
    "test_f1": ("test F1", "{:.2%}"),
    "test_loss": ("test loss (nats)", "{:.4f}"),
    "test_top5": ("test top-5", "{:.2%}"),
    "best_validation": ("best validation", "{:.4f}"),
    "num_parameters": ("parameters", "{:,}"),
    "epochs": ("epochs", "{:,}"),
    "steps": ("steps", "{:,}"),
    "seconds": ("seconds", "{:,.1f}"),
    "images_per_second": ("images/s", "{:,.0f}"),
    "device": ("device", "{}"),
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture as the page has it.

    Attributes:
        source: a data URI.
        width: in pixels.
        height: in pixels.
        player: of an animated drawing, in place of the source; see `player`.
        network: of a playground, in place of the source: the JSON its script loads.
    """

    title: str
    caption: str
    source: str
    width: float
    height: float
    player: str = ""
    lines: str = ""
    network: str = ""

    @property
    def is_wide(self) -> bool:
        """Return whether it takes the page's whole width."""
        return self.width > _WIDE or bool(self.network)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table: what is read, and what sorting goes by."""

    text: str
    value: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table; `differs` marks one in which runs are not alike."""

    cells: tuple[Cell, ...]
    differs: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that a reader can sort."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]


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
    about = _describe_runs(runs, run_options)
    return _write_page(directory / PAGE_FILE, about, {}, sections)


def write_tables(
    directory: Path,
    title: str,
    notes: Sequence[str],
    tables: Mapping[str, Table],
    sections: Sequence[Section],
    name: str = PAGE_FILE,
) -> Path:
    """Write a page of tables by heading, and of pictures, but of no runs.

    Args:
        directory: where it goes.
        title: of the page.
        notes: what is to be said first, a sentence each.
        tables: by heading.
        sections: the pictures, in order.
        name: of the file.

    Raises:
        UserError: as `write_report`.
    """
    empty = Table((), ())
    about: dict[str, Any] = {"title": title, "runs": [], "notes": notes}
    about |= dict.fromkeys(("result", "details", "options", "different"), empty)
    return _write_page(directory / name, about, tables, sections)


def tabulate(names: Sequence[str], values: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table with a row for each mapping and a column for each name."""
    rows = [
        Row(tuple(_make_cell(one.get(name), "{:.6g}") for name in names))
        for one in values
    ]
    return Table(tuple(names), tuple(rows))


def _write_page(
    path: Path,
    about: Mapping[str, Any],
    tables: Mapping[str, Table],
    sections: Sequence[Section],
) -> Path:
    """Fill the template and write it."""
    described = [_describe_section(section) for section in sections]
    is_played = any(one.player for section in described for one in section["figures"])
    page = template.fill(
        "report.html.jinja",
        path.name,
        **about,
        tables=tables,
        sections=described,
        player_style=player.read_style() if is_played else "",
        player_script=player.read_script() if is_played else "",
    )
    atomic.write_text(path, page)
    return path


def _embed(picture: Picture) -> Figure:
    """Read a picture as a part of the page, or the SVG or WebP beside it."""
    if isinstance(picture, Slide) and (drawing := picture.drawing).steps > 1:
        size, played = (drawing.width, drawing.height), player.embed(drawing)
        return Figure(
            picture.title, picture.caption, "", *size, played, lines=picture.lines
        )
    beside = [picture.path.with_suffix(suffix) for suffix in (".svg", ".webp")]
    path = next((each for each in beside if each.exists()), picture.path)
    content = path.read_bytes()
    if path.suffix == ".json":
        return Figure(
            picture.title, picture.caption, "", 0, 0, network=content.decode()
        )
    source = f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(content).decode()}"
    return Figure(
        picture.title,
        picture.caption,
        source,
        *_measure(path.suffix, content),
        lines=picture.lines,
    )


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
        "figures": [_embed(picture) for picture in section.pictures],
    }


def _describe_runs(
    directories: Sequence[Path], run_options: Collection[str]
) -> dict[str, Any]:
    """Read what runs say of themselves; what cannot be read of one becomes a note.

    Returns:
        `title`, `runs` (names), `notes`, and the tables `result` (a row for each run),
        `details` (all of result.json), `options` and `different` (those of
        `run_options` in which the runs differ).
    """
    names, notes = name_runs(directories), []
    results = [_read(path / "result.json", notes) for path in directories]
    stored = [_read(path / workdir.CONFIG_FILE, notes) for path in directories]
    options = _make_table("option", names, stored)
    different = [
        row for row in options.rows if row.differs and row.cells[0].text in run_options
    ]
    title = f"{names[0]}: a look inside" if names else "A look inside"
    if len(names) > 1:
        title = f"{len(names)} runs compared"
    return {
        "title": title,
        "runs": names,
        "notes": notes,
        "result": _make_results(names, results),
        "details": _make_table("quantity", names, [_flatten(x) for x in results]),
        "options": options,
        "different": Table(options.heads, tuple(different)),
    }


def _read(path: Path, notes: list[str]) -> dict[str, Any]:
    """Read a JSON object; what prevents it becomes a note."""
    if not path.exists():
        notes.append(f"{path} does not exist: the run was not trained here to its end")
        return {}
    try:
        found = workdir.read_json(path)
    except UserError as error:
        notes.append(str(error))
        return {}
    if not isinstance(found, dict):
        notes.append(f"{path} is damaged: it holds no object")
        return {}
    return found


def _flatten(values: dict[str, Any], start: str = "") -> dict[str, Any]:
    """Bring objects within an object to one level, `versions.jax`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, dict)
        flat |= _flatten(value, f"{start}{name}.") if inner else {start + name: value}
    return flat


def _make_results(names: Sequence[str], results: Sequence[dict[str, Any]]) -> Table:
    """Make the table of results, a row for each run that has one."""
    known = [key for key in _RESULTS if any(key in result for result in results)]
    rows = []
    for name, result in zip(names, results, strict=True):
        cells = [_make_cell(result.get(key), _RESULTS[key][1]) for key in known]
        if result:
            rows.append(Row((_make_cell(name), *cells)))
    return Table(("run", *(_RESULTS[key][0] for key in known)), tuple(rows))


def _make_table(
    head: str, names: Sequence[str], values: Sequence[dict[str, Any]]
) -> Table:
    """Make a table with a row for each name of a value and a column for each run."""
    rows = []
    for key in dict.fromkeys(key for one in values for key in one):
        found = [one.get(key) for one in values]
        differs = any(value != found[0] for value in found)
        cells = (_make_cell(key), *(_make_cell(value) for value in found))
        rows.append(Row(cells, differs))
    return Table((head, *names), tuple(rows))


def _make_cell(value: Any, form: str = "{}") -> Cell:
    if value is None:
        return Cell("–", "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(form.format(value), repr(value))
    text = show_line(format_value(value))
    return Cell(text, text)
