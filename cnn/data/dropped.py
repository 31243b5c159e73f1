"""Training images that a file says to leave out: `--drop_examples`.

The file is a CSV whose first line has a column `path` or `id`, as `examples.csv` of a
run and what `--per_image` writes, the other columns being of no account; or a text of
one name a line. Names are those of `Images.names`. Every image that it names is left
out of training, and of nothing else: where a validation set is carved out, and which
`--train_examples` are taken, is decided before.
"""

import csv
import dataclasses
import io
from collections.abc import Collection
from pathlib import Path

import numpy as np

from cnn.data.images import Dataset, Images
from cnn.data.names import count, show
from cnn.errors import UserError, explain
from cnn.option import expand_path
from cnn.runtime import own_files
from cnn.text import show_line

_COLUMNS, _SEPARATORS = ("path", "id"), ",;\t"


def read(flag: str, dataset: Dataset) -> frozenset[str]:
    """Read which examples are left out, and check that there are such.

    Args:
        flag: the value of `--drop_examples`; empty: none.
        dataset: of the source, before anything of it is chosen; of data that are not
            here, whose examples have no names, nothing is checked.

    Raises:
        UserError: the file cannot be read, or names no example or an unknown one.
    """
    if not flag or dataset.train.names is None:
        return frozenset()
    path = Path(expand_path("drop_examples", flag))
    try:
        content = own_files.read(path)
    except OSError as error:
        raise UserError(
            f"--drop_examples={flag}: {explain(error)}; give a file of ids or paths, "
            "such as some lines of a run's examples.csv"
        ) from None
    try:
        named = _read_names(content.decode("utf-8-sig", "surrogateescape"))
    except csv.Error as error:
        raise UserError(f"--drop_examples={flag} is no table: {error}") from None
    if not named:
        raise UserError(f"--drop_examples={flag} names no example; leave it out")
    known = {*dataset.train.names, *(bad.name for bad in dataset.excluded)}
    unknown = [name for name in named if name not in known]
    if unknown:
        raise UserError(
            f"--drop_examples={flag} names {count(len(unknown), 'example')} that "
            f"{dataset.name} does not train on: {show(unknown)}; correct or remove "
            f"these lines. It has such names as {show_line(dataset.train.names[0])}"
        )
    return frozenset(named)


def leave_out(
    train: Images, named: Collection[str], flag: str, notes: list[str]
) -> Images:
    """Return a training set without the examples of some names.

    Args:
        flag: the value of `--drop_examples`.
        notes: gets a line that says how many are left out.

    Raises:
        UserError: none would be left.
    """
    is_kept = np.array([name not in named for name in train.names])
    gone = int(np.sum(~is_kept))
    if gone == len(train):
        raise UserError(
            f"--drop_examples={flag} names all {gone} training images; keep the lines "
            "of those alone that are to be left out"
        )
    line = f"dropped   {gone} of {len(train)} training images (--drop_examples={flag})"
    if elsewhere := len(named) - gone:
        line += f"; {elsewhere} more that it names are not among them"
    notes.append(line)
    return train.take(np.flatnonzero(is_kept))


def record(dataset: Dataset, named: Collection[str]) -> Dataset:
    """Return a dataset that says which examples a file has left out."""
    if not named:
        return dataset
    taken = {**dataset.taken, "dropped": sorted(named)}
    return dataclasses.replace(dataset, taken=taken)


def _read_names(text: str) -> list[str]:
    """Read the names in a file, each once, in its order."""
    lines = io.StringIO(text, newline="").readlines()
    for separator in _SEPARATORS:
        header = next(csv.reader(lines[:1], delimiter=separator), [])
        cells = [cell.strip().casefold() for cell in header]
        for place in (cells.index(column) for column in _COLUMNS if column in cells):
            rows = csv.reader(lines[1:], delimiter=separator)
            return _choose([row[place] for row in rows if len(row) > place])
    return _choose([line.rstrip("\r\n") for line in lines])


def _choose(found: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(found) if name]
