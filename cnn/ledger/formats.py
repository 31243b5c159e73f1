"""Tables as text, CSV, Markdown and LaTeX.

CSV has every column and exact numbers. The others leave out empty columns and what
nobody compares, and round: they are for reading. No name breaks its cell.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnn.checkpoints import rows as csv_rows
from cnn.option import format_value
from cnn.runtime.terminal import write_record
from cnn.text import format_row, show_line

Row = Mapping[str, Any]
# What is in CSV alone, as are all metrics but losses and those that are selected by.
_APART = {"best_epoch", "stopped_early", "steps", "num_parameters", "state_sha256"}
_APART |= {"validation_top5", "test_top5", "validation_balanced_accuracy"}
_APART |= {"test_balanced_accuracy"}
_METRIC = re.compile(r"(validation_|test_)\w+|(test_)?(mean|sd|low|high)")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}"} | {x: f"\\{x}" for x in "&%$#_{}"}


def format_table(kind: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Write a table, with a line end behind each of its lines.

    Args:
        kind: as of `--format`, or `records`: text for narrow terminals.
        columns: the names of all columns.
        rows: by column; None where there is no value.
    """
    if kind == "csv":
        return _write_csv(columns, rows)
    kept = select_readable(columns, rows)
    heads = [name.replace("disk_bytes", "disk") for name in kept]
    cells = [[format_cell(name, row.get(name)) for name in kept] for row in rows]
    is_right = [
        all(isinstance(row.get(name), int | float | None) for row in rows)
        for name in kept
    ]
    return _WRITERS[kind](heads, cells, is_right)


def select_readable(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Select the columns for reading: those that some row fills and that tell apart."""
    kept = [
        name
        for name in columns
        if name not in _APART and any(row.get(name) not in (None, "") for row in rows)
    ]
    if len({row.get("kind") for row in rows}) == 1:
        kept = [name for name in kept if name != "kind"]
    return kept


def format_cell(column: str, value: Any) -> str:
    """Write a value for reading, on one line."""
    if value is None:
        return ""
    if column == "disk_bytes":
        return format_bytes(value)
    if isinstance(value, float) and _METRIC.fullmatch(column):
        return f"{value:.4f}"
    if isinstance(value, float) and column == "seconds":
        return f"{value:.1f}"
    return show_line(format_value(value))


def format_bytes(count: int) -> str:
    """Write a number of bytes with its unit: 1 kB are 1,000 of them."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{size:.3g} {units[0]}"


def _write_csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [format_row(columns)]
    for row in rows:
        texts = {n: "" if x is None else format_value(x) for n, x in row.items()}
        if "run" in texts:
            texts["run"] = csv_rows.escape_path(texts["run"])
        lines.append(
            format_row(csv_rows.escape_text(texts.get(n, "")) for n in columns)
        )
    return "".join(lines)


def _write_text(
    heads: Sequence[str], cells: Sequence[Sequence[str]], is_right: Sequence[bool]
) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]

    def write(line: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_right, strict=True)
        ]
        return "  ".join(padded).rstrip() + "\n"

    return "".join(map(write, [heads, *cells]))


def _write_records(
    heads: Sequence[str], cells: Sequence[Sequence[str]], is_right: Sequence[bool]
) -> str:
    del is_right
    return "".join(f"{write_record(heads, line)}\n" for line in cells)


def _write_markdown(
    heads: Sequence[str], cells: Sequence[Sequence[str]], is_right: Sequence[bool]
) -> str:
    def write(line: Sequence[str]) -> str:
        return f"| {' | '.join(re.sub(r'([\\|`<])', r'\\\1', x) for x in line)} |\n"

    rule = "".join("|---:" if right else "|---" for right in is_right) + "|\n"
    return write(heads) + rule + "".join(map(write, cells))


def _write_latex(
    heads: Sequence[str], cells: Sequence[Sequence[str]], is_right: Sequence[bool]
) -> str:
    def write(line: Sequence[str]) -> str:
        texts = ("".join(_LATEX.get(x, x) for x in text) for text in line)
        return " & ".join(texts) + " \\\\\n"

    spec = "".join("r" if right else "l" for right in is_right)
    body = write(heads) + "\\hline\n" + "".join(map(write, cells))
    return f"\\begin{{tabular}}{{{spec}}}\n{body}\\end{{tabular}}\n"


_WRITERS: dict[str, Callable[..., str]] = {
    "text": _write_text,
    "records": _write_records,
    "markdown": _write_markdown,
    "latex": _write_latex,
}
