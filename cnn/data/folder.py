"""Images in class folders, and images listed in a CSV file.

`folder:PATH` has class folders under train/ and test/ or val/, or class folders
alone, of which about a fifth becomes the test set: which files depends on their names
and `--split_seed` (`choose.split_by_name`). A val/ beside test/ is the validation set;
without test/ it is the test set. Classes are the sorted names of the folders. Hidden
files and files of other endings are ignored; folders inside class folders are searched.
"""

import csv
import os
import pathlib
import posixpath
import unicodedata

import numpy as np

from cnn.data import files, images
from cnn.data.options import DataOptions
from cnn.errors import UserError, suggest

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_PARTS = {"train": "train", "val": "validation", "test": "test"}


def load_folder(rest: str, options: DataOptions) -> images.Dataset:
    """Load the class folders of the directory `rest`.

    Raises:
        UserError: it is no such directory, a class folder is empty, the parts
            differ in classes, or a file is bad.
    """
    name, root = f"folder:{rest}", pathlib.Path(rest).expanduser()
    if not root.is_dir():
        raise UserError(f"--dataset={name}: there is no such directory")
    folders = _list_folders(root)
    parts = {folder: part for folder, part in _PARTS.items() if folder in folders}
    if not parts:
        classes = _scan_classes(root)
        if not classes:
            raise UserError(
                f"--dataset={name}: no class folders in it; expected PATH/CLASS/*.jpg "
                "or PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg"
            )
        return files.load_files(_list(name, root, {"": classes}), options)
    _check_parts(name, list(parts.values()), "folders train/ and test/ (or val/)")
    scanned = {part: _scan_classes(root / folder) for folder, part in parts.items()}
    for folder, part in parts.items():
        _check_same_classes(scanned["train"], scanned[part], root, folder)
    ignored = ", ".join(folder for folder in folders if folder not in _PARTS)
    notes = (f"ignored beside {root}/train: {ignored}",) if ignored else ()
    return files.load_files(_list(name, root, scanned, notes), options)


def load_csv(rest: str, options: DataOptions) -> images.Dataset:
    """Load the images that a CSV file lists: `path`, `label` and maybe `split`.

    Paths are relative to the file. Splits are train, val and test, treated as the
    folders are. Labels are names, sorted; whole numbers are sorted by value.

    Raises:
        UserError: a column or value is missing (naming the line), or as `load_folder`.
    """
    name, path = f"csv:{rest}", pathlib.Path(rest).expanduser()
    rows = _read_rows(name, path)
    parts = _read_parts(path, rows)
    if parts is not None:
        _check_parts(name, set(parts), "splits train and test (or val)")
    trained = [
        row["label"] for row in rows if parts is None or _PARTS[row["split"]] == "train"
    ]
    class_names = _sort_labels(set(trained))
    label_of = {label: number for number, label in enumerate(class_names)}
    for line, row in enumerate(rows, start=2):
        if row["label"] not in label_of:
            raise UserError(
                f"{path}, line {line}: label {row['label']!r} is no class of the "
                f"training images{suggest(row['label'], class_names)}"
            )
    listing = files.Listing(
        name=name,
        class_names=class_names,
        paths=[path.parent / row["path"] for row in rows],
        names=_name_rows(path, rows),
        labels=np.array([label_of[row["label"]] for row in rows], dtype=np.int32),
        parts=parts,
    )
    return files.load_files(listing, options)


def load_evaluated(rest: str, options: DataOptions, split: str) -> images.Evaluated:
    """Load the class folders of the directory `rest` to be evaluated.

    They need no train/, and their classes may differ from part to part.

    Args:
        split: of `choose_parts`; class folders alone are not divided.

    Raises:
        UserError: it is no such directory, there is no such part, or a file is bad.
    """
    name, root = f"folder:{rest}", pathlib.Path(rest).expanduser()
    if not root.is_dir():
        raise UserError(f"--dataset={name}: there is no such directory")
    folders = {
        folder: part for folder, part in _PARTS.items() if _list_folders(root / folder)
    }
    parts = {part: folder for folder, part in folders.items()} or {"": ""}
    chosen = images.choose_parts(name, parts, split)
    scanned = {part: _scan_some_classes(root / parts[part]) for part in chosen}
    if not any(scanned.values()):
        raise UserError(
            f"--dataset={name}: no labelled image in it; expected PATH/CLASS/*.jpg or "
            "PATH/test/CLASS/*.jpg"
        )
    others = set(_list_folders(root)) - set(_PARTS) if folders else ()
    notes = (f"ignored in {root}: {', '.join(sorted(others))}",) if others else ()
    listing = _list(name, root, scanned, notes)
    return _load_chosen(listing, options, len(chosen) == len(parts))


def load_evaluated_csv(rest: str, options: DataOptions, split: str) -> images.Evaluated:
    """Load the images that a CSV file lists to be evaluated; none need be of train.

    Args:
        split: of `choose_parts`; a file without that column is not divided.

    Raises:
        UserError: as `load_csv`, or there is no such part.
    """
    name, path = f"csv:{rest}", pathlib.Path(rest).expanduser()
    rows = _read_rows(name, path)
    parts = _read_parts(path, rows)
    known = [""] if parts is None else sorted(set(parts.tolist()))
    chosen = images.choose_parts(name, known, split)
    if parts is not None:
        kept = np.isin(parts, chosen)
        rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
    class_names = _sort_labels({row["label"] for row in rows})
    label_of = {label: number for number, label in enumerate(class_names)}
    listing = files.Listing(
        name=name,
        class_names=class_names,
        paths=[path.parent / row["path"] for row in rows],
        labels=np.array([label_of[row["label"]] for row in rows], dtype=np.int32),
        names=_name_rows(path, rows),
        parts=None,
    )
    return _load_chosen(listing, options, len(chosen) == len(known))


