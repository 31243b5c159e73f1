"""Images that a CSV file lists in columns `path`, `label` or `labels`, maybe `split`.

The file is UTF-8; columns are separated by commas, semicolons or tabs, whatever the
first line has; names of columns and splits are read in any case (`names.find_part`).
Cells are stripped, empty lines skipped, and every other line has as many cells as the
first. Paths are relative to the file. Classes are the labels of the training rows,
sorted; whole numbers are sorted by value. Neither depends on the order of the lines.

A cell holds one label, or any number of them: where the column is called `labels`, a
cell of `label` holds `|`, or `--task=multilabel` says so. They are then separated by
`|`; in tables without any `|` whose columns are not, by `;`. An empty cell is no label.
Of a table with both columns `--task` says which is read.
"""

import csv
import dataclasses
import io
import os
import pathlib
import posixpath
from collections.abc import Iterator

import numpy as np

from cnn.data import files, images, taken
from cnn.data.labels import SEPARATOR, as_stored
from cnn.data.names import count, find_part, normalise, show
from cnn.data.options import DataOptions
from cnn.errors import UserError, suggest
from cnn.runtime import own_files

_COLUMNS = ("path", "label", "split")
_PLURAL = "labels"
# Longer ones are no numbers: Python refuses to convert more than 4,300 digits.
_DIGITS = 1000
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclasses.dataclass(frozen=True)
class _Row:
    line: int
    path: pathlib.Path
    name: str
    labels: tuple[str, ...]  # as they are read, the cell alone
    part: str | None


@dataclasses.dataclass(frozen=True)
class _Table:
    rows: list[_Row]
    notes: tuple[str, ...]
    has_several: bool  # whether an image may have any number of labels

    @property
    def parts(self) -> np.ndarray | None:
        """The part of each row; None without a column `split`."""
        found = [row.part for row in self.rows]
        return None if found[0] is None else np.array(found)


def load(rest: str, options: DataOptions) -> images.Dataset:
    """Load the images that the file at the path `rest` lists.

    Splits are treated as the parts of folders are.

    Raises:
        UserError: the table is not of the form above, an image has two labels, or a
            label to test on is not trained on (each names the line); there is nothing
            to train or to test on; or a file is bad.
    """
    name, path = f"csv:{rest}", pathlib.Path(rest).expanduser()
    table = _read(name, path, options.task)
    parts = table.parts
    if parts is not None and ("train" not in parts or len(set(parts)) < 2):
        raise UserError(
            f"--dataset={name} has only {', '.join(sorted(set(parts)))}; it needs "
            "splits train and test (or val)"
        )
    trained = [row for row in table.rows if row.part in (None, "train")]
    class_names = _sort_labels(path, trained)
    for row in table.rows:
        for label in row.labels:
            if label not in class_names:
                raise UserError(
                    f"{path}, line {row.line}: label {label!r} is no class of the "
                    f"training images{suggest(label, class_names)}"
                )
    return files.load_files(_list(name, table, class_names), options)


def has_several_labels(rest: str, options: DataOptions) -> bool:
    """Return whether a cell of the file may hold several labels."""
    path = pathlib.Path(rest).expanduser()
    return _read(f"csv:{rest}", path, options.task).has_several


def load_evaluated(rest: str, options: DataOptions, split: str) -> images.Evaluated:
    """Load the images that a file lists to be evaluated; none need be of train.

    Args:
        split: of `choose_parts`; a file without that column is not divided.

    Raises:
        UserError: as `load`, or there is no such part.
    """
    name, path = f"csv:{rest}", pathlib.Path(rest).expanduser()
    table = _read(name, path, options.task)
    known = sorted({row.part or "" for row in table.rows})
    chosen = images.choose_parts(name, known, split)
    rows = [row for row in table.rows if (row.part or "") in chosen]
    table = dataclasses.replace(table, rows=rows)
    listing = _list(name, table, _sort_labels(path, rows))
    listing = dataclasses.replace(listing, parts=None)
    return files.load_evaluated(listing, options, len(chosen) == len(known))


