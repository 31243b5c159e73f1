"""Sections that a report keeps: what was drawn stays when other pictures are drawn.

`pictures/sections.json` says of every section what is in it and of what it was drawn.
The next call renews those that it draws and takes the others from there, as long as
they are of the same runs and their files are there.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import atomic, manifest, workdir
from cnn.errors import UserError
from cnn.visualize.draw.picture import Picture, Section

FILE = "sections.json"


@dataclasses.dataclass(frozen=True)
class Origin:
    """What pictures were drawn of.

    Attributes:
        runs: directories of the runs, seen from that of the report.
        steps: of their newest checkpoints; -1 without one.
        checkpoint: of `--checkpoint`.
        split: of `--split`.
    """

    runs: tuple[str, ...]
    steps: tuple[int, ...]
    checkpoint: str
    split: str

    def describe_other(self, other: "Origin") -> str:
        """Say what another origin of the same runs is in which it differs; or ""."""
        parts = []
        if self.steps != other.steps:
            parts.append(f"of step {', '.join(map(str, other.steps))}")
        for name in ("checkpoint", "split"):
            if getattr(self, name) != getattr(other, name):
                parts.append(f"with --{name}={getattr(other, name)}")
        return " and ".join(parts)


def find_origin(
    directory: Path, runs: Sequence[Path], checkpoint: str, split: str
) -> Origin:
    """Find out what pictures of runs are drawn of, for a report in a directory."""
    steps = [manifest.list_steps(run / "checkpoints") for run in runs]
    return Origin(
        tuple(os.path.relpath(run, directory) for run in runs),
        tuple(found[-1] if found else -1 for found in steps),
        checkpoint,
        split,
    )


def renew(
    folder: Path, origin: Origin, drawn: Sequence[Section], order: Sequence[str]
) -> list[Section]:
    """Add what was drawn to the sections of a folder, or put it in their place.

    A section of which nothing could be drawn now keeps its pictures.

    Args:
        folder: of the pictures.
        origin: of what was drawn.
        drawn: the new sections.
        order: the names of sections in the order of the report.

    Returns:
        All sections of these runs in that order; those that show another step, or
        other images, say so in a note.
    """
    found = _read(folder)
    kept = {x.name: (x, o) for x, o in found if o.runs == origin.runs}
    sections = {name: section for name, (section, _) in kept.items()}
    origins = {name: own for name, (_, own) in kept.items()}
    for section in drawn:
        name = section.name
        if section.pictures or name not in sections:
            sections[name], origins[name] = section, origin
        else:
            new = dataclasses.replace(sections[name], notes=section.notes)
            sections[name] = new
    names = sorted(sections, key=lambda x: order.index(x) if x in order else len(order))
    _write(folder, [(sections[name], origins[name]) for name in names])
    return [_explain(sections[name], origin, origins[name]) for name in names]


def _explain(section: Section, now: Origin, then: Origin) -> Section:
    """Add a note to a section that was drawn of something else."""
    said = now.describe_other(then)
    if not said:
        return section
    note = f"drawn before, {said}; --pictures={section.name} renews it"
    return dataclasses.replace(section, notes=(*section.notes, note))


def _write(folder: Path, found: Sequence[tuple[Section, Origin]]) -> None:
    rows = []
    for section, origin in found:
        pictures = [
            {
                "path": os.path.relpath(x.path, folder.parent),
                "title": x.title,
                "caption": x.caption,
                "lines": x.lines,
            }
            for x in section.pictures
        ]
        row = {**dataclasses.asdict(origin), "name": section.name}
        row |= {"title": section.title, "pictures": pictures, "notes": section.notes}
        rows.append(row)
    atomic.write_text(folder / FILE, json.dumps(rows, indent=1) + "\n")


def _read(folder: Path) -> list[tuple[Section, Origin]]:
    """Read the sections whose files are there; none from a file that is damaged."""
    if not (folder / FILE).exists():
        return []
    try:
        return [_read_row(folder, row) for row in workdir.read_json(folder / FILE)]
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return []


def _read_row(folder: Path, row: dict[str, Any]) -> tuple[Section, Origin]:
    home = folder.parent
    pictures = [
        Picture(home / x["path"], x["title"], x["caption"], x["lines"])
        for x in row["pictures"]
        if ".." not in Path(x["path"]).parts and not Path(x["path"]).is_absolute()
    ]
    there = tuple(x for x in pictures if x.path.is_file())
    section = Section(row["name"], row["title"], there, tuple(row["notes"]))
    runs, steps = tuple(row["runs"]), tuple(row["steps"])
    return section, Origin(runs, steps, row["checkpoint"], row["split"])
