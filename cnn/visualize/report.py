"""The report: one HTML file with every picture of a call."""

import html
from collections.abc import Sequence
from pathlib import Path

from cnn import workdir
from cnn.visualize.picture import Section


def write_report(
    directory: Path, runs: Sequence[Path], sections: Sequence[Section]
) -> Path:
    """Write `report.html`.

    Args:
        directory: where it goes.
        runs: the directories of the runs that are shown; empty when none was needed.
        sections: the pictures, in order.

    Returns:
        The file.
    """
    lines = ["<!doctype html><meta charset='utf-8'><title>Pictures</title>"]
    lines += [f"<p>{html.escape(str(run))}" for run in runs]
    for section in sections:
        lines.append(f"<h2>{html.escape(section.title)}</h2>")
        lines += [f"<p>{html.escape(note)}" for note in section.notes]
        for drawn in section.pictures:
            source = drawn.path.relative_to(directory)
            lines.append(f"<p><img src='{source}'><br>{html.escape(drawn.caption)}")
    path = directory / "report.html"
    workdir.write_text(path, "\n".join(lines))
    return path
