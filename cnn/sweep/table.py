"""The table of a sweep: a line for every trial that has ended, safe on disk.

`trials.jsonl` grows by lines that are on disk before the next batch begins; what was
half written when the process died is cut off. `trials.csv` is made of it.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnn import workdir
from cnn.errors import UserError
from cnn.options import format_value

Record = dict[str, Any]
COLUMNS = (
    ["trial", "status"],
    ["validation_accuracy", "validation_balanced_accuracy", "validation_loss"]
    + ["test_accuracy", "test_balanced_accuracy", "test_loss"]
    + [
        "best_epoch",
        "stopped_early",
        "trained_epochs",
        "steps",
        "seconds",
        "num_parameters",
    ]
    + ["executor", "state_sha256", "reason"],
)


class TrialLog:
    """Appends the records of trials to `trials.jsonl`."""

    def __init__(self, path: Path) -> None:
        """Read what is there and open the file to append.

        Raises:
            UserError: a line other than the last is damaged.
        """
        self._path = path
        self.records = read_records(path)
        whole = "".join(map(_format_line, self.records)).encode()
        self._file = open(path, "ab")  # noqa: SIM115
        self._file.truncate(len(whole))

    def append(self, records: Sequence[Record]) -> None:
        """Append records; they are on disk when this returns."""
        self._file.write("".join(map(_format_line, records)).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records += records

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_records(path: Path) -> list[Record]:
    """Read the records of a file, none when it is absent.

    Raises:
        UserError: a line other than the last is damaged.
    """
    lines = path.read_text().split("\n") if path.exists() else [""]
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise UserError(
                f"{path}: line {number} is damaged; remove it, and its trial runs again"
            ) from None
    return records


def write_csv(path: Path, records: Iterable[Record]) -> None:
    """Write the table of trials, in the order of their numbers, whole or not at all."""
    records = sorted(records, key=lambda record: record["trial"])
    names = list(dict.fromkeys(n for record in records for n in record["options"]))
    first, rest = COLUMNS
    write_rows(path, [*first, *names, *rest], [r | r["options"] for r in records])


def write_rows(
    path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]
) -> None:
    """Write a CSV file whole or not at all; what a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_format_cell(row.get(name)) for name in columns])
    workdir.write_text(path, text.getvalue())


def _format_line(record: Record) -> str:
    return json.dumps(record) + "\n"


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    return format_value(tuple(value) if isinstance(value, list) else value)
