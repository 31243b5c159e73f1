"""What runs say of themselves, as tables: their results and their options."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cnn import workdir
from cnn.errors import UserError
from cnn.options import format_value
from cnn.visualize.named_run import name_runs

_RESULTS = {
    "test_accuracy": ("test accuracy", "{:.2%}"),
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
_NOTHING = "–"


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


def describe_runs(
    directories: Sequence[Path], run_options: Collection[str] = ()
) -> dict[str, Any]:
    """Read what runs say of themselves.

    Args:
        directories: of the runs; what cannot be read of one becomes a note.
        run_options: names of the options of which another value makes another run.

    Returns:
        `title`, `runs` (names), `notes`, and the tables `result` (a row for each run),
        `details` (all of result.json), `options` and, of those that make another run,
        `different`.
    """
    names, notes = name_runs(directories), []
    results = [_read(path / "result.json", notes) for path in directories]
    stored = [_read(path / workdir.CONFIG_FILE, notes) for path in directories]
    options = _make_table("option", names, stored)
    own = [{key: x for key, x in one.items() if key in run_options} for one in stored]
    different = [row for row in _make_table("option", names, own).rows if row.differs]
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
    rows = tuple(
        Row(
            (
                _make_cell(name),
                *(_make_cell(result.get(k), _RESULTS[k][1]) for k in known),
            )
        )
        for name, result in zip(names, results, strict=True)
        if result
    )
    return Table(("run", *(_RESULTS[key][0] for key in known)), rows)


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
        return Cell(_NOTHING, "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(form.format(value), repr(value))
    text = format_value(tuple(value) if isinstance(value, list) else value)
    return Cell(text, text)
