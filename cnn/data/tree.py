"""A tree of folders and the images in them, as it lies on disk.

An image is a file of one of `formats.ENDINGS`. Hidden files and folders are not seen,
nor folders that archivers and file systems leave behind (`__MACOSX`); a link to a
folder that holds it is not followed.
"""

import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Iterator

from cnn.data.formats import ENDINGS
from cnn.data.names import count, normalise
from cnn.errors import UserError
from cnn.text import show_line

_SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
_SYSTEM += ("lost+found", "__pycache__")
# How many folders of each depth a drawing shows, and how many lines it has.
_SHOWN = (10, 5, 3)
_LINES = 30


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
    """A folder and what is below it.

    Attributes:
        path: as it was given.
        real: the same with every link followed.
        images: names of those that lie in it directly.
        others: how many other files lie in it directly, by ending.
        folders: those in it, in order of their names.
        skipped: paths of the folders in it that were not looked into.
        count: how many images are in it and below.
    """

    path: pathlib.Path
    real: str
    images: tuple[str, ...]
    others: Counter[str]
    folders: tuple["Folder", ...]
    skipped: tuple[pathlib.Path, ...]
    count: int

    @property
    def name(self) -> str:
        """The folder's name in composed form."""
        return normalise(self.path.name)

    @property
    def full(self) -> list["Folder"]:
        """The folders in it that hold an image somewhere."""
        return [folder for folder in self.folders if folder.count]

    def walk(self) -> Iterator["Folder"]:
        """Yield this folder and all below it, each real one once."""
        yield from self._walk(set())

    def _walk(self, seen: set[str]) -> Iterator["Folder"]:
        if self.real in seen:
            return
        seen.add(self.real)
        yield self
        for folder in self.folders:
            yield from folder._walk(seen)

    def count_others(self) -> Counter[str]:
        """Count the files in it and below that are no images, by ending."""
        return sum((folder.others for folder in self.walk()), Counter())

    def list_images(self, root: "Folder") -> list[tuple[str, pathlib.Path]]:
        """Return names and paths of the images in it and below, in order of the names.

        A name is the path below `root`, in composed form.
        """
        found = []
        for folder in self.walk():
            below = folder.path.relative_to(root.path).as_posix()
            found += [
                (normalise(f"{below}/{name}"), folder.path / name)
                for name in folder.images
            ]
        return sorted(found, key=lambda image: (image[0].split("/"), image[1].name))


def scan(path: pathlib.Path, above: tuple[str, ...] = ()) -> Folder:
    """Read a folder and all below it.

    Args:
        above: the real paths of the folders that hold it.

    Raises:
        UserError: a folder cannot be read.
    """
    real = os.path.realpath(path)
    images, others, folders, skipped = [], Counter(), [], []
    try:
        entries = sorted(os.scandir(path), key=lambda entry: normalise(entry.name))
    except OSError as error:
        raise UserError(
            f"{path}: the folder cannot be read ({error.strerror}); mend its "
            "permissions or move it away"
        ) from error
    for entry in entries:
        if _is_folder(entry):
            found = path / entry.name
            loops = entry.is_symlink() and os.path.realpath(found) in (*above, real)
            if entry.name.startswith(".") or entry.name in _SYSTEM or loops:
                skipped.append(found)
            else:
                folders.append(scan(found, (*above, real)))
        elif entry.name.startswith("."):
            continue
        elif entry.name.lower().endswith(ENDINGS):
            images.append(entry.name)
        else:
            others[os.path.splitext(entry.name)[1].lower()] += 1
    total = len(images) + sum(folder.count for folder in folders)
    lists = (tuple(images), others, tuple(folders), tuple(skipped))
    return Folder(path, real, *lists, total)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def describe_others(others: Counter[str]) -> str:
    """Write counts by ending: `.txt 10, .csv 2`."""
    return ", ".join(
        f"{show_line(ending) or 'no ending'} {number:,}"
        for ending, number in sorted(others.items(), key=lambda x: (-x[1], x[0]))
    )


def draw(folder: Folder) -> str:
    """Draw a tree of the folders with what is in them, a short one."""
    lines = list(_draw(folder, 0))
    more = [f"  … {len(lines) - _LINES} lines more"] if len(lines) > _LINES else []
    return "\n".join(lines[:_LINES] + more)


def _draw(folder: Folder, depth: int) -> Iterator[str]:
    indent = "  " * (depth + 1)
    here, below = len(folder.images), folder.count - len(folder.images)
    parts = [count(here, "image")] if here or not below else []
    parts += (
        [f"{count(below, 'image')} in {count(len(folder.full), 'folder')}"]
        if below
        else []
    )
    parts += [describe_others(folder.others)] if folder.others else []
    yield f"{indent}{show_line(folder.name or str(folder.path))}/  {'; '.join(parts)}"
    if depth == len(_SHOWN):
        return
    for child in folder.folders[: _SHOWN[depth]]:
        yield from _draw(child, depth + 1)
    more = len(folder.folders) - _SHOWN[depth]
    if more > 0:
        yield f"{indent}  … {count(more, 'folder')} more"
