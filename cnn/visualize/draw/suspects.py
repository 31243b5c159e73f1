"""Suspects: the training images whose labels are most probably wrong."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cnn.checkpoints.naming import label_runs
from cnn.errors import UserError, explain
from cnn.text import name_file
from cnn.training.suspects import EXAMPLES_FILE
from cnn.visualize.draw import lettering, mistakes, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.subject import Subject

_SHEET, _MOST_CHARACTERS = 48, 22
_TITLE = "The most suspicious labels"
_CAPTION = (
    "Training images in the order of the run's examples.csv. Above each: its label ≠ "
    "what the model said instead; by how much its mean margin over training is below "
    "the median of its class, the epoch of the first right answer, how often it was "
    "forgotten; its name. Look at them before --drop_examples leaves any out."
)


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw a sheet for each run that has tracked its examples.

    Raises:
        UserError: the training images are not those of the run, or none has tracked.
    """
    names = label_runs(subject.directories)
    pairs = zip(subject.directories, names, strict=True)
    sheets = subject.collect(
        lambda pair: _draw_run(subject, pair[0], pair[1], folder), pairs
    )
    return list(sheets)


def _draw_run(subject: Subject, directory: Path, name: str, folder: Path) -> Picture:
    rows = _read_rows(directory)
    train = subject.dataset.train
    places = {text: i for i, text in enumerate(train.names)}
    if missing := [row["name"] for row in rows if row["name"] not in places]:
        raise UserError(
            f"{directory / EXAMPLES_FILE}: {lettering.make_label(missing[0])} is no "
            f"training image of {subject.dataset.name}; give the --dataset of the run"
        )
    images = train.read(np.array([places[row["name"]] for row in rows]))
    figure = mistakes.draw_sheet(images, [_write(row) for row in rows])
    if len(subject.directories) == 1:
        return picture.save(figure, folder / "suspects.png", _TITLE, _CAPTION)
    path = folder / f"{name_file(f'{name}_suspects', 'suspects')}.png"
    title = f"{_TITLE}, {lettering.make_label(name)}"
    return picture.save(figure, path, title, _CAPTION)


def _read_rows(directory: Path) -> list[dict[str, str]]:
    """Read the first rows of a run's table, each with its image's `name`."""
    path = directory / EXAMPLES_FILE
    try:
        with path.open(newline="", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            rows = [row for _, row in zip(range(_SHEET), reader, strict=False)]
    except FileNotFoundError:
        raise UserError(
            f"{directory} has no {EXAMPLES_FILE}: train it with --track_examples=true"
        ) from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({explain(error)})") from None
    try:
        return [row | {"name": row.get("path") or row["id"]} for row in rows]
    except KeyError:
        raise UserError(f"{path} has no column path or id") from None


def _write(row: Mapping[str, str]) -> str:
    """Write what stands above an image."""
    said = row["instead"] or row["label"]
    both = " ≠ " if row["instead"] else " = "
    label, said, name = (
        lettering.make_label(x, _MOST_CHARACTERS)
        for x in (row["label"], said, row["name"])
    )
    first = f"learnt {row['first_learnt']}" if row["first_learnt"] != "0" else "never"
    counts = (
        f"{float(row['suspicion'] or 'nan'):.2f}, {first}, forgot {row['forgotten']}"
    )
    return f"{label}{both}{said}\n{counts}\n{name}"