def _load_chosen(
    listing: files.Listing, options: DataOptions, is_whole: bool
) -> images.Evaluated:
    listing, examples, excluded = files.read_files(listing, options)
    return images.Evaluated(
        name=listing.name,
        class_names=listing.class_names,
        images=examples,
        notes=listing.notes,
        excluded=tuple(name for name, _ in excluded),
        is_whole=is_whole,
    )


def _list_folders(root: pathlib.Path) -> list[str]:
    if not root.is_dir():
        return []
    names = (
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    return sorted(names, key=_normalise)


def _normalise(name: str) -> str:
    """Return a name as every file system has it: some take é apart into e and ´."""
    return unicodedata.normalize("NFC", name)


def _scan_classes(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Map each class folder to its images, in order of their paths."""
    classes = {}
    for name in _list_folders(root):
        classes[name] = _scan_class(root / name)
        if not classes[name]:
            raise UserError(
                f"{root / name}: the class folder holds no image "
                f"({', '.join(ENDINGS)}); fill it or delete it"
            )
    return classes


def _scan_some_classes(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Map each class folder that holds an image to its images, in their order."""
    found = {name: _scan_class(root / name) for name in _list_folders(root)}
    return {name: paths for name, paths in found.items() if paths}


def _scan_class(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the images of a class folder, in order of their paths."""
    found = _scan_images(folder, set())
    return sorted(found, key=lambda path: [*map(_normalise, path.parts)])


def _scan_images(folder: pathlib.Path, seen: set[str]) -> list[pathlib.Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return []
    seen.add(real)
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            found += _scan_images(pathlib.Path(entry.path), seen)
        elif entry.name.lower().endswith(ENDINGS):
            found.append(pathlib.Path(entry.path))
    return found


def _check_parts(name: str, parts: list[str] | set[str], expected: str) -> None:
    if "train" not in parts or len(set(parts)) < 2:
        raise UserError(
            f"--dataset={name} has only {', '.join(sorted(set(parts)))}; it needs "
            f"{expected}"
        )


def _check_same_classes(
    train: dict[str, list[pathlib.Path]],
    part: dict[str, list[pathlib.Path]],
    root: pathlib.Path,
    folder: str,
) -> None:
    more, fewer = sorted(part.keys() - train), sorted(train.keys() - part)
    if more or fewer:
        problem = f"lacks {', '.join(fewer)}" if fewer else f"has {', '.join(more)}"
        raise UserError(
            f"{root / folder} {problem}, unlike {root / 'train'}; both must have "
            "the same class folders"
        )


def _list(
    name: str,
    root: pathlib.Path,
    parts: dict[str, dict[str, list[pathlib.Path]]],
    notes: tuple[str, ...] = (),
) -> files.Listing:
    """List the images of all parts; the part "" will be split."""
    folders = sorted({x for found in parts.values() for x in found}, key=_normalise)
    paths, labels, part_of = [], [], []
    for part, classes in parts.items():
        for label, folder in enumerate(folders):
            found = classes.get(folder, [])
            paths += found
            labels += [label] * len(found)
            part_of += [part] * len(found)
    names = [_normalise(path.relative_to(root).as_posix()) for path in paths]
    return files.Listing(
        name=name,
        class_names=tuple(map(_normalise, folders)),
        paths=paths,
        names=np.array(names, object),
        labels=np.array(labels, dtype=np.int32),
        parts=None if "" in parts else np.array(part_of),
        notes=notes,
    )


def _read_rows(name: str, path: pathlib.Path) -> list[dict[str, str]]:
    """Return the stripped cells of every line, checked for the needed columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
    except OSError as error:
        raise UserError(f"--dataset={name}: {error.strerror}; give a file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {error}") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    if "path" not in header or "label" not in header:
        raise UserError(
            f"{path}: the first line must name the columns path and label; it is "
            f"{','.join(header)!r}"
        )
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        row = dict(zip(header, [cell.strip() for cell in cells], strict=False))
        empty = [column for column in header if not row.get(column)]
        if any(column in ("path", "label", "split") for column in empty):
            raise UserError(f"{path}, line {number}: {empty[0]} is empty")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} lists no image below its first line")
    return rows


def _read_parts(path: pathlib.Path, rows: list[dict[str, str]]) -> np.ndarray | None:
    """Return each row's part; None without a column `split`."""
    if "split" not in rows[0]:
        return None
    for line, row in enumerate(rows, start=2):
        if row["split"] not in _PARTS:
            raise UserError(
                f"{path}, line {line}: split {row['split']!r} is unknown"
                f"{suggest(row['split'], _PARTS)}"
            )
    return np.array([_PARTS[row["split"]] for row in rows])


def _name_rows(path: pathlib.Path, rows: list[dict[str, str]]) -> np.ndarray:
    """Return the paths of rows, those below the table relative to it: object array."""
    root = path.parent.absolute()

    def name(text: str) -> str:
        found = pathlib.Path(text)
        below = found.is_absolute() and found.is_relative_to(root)
        return posixpath.normpath(found.relative_to(root) if below else text)

    return np.array([name(row["path"]) for row in rows], object)


def _sort_labels(labels: set[str]) -> tuple[str, ...]:
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))