def _list(name: str, table: _Table, class_names: dict[str, int]) -> files.Listing:
    rows, parts = table.rows, table.parts
    labels = np.zeros((len(rows), len(class_names)), np.uint8)
    for i, row in enumerate(rows):
        labels[i, [class_names[label] for label in row.labels]] = 1
    if not table.has_several:
        labels = as_stored(labels.argmax(axis=1))
    counts = taken.count_files(tuple(class_names), labels, parts)
    noun = "label" if table.has_several else "file"
    return files.Listing(
        name=name,
        class_names=tuple(class_names),
        paths=[row.path for row in rows],
        names=np.array([row.name for row in rows], object),
        labels=labels,
        parts=parts,
        notes=(*table.notes, *taken.describe_counts(counts, noun)),
        taken={f"{noun}s": counts},
    )


def _sort_labels(path: pathlib.Path, rows: list[_Row]) -> dict[str, int]:
    """Number the labels of rows in their order."""
    labels = sorted({label for row in rows for label in row.labels})
    if not labels:
        raise UserError(f"{path}: no image has a label")
    if all(label.isdecimal() and len(label) < _DIGITS for label in labels):
        labels = sorted(labels, key=int)
        for one, other in zip(labels, labels[1:], strict=False):
            if int(one) == int(other):
                raise UserError(
                    f"{path}: the labels {one} and {other} are one number; write each "
                    "class in one way"
                )
    return {label: number for number, label in enumerate(labels)}


def _read(name: str, path: pathlib.Path, task: str) -> _Table:
    """Read the rows of a table; `task` as of `--task`."""
    text = _read_text(name, path)
    separator = _find_separator(path, text)
    lines = _split_lines(path, text, separator)
    _, header = next(lines)
    columns = [cell.casefold() for cell in header]
    is_plural = _choose_column(path, columns, task) == _PLURAL
    if is_plural:
        columns = [{"label": "", _PLURAL: "label"}.get(x, x) for x in columns]
    rows = [_read_row(path, line, header, columns, cells) for line, cells in lines]
    if not rows:
        raise UserError(f"{path} lists no image below its first line")
    several = _choose_label_separator(rows, separator, task, is_plural)
    rows = [_split_labels(path, row, several) for row in rows]
    notes = _check_repeated(path, rows)
    if separator != ",":
        notes = (f"{path}: columns are separated by {_SEPARATORS[separator]}", *notes)
    return _Table(rows, notes, bool(several))


def _choose_column(path: pathlib.Path, columns: list[str], task: str) -> str:
    """Choose between `label` and `labels` where a table has both."""
    if not {"label", _PLURAL} <= set(columns):
        return "label" if "label" in columns else _PLURAL
    if task == "auto":
        raise UserError(
            f"{path} has the columns label and {_PLURAL}; leave one out, or train "
            "with --task=multiclass, which takes the first, or multilabel, the second"
        )
    return _PLURAL if task == "multilabel" else "label"


def _choose_label_separator(
    rows: list[_Row], separator: str, task: str, is_plural: bool
) -> str:
    """Return what separates the labels of a cell; empty where a cell is one label.

    Args:
        rows: with whole cells.
        separator: of the columns.
        task: as of `--task`.
        is_plural: whether the column is called `labels`.
    """
    holds = {x: any(x in row.labels[0] for row in rows) for x in (SEPARATOR, ";")}
    is_asked = is_plural or task == "multilabel"
    if task == "multiclass" or not (is_asked or holds[SEPARATOR]):
        return ""
    is_other = holds[";"] and separator != ";" and not holds[SEPARATOR]
    return ";" if is_other else SEPARATOR


def _split_labels(path: pathlib.Path, row: _Row, separator: str) -> _Row:
    """Split the cell of labels, each once; with no separator it is one label."""
    (cell,) = row.labels
    if not separator:
        if not cell:
            raise UserError(
                f"{path}, line {row.line}: label is empty; where images may have none "
                f"or several, call the column {_PLURAL}"
            )
        return row
    labels = [x.strip() for x in cell.split(separator)] if cell else []
    if "" in labels:
        raise UserError(
            f"{path}, line {row.line}: one of the labels {cell!r} is empty; they are "
            f"separated by {separator}"
        )
    return dataclasses.replace(row, labels=tuple(sorted(set(labels))))


