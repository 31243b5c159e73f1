"""The report: one HTML file with the results, options and pictures of runs or a sweep.

Images are part of the file, so that it needs no network and no other file. The page
is `report.html.jinja`, beside this code.

What lies beside a picture's PNG under its name is shown in its place: an SVG, a WebP,
or a JSON of `cards`, or of `panels` and `runs`, which `chart.js` draws.
"""

import base64
import csv
import dataclasses
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from cnn.checkpoints import atomic, naming, workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.option import format_value
from cnn.text import show_line
from cnn.training import calibration, same_data
from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.lecture.slide import Slide
from cnn.visualize.page import player, template

_TYPES = {".svg": "image/svg+xml", ".webp": "image/webp"}
_TYPES |= {".png": "image/png", ".gif": "image/gif"}
_WIDE, _MOST_ROWS = 720, 200
PAGE_FILE = "report.html"
INTERVAL = "[95 % interval]"
_RESULTS = {
    "test_accuracy": ("test accuracy", "{:.2%}"),
    "best_test_accuracy": ("test accuracy of the best checkpoint", "{:.2%}"),
    "test_balanced_accuracy": ("test balanced accuracy", "{:.2%}"),
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
    """A table that a reader can sort; `name` begins the addresses of its rows."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture as the page has it.

    Attributes:
        source: a data URI.
        width: in pixels.
        height: in pixels.
        is_line_art: whether it is made of lines and text on white, without a scale
            of colours, which would be turned round where the page is dark.
        player: of an animated drawing, in place of the source; see `player`.
        network: of a playground, in place of the source: the JSON its script loads.
        chart: the JSON of what the page's script draws in place of the source.
        cards: `image` (a data URI), `lines` of text and `link` (to a row of a table)
            of single images, in place of the source.
        table: rows of a CSV file, in place of the source.
        file: where that file lies, seen from the page.
    """

    title: str
    caption: str
    source: str = ""
    width: float = 0
    height: float = 0
    is_line_art: bool = False
    player: str = ""
    lines: str = ""
    network: str = ""
    chart: str = ""
    cards: tuple[Mapping[str, Any], ...] = ()
    table: Table | None = None
    file: str = ""

    @property
    def is_wide(self) -> bool:
        """Return whether it takes the page's whole width."""
        others = self.network or self.chart or self.cards or self.table
        return self.width > _WIDE or bool(others)


def write_report(
    directory: Path,
    runs: Sequence[Path],
    sections: Sequence[Section],
    tables: Mapping[str, Table] | None = None,
) -> Path:
    """Write `report.html`.

    Args:
        directory: where it goes.
        runs: the directories of the runs that are shown; empty when none was needed.
        sections: the pictures, in order.
        tables: by heading, what is shown of the results of several runs in place of a
            row for each.

    Returns:
        The file.

    Raises:
        UserError: jinja2 is not installed, or the directory cannot be written.
    """
    about = _describe_runs(runs)
    if tables or len(runs) < 2:
        about["result"] = Table((), ())
    return _write_page(directory / PAGE_FILE, about, tables or {}, sections)


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
    about |= {"tiles": [], "changed": []}
    about |= dict.fromkeys(("result", "details", "options"), empty)
    return _write_page(directory / name, about, tables, sections)


def tabulate(names: Sequence[str], values: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table with a row for each mapping and a column for each name."""
    rows = [
        Row(tuple(_make_cell(one.get(name), "{:.6g}") for name in names))
        for one in values
    ]
    return Table(tuple(names), tuple(rows))


def write_interval(mean: float | None, low: float | None, high: float | None) -> Cell:
    """Write a mean, which it is sorted by, with its interval, None without one.

    The head of the column says `INTERVAL`.
    """
    if mean is None:
        return Cell("–", "")
    spread = "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"
    return Cell(f"{mean:.4f}{spread}", repr(mean))


def _write_page(
    path: Path,
    about: Mapping[str, Any],
    tables: Mapping[str, Table],
    sections: Sequence[Section],
) -> Path:
    """Fill the template and write it."""
    described = [_describe_section(section, path.parent) for section in sections]
    figures = [one for section in described for one in section["figures"]]
    is_played = any(one.player for one in figures)
    page = template.fill(
        "report.html.jinja",
        path.name,
        **about,
        tables=tables,
        sections=described,
        is_charted=any(one.chart for one in figures),
        player_style=player.read_style() if is_played else "",
        player_script=player.read_script() if is_played else "",
    )
    atomic.write_text(path, page)
    return path


def _embed(picture: Picture, directory: Path) -> Figure:
    """Read a picture as a part of the page, or what lies beside it."""
    path, about = picture.path, (picture.title, picture.caption)
    if isinstance(picture, Slide) and (drawing := picture.drawing).steps > 1:
        size, played = (drawing.width, drawing.height), player.embed(drawing)
        return Figure(*about, "", *size, player=played, lines=picture.lines)
    if path.suffix == ".json":
        return Figure(*about, network=path.read_text("utf-8"))
    if path.suffix == ".csv":
        file = quote(os.fsencode(os.path.relpath(path, directory).replace(os.sep, "/")))
        return Figure(*about, table=_read_table(path), file=file)
    shown = [path.with_suffix(suffix) for suffix in (".svg", ".webp")]
    source = next((each for each in shown if each.exists()), path)
    content, chart, cards = source.read_bytes(), "", ()
    if (beside := path.with_suffix(".json")).exists():
        found = workdir.read_json(beside)
        cards = tuple(found.get("cards", ()))
        chart = "" if cards else _write_script_data(found)
    encoded = base64.b64encode(content).decode()
    return Figure(
        *about,
        f"data:{_TYPES[source.suffix]};base64,{encoded}",
        *_measure(source.suffix, content),
        is_line_art=_is_line_art(picture, source.suffix, content),
        lines=picture.lines,
        chart=chart,
        cards=cards,
    )


def _is_line_art(picture: Picture, suffix: str, content: bytes) -> bool:
    """Return whether a dark page may invert it: no slide, and no scale of colours."""
    is_scaled = b"<image" in content  # as matplotlib writes the bar of a scale
    return suffix == ".svg" and not isinstance(picture, Slide) and not is_scaled


def _write_script_data(found: Any) -> str:
    """Write JSON that ends no element of a page, whatever names it holds."""
    return json.dumps(found).replace("<", "\\u003c")


def _read_table(path: Path) -> Table:
    """Read the first rows of a CSV file."""
    text = path.read_text("utf-8", errors="surrogateescape")
    heads, *rows = csv.reader(io.StringIO(text, newline=""))
    cells = [tuple(Cell(show_line(x), x) for x in row) for row in rows[:_MOST_ROWS]]
    return Table(tuple(heads), tuple(map(Row, cells)), path.stem)


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


def _describe_section(section: Section, directory: Path) -> dict[str, Any]:
    heading, _, about = section.title.partition(":")
    figures = [_embed(picture, directory) for picture in section.pictures]
    return {
        "name": section.name,
        "heading": heading,
        "about": about.strip()[:1].upper() + about.strip()[1:],
        "notes": section.notes,
        "figures": figures,
        "labels": _shorten_titles([figure.title for figure in figures]),
    }


def _shorten_titles(titles: Sequence[str]) -> list[str]:
    """Leave out the words that all titles of a section begin with."""
    words = [title.split() for title in titles]
    common = len(os.path.commonprefix(words)) if len(words) > 1 else 0
    return [
        " ".join(own[common:]) or title
        for own, title in zip(words, titles, strict=True)
    ]


def _describe_runs(directories: Sequence[Path]) -> dict[str, Any]:
    """Read what runs say of themselves; what cannot be read of one becomes a note.

    Returns:
        `title`, `runs` (names), `notes`, `tiles` (of a run alone: what it has reached),
        `changed` (of a run alone: options that are not the default), and the tables
        `result` (a row for each run), `details` (all of result.json) and `options`.
    """
    names, notes = naming.label_runs(directories), []
    results = [_read(path / "result.json", notes) for path in directories]
    stored = [_read(path / workdir.CONFIG_FILE, notes) for path in directories]
    is_alone, title = len(names) == 1, names[0] if names else "Pictures"
    return {
        "title": title if len(names) < 2 else f"{len(names)} runs compared",
        "runs": names,
        "notes": notes,
        "tiles": _make_tiles(directories[0], results[0], stored[0]) if is_alone else [],
        "result": _make_results(names, results),
        "details": _make_table("quantity", names, [_flatten(x) for x in results]),
        "options": _make_table("option", names, stored),
        "changed": _list_changed(stored[0]) if is_alone else [],
    }


def _make_tiles(
    directory: Path, result: Mapping[str, Any], stored: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Make what a reader wants to know first: its name, the value, and what to add.

    Left out is what cannot be otherwise: the best of five where there are no more
    classes, and the best checkpoint's accuracy where that is the last one.
    """
    records = same_data.read_records(directory)
    classes = records[0].get("class_names") if records else None
    left_out = set()
    if classes and len(classes) <= 5:
        left_out.add("test_top5")
    if result.get("best_step") == result.get("steps"):
        left_out.add("best_test_accuracy")
    tiles = []
    for key, (name, form) in _RESULTS.items():
        if result.get(key) is not None and key not in left_out:
            cell = _make_cell(result[key], form)
            metric = stored.get("select_by", "auto")
            if key == "best_validation" and metric != "auto":
                name = f"{name} {metric}".replace("_", " ")
            tiles.append((name, cell.text, _qualify(key, result)))
    return tiles


def _qualify(key: str, result: Mapping[str, Any]) -> str:
    """Say of how many images an accuracy is, and within what it lies."""
    start = key.removesuffix("_accuracy")
    correct, count = (result.get(f"{start}_{x}") for x in ("correct", "count"))
    if key == start or type(correct) is not int or type(count) is not int or count < 1:
        return ""
    shares, counts = np.array([correct / count]), np.array([count])
    low, high = calibration.compute_interval(shares, counts)[0]
    return f"{correct:,} of {count:,} images; 95 % interval {low:.2%} to {high:.2%}"


def _list_changed(stored: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """List the options that are not the default: name, value and default."""
    defaults = Config().select_run_options()
    found = [
        (name, format_value(value), format_value(defaults[name]))
        for name, value in stored.items()
        if name in defaults
    ]
    return [one for one in found if one[1] != one[2]]


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
