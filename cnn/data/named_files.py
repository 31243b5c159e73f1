"""Image files that the user names: files, directories and patterns."""

import glob
import itertools
import os
import pathlib
from collections import Counter

from cnn.data import tree
from cnn.data.names import count
from cnn.errors import UserError
from cnn.option import expand_path

_MOST_BYTES = 4096  # no path is longer


def find_files(flag: str, text: str) -> tuple[list[str], tuple[str, ...]]:
    """Find the files that a flag names, separated by commas.

    What exists is no pattern, and a name may hold commas: a comma separates two where
    joining them names nothing. Of a directory the image files are taken, by their
    endings, those of its directories too; of a pattern every file, or if it matches
    directories alone, what these hold.

    Args:
        flag: without its dashes, for messages.
        text: its value; `~` at the beginning of a name is the home directory.

    Returns:
        Paths in the order of the names, those of one name sorted; a file that several
        name comes once. And lines to print of what directories hold besides.

    Raises:
        UserError: a name leads to no file.
    """
    parts, groups, left_out = text.split(","), [], Counter()
    while parts:
        joined, found = 1, None
        for joined in range(_count_joined(parts), 0, -1):
            found = _match(flag, ",".join(parts[:joined]), left_out)
            if found is not None:
                break
        if found is None:
            besides = f"; {_describe(left_out)}" if left_out else ""
            raise UserError(f"--{flag}={parts[0]} matches no file{besides}")
        groups.append(found)
        parts = parts[joined:]
    notes = (f"--{flag}: {_describe(left_out)}",) if left_out else ()
    if len(groups) == 1 and groups[0]:
        return groups[0], notes
    once = {
        os.path.abspath(path): path for group in groups[::-1] for path in group[::-1]
    }
    if not once:
        raise UserError(f"--{flag}={text} names no file")
    return list(once.values())[::-1], notes


def _count_joined(parts: list[str]) -> int:
    """Return how many parts, joined by commas, could be one path; 1 at least."""
    ends = itertools.accumulate(len(part) + 1 for part in parts)
    return max(sum(1 for end in ends if end <= _MOST_BYTES), 1)


def _match(flag: str, text: str, left_out: Counter[str]) -> list[str] | None:
    """Return the files of one name, sorted; None if it leads to none.

    Args:
        left_out: gets how many files of directories are none, by ending.
    """
    for name in dict.fromkeys((text, text.strip())):
        path = expand_path(flag, name)
        if os.path.isdir(path):
            return _list_images([path], left_out) or None
        if os.path.lexists(path):  # what is no file is a bad image
            return [path]
        found = _glob(path) if glob.has_magic(path) else []
        files = [match for match in found if not os.path.isdir(match)]
        files = files or _list_images(found, left_out)
        if files:
            return sorted(files)
    return None if text.strip() else []


def _glob(pattern: str) -> list[str]:
    """Match a pattern; the directories before it that exist are no pattern."""
    names = pattern.split(os.sep)
    for depth in range(len(names) - 1, 0, -1):
        folder = os.sep.join(names[:depth])
        if os.path.isdir(folder):
            pattern = os.sep.join([glob.escape(folder), *names[depth:]])
            break
    return glob.glob(pattern, recursive=True)


def _list_images(folders: list[str], left_out: Counter[str]) -> list[str]:
    """Return the images in folders and below, sorted."""
    found = []
    for folder in folders:
        root = tree.scan(pathlib.Path(folder))
        left_out.update(root.count_others())
        found += [str(path) for _, path in root.list_images(root)]
    return sorted(found)


def _describe(left_out: Counter[str]) -> str:
    """Say how many files of which endings were left out."""
    return (
        f"{count(left_out.total(), 'file')} of directories left out, as they are no "
        f"images by their names ({tree.describe_others(left_out)}); a pattern takes "
        "them"
    )