def _read_text(name: str, path: pathlib.Path) -> str:
    try:
        content = own_files.read(path)
    except OSError as error:
        raise UserError(f"--dataset={name}: {error.strerror}; give a file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            error = "its first bytes are those of UTF-16 or UTF-32"
        raise UserError(
            f"{path}, line {line}: this is no text in UTF-8 ({error}); save it as CSV "
            "in UTF-8"
        ) from None
    if "\0" in text:
        raise UserError(f"{path} is no text in UTF-8, it holds NUL; save it as such")
    return text


def _find_separator(path: pathlib.Path, text: str) -> str:
    """Return what separates the columns that are needed in the first line."""
    header = []
    for separator in _SEPARATORS:
        _, header = next(_split_lines(path, text, separator), (1, []))
        columns = [cell.casefold() for cell in header]
        if "path" in columns and ("label" in columns or _PLURAL in columns):
            twice = [x for x in (*_COLUMNS, _PLURAL) if columns.count(x) > 1]
            if twice:
                raise UserError(f"{path}: the first line has {twice[0]} twice")
            return separator
    first = next(iter(text.splitlines()), "")
    raise UserError(
        f"{path}: the first line must name the columns path and label, separated by "
        f"commas, semicolons or tabs; it is {first[:200]!r}"
    )


def _split_lines(
    path: pathlib.Path, text: str, separator: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield each line's number, counted from 1, and its cells; not the empty ones."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        skipinitialspace=True,
        strict=True,
    )
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f'{path}, line {line}: {error}; quote cells whole, as "a, b", and '
                'double the quotes in them: "a ""b"""'
            ) from None
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield line, cells


def _read_row(
    path: pathlib.Path,
    line: int,
    header: list[str],
    columns: list[str],
    cells: list[str],
) -> _Row:
    where = f"{path}, line {line}"
    if len(cells) < len(header) or any(cells[len(header) :]):
        raise UserError(
            f"{where} has {count(len(cells), 'cell')} and the first line {len(header)} "
            f"({', '.join(header)}): {', '.join(cells)[:200]!r}; fill in what is "
            'missing, and quote a cell with a comma in it: "a, b"'
        )
    row = {x: cells[columns.index(x)] for x in _COLUMNS if x in columns}
    for column, cell in row.items():
        if not cell and column != "label":
            raise UserError(f"{where}: {column} is empty")
    part = None
    if "split" in row:
        part = find_part(row["split"])
        if part is None:
            known = ("train", "val", "test")
            raise UserError(
                f"{where}: split {row['split']!r} is unknown"
                f"{suggest(row['split'], known)}"
            )
    text = row["path"]
    if "\\" in text and not os.path.exists(path.parent / text):
        text = text.replace("\\", "/")  # as Windows writes it
    file = path.parent / text
    return _Row(line, file, _name(path, text), (normalise(row["label"]),), part)


def _name(path: pathlib.Path, text: str) -> str:
    """Return the path of an image, below the table relative to it."""
    root, found = path.parent.absolute(), pathlib.Path(text)
    below = found.is_absolute() and found.is_relative_to(root)
    return posixpath.normpath(found.relative_to(root) if below else text)


def _check_repeated(path: pathlib.Path, rows: list[_Row]) -> tuple[str, ...]:
    """Refuse an image under two labels; say which stand in more than one line."""
    first: dict[str, _Row] = {}
    repeated, shared = [], []
    for row in rows:
        other = first.setdefault(row.name, row)
        if other.labels != row.labels:
            there, here = (SEPARATOR.join(x.labels) for x in (other, row))
            raise UserError(
                f"{path}: {row.name} has the label {there!r} in line "
                f"{other.line} and {here!r} in line {row.line}; keep one"
            )
        if other.part != row.part:
            shared.append(row.name)
        elif other is not row:
            repeated.append(row.name)
    notes = []
    if shared:
        notes.append(
            f"warning   {count(len(shared), 'image')} in more parts than one: "
            f"{show(shared)}"
        )
    if repeated:
        notes.append(
            f"{count(len(repeated), 'line')} with an image that another has: "
            f"{show(repeated)}"
        )
    return tuple(notes)
