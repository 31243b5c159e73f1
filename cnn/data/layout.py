"""How a tree of folders is laid out: which folders are parts, and which are classes.

A layout is recognised or refused, never guessed: every image lies in one class folder
(directly, or in folders inside it), and class folders lie in the given folder or in
`train`, `val` and `test` folders there (`names.find_part`). A folder that is the only
one with images and holds no image itself is entered, around everything and within
parts.
"""

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Callable

from cnn.data import names, tree
from cnn.data.tree import Folder
from cnn.errors import UserError
from cnn.text import show_line

EXPECTED = (
    "expected PATH/CLASS/*.jpg, or PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg "
    "(or val/)"
)
_LEAVE_OUT = "or put a dot before its name (.NAME) to leave it out"
PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Layout:
    """A tree of folders and what its folders mean.

    Attributes:
        name: the value of `--dataset`.
        given: the folder that was named.
        root: what was entered of it, or itself.
        parts: the folder that holds the class folders, by part, in the order of
            `PARTS`; `""` where there are no parts.
        notes: lines to print.
    """

    name: str
    given: Folder
    root: Folder
    parts: dict[str, Folder]
    notes: tuple[str, ...]

    @property
    def class_names(self) -> list[str]:
        """The classes to learn, in order: of the training part, if there are parts."""
        folder = self.parts.get("train") or self.parts.get("")
        return [child.name for child in folder.full] if folder else []

    def refuse(self, problem: str, remedy: str = EXPECTED) -> UserError:
        """Return the error that shows what was found."""
        return _refuse(self.name, self.given, problem, remedy)

    def write(self, folder: Folder) -> str:
        """Write the path of a folder below the given one."""
        return _write(self.given, folder)

    def describe(self) -> dict:
        """Return what was entered and left out, as JSON."""
        entered = self.root.path.relative_to(self.given.path).as_posix()
        return {
            "entered": "" if entered == "." else entered,
            "part_folders": {
                part: folder.path.relative_to(self.root.path).as_posix()
                for part, folder in self.parts.items()
                if part
            },
            "left_out": dict(self.given.count_others()),
            "folders_left_out": [
                path.relative_to(self.given.path).as_posix()
                for path in self._list_skipped()
            ],
        }

    def list_notes(self) -> tuple[str, ...]:
        """Write a line each for what was entered and left out."""
        lines, others = list(self.notes), self.given.count_others()
        if others:
            lines.append(
                f"left out {names.count(others.total(), 'file')} by their ending: "
                f"{tree.describe_others(others)}"
            )
        if skipped := self._list_skipped():
            shown = names.show([path.name for path in skipped])
            lines.append(
                f"left out {names.count(len(skipped), 'folder')} unseen: {shown}"
            )
        return tuple(lines)

    def _list_skipped(self) -> list[pathlib.Path]:
        return [path for folder in self.given.walk() for path in folder.skipped]


def recognise(name: str, path: pathlib.Path) -> Layout:
    """Recognise the layout of a folder.

    Args:
        name: the value of `--dataset`.

    Raises:
        UserError: there is no such folder, it holds no image, or its layout can be
            understood in more ways than one, or in none; it shows the tree.
    """
    if not path.is_dir():
        raise UserError(f"--dataset={name}: there is no such directory")
    given = tree.scan(path)
    if not given.count:
        endings = ", ".join(tree.ENDINGS)
        raise _refuse(name, given, f"no image ({endings}) in it", EXPECTED)
    root = _enter(name, given, given, lambda child: not names.find_part(child.name))
    layout = Layout(name, given, root, {"": root}, ())
    if root is not given:
        layout = _note(layout, f"entered {layout.write(root)}: every image is there")
    named = [child for child in root.full if names.find_part(child.name)]
    others = [child for child in root.full if child not in named]
    if len(named) == 1 and not named[0].full and len(others) > 1:
        text = f"{layout.write(named[0])} is a class: images lie in it, as beside it"
        return _check_classes(_note(layout, text), root)
    if named:
        return _find_parts(layout, named, others)
    return _check_classes(layout, root)


