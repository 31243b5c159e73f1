"""What of a source was taken: how many files of each class, part by part."""

from collections.abc import Mapping, Sequence

import numpy as np

from cnn.data.labels import count_classes
from cnn.data.names import count, show
from cnn.text import show_line

_LISTED = 8

Counts = Mapping[str, Mapping[str, int]]


def count_files(
    class_names: Sequence[str], labels: np.ndarray, parts: np.ndarray | None
) -> dict[str, dict[str, int]]:
    """Count the files of each class.

    Args:
        class_names: of the labels.
        labels: as of `labels`.
        parts: of the files [N]; None: they are not divided.

    Returns:
        By part (`all` where there are none) and class.
    """
    if parts is None:
        parts = np.full(len(labels), "all")
    found = {}
    for part in ("all", "train", "validation", "test"):
        chosen = labels[parts == part]
        if len(chosen):
            counts = count_classes(chosen, len(class_names)).tolist()
            found[part] = dict(zip(class_names, counts, strict=True))
    return found


def describe_counts(counts: Counts, noun: str = "file") -> list[str]:
    """Write a line for each part: its files, and how many of each class.

    Args:
        noun: what the counts add up to: files, or labels where one has several.
    """
    lines = []
    for part, classes in counts.items():
        files = [n for n in classes.values() if n]
        line = "" if part == "all" else f"{part} "
        line += f"{count(sum(files), noun)} of {count(len(files), 'class')}"
        if len(classes) <= _LISTED:
            each = [f"{show_line(name)} {n:,}" for name, n in classes.items() if n]
            line += f": {', '.join(each)}"
        else:
            least, most = min(files), max(files)
            line += f" ({least:,}{f' to {most:,}' if most > least else ''} a class)"
        empty = [name for name, n in classes.items() if not n]
        lines.append(line + (f"; no {noun} of {show(empty)}" if empty else ""))
    return lines