def _find_parts(layout: Layout, named: list[Folder], others: list[Folder]) -> Layout:
    """Return the layout with its parts; `others` lie beside them and hold images."""
    root, found = layout.root, {}
    for child in named:
        found.setdefault(names.find_part(child.name), []).append(child)
    for part, folders in found.items():
        if len(folders) > 1:
            both = " and ".join(layout.write(folder) for folder in folders)
            raise layout.refuse(
                f"{both} both mean the {part} part", "merge them, or rename one"
            )
    beside = [layout.write(child) for child in others]
    if root.images or beside:
        what = [names.count(len(root.images), "image")] if root.images else []
        raise layout.refuse(
            f"{names.show(beside + what)} beside {layout.write(named[0])}: neither a "
            "part nor within one",
            f"move what is no part into train/, val/ or test/, or away, {_LEAVE_OUT}",
        )
    for child in root.folders:
        if not child.count:
            layout = _note(layout, f"left out {layout.write(child)}: no image in it")
    parts = {}
    for part in PARTS:
        if part in found:
            (folder,) = found[part]
            known = parts["train"].full if "train" in parts else []
            parts[part] = _enter_part(layout, part, folder, [x.name for x in known])
            layout = _check_classes(layout, parts[part])
            if parts[part] is not folder:
                text = f"entered {layout.write(parts[part])} for the {part} part"
                layout = _note(layout, text)
    return dataclasses.replace(layout, parts=parts)


def _enter_part(layout: Layout, part: str, folder: Folder, known: list[str]) -> Folder:
    """Enter the only folders within a part that are no class of the training part."""

    def may_enter(child: Folder) -> bool:
        is_part = names.find_part(child.name) in (None, part)
        return is_part and child.name not in known

    return _enter(layout.name, layout.given, folder, may_enter)


def _enter(
    name: str, given: Folder, folder: Folder, may_enter: Callable[[Folder], bool]
) -> Folder:
    """Enter a folder that alone holds images, as long as only folders lie there."""
    while not folder.images and len(folder.full) == 1:
        (child,) = folder.full
        if child.images or not may_enter(child):
            break
        empty = [x for x in folder.folders if not x.count and not x.count_others()]
        if empty:
            raise _refuse(
                name,
                given,
                f"{_write(given, child)} holds folders of images and "
                f"{_write(given, empty[0])} beside it nothing: both may be classes",
                f"fill or delete the empty folders; {EXPECTED}",
            )
        folder = child
    return folder


def _check_classes(layout: Layout, folder: Folder) -> Layout:
    """Check that the folders in a folder are classes; note folders inside them."""
    where, classes = layout.write(folder), folder.full
    if folder.images:
        raise layout.refuse(
            f"{where}: {names.count(len(folder.images), 'image')} in no class folder",
            f"move them into class folders, or away; {EXPECTED}",
        )
    counts = Counter(child.name for child in classes)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise layout.refuse(
            f"two folders in {where} are both called {names.show(twice)}",
            "merge them, or rename one",
        )
    nested = [child for child in classes if child.full]
    _check_not_parts(layout, classes)
    inside = sum(1 for child in nested for _ in child.walk()) - len(nested)
    if inside:
        text = f"{names.count(inside, 'folder')} inside class folders count as theirs"
        layout = _note(layout, f"{where}: {text}")
    return layout


def _check_not_parts(layout: Layout, classes: list[Folder]) -> None:
    """Refuse parts under other names, which classes of classes would be."""
    nested = [child for child in classes if not child.images]
    remedy = f"name the parts train/, val/ and test/; {EXPECTED}"
    for child in nested:
        if names.resembles_part(child.name):
            raise layout.refuse(
                f"{layout.write(child)} would be a class, and looks like a part", remedy
            )
        inside = {names.find_part(x.name) for x in child.full} - {None}
        if len(inside) > 1:
            raise layout.refuse(
                f"{layout.write(child)} would be a class, and holds parts "
                f"({names.show(sorted(inside))})",
                f"parts hold classes, and not the other way round; {EXPECTED}",
            )
    if len(nested) < len(classes) or len(classes) < 2:
        return
    # Few folders of the same many folders are parts, many of the same few are classes.
    common = set.intersection(*({x.name for x in child.full} for child in nested))
    if len(common) > len(classes):
        shown = names.show([child.name for child in classes])
        raise layout.refuse(
            f"{shown} would be the classes, and look like parts: all hold "
            f"{names.show(sorted(common))}",
            f"{remedy}. To have {shown} as classes, move the images out of the folders "
            "inside, or list them in a table (--dataset=csv:FILE)",
        )


def _note(layout: Layout, line: str) -> Layout:
    return dataclasses.replace(layout, notes=(*layout.notes, line))


def _write(given: Folder, folder: Folder) -> str:
    relative = folder.path.relative_to(given.path.parent).as_posix()
    return f"{show_line(relative)}/"


def _refuse(name: str, given: Folder, problem: str, remedy: str) -> UserError:
    return UserError(f"--dataset={name}: {problem}\n{tree.draw(given)}\n{remedy}")
