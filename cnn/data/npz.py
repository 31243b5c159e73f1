"""NumPy archives: `x_train, y_train, x_test, y_test` and perhaps `x_val, y_val`.

Images are uint8 [N, H, W] or [N, H, W, C] with 1 or 3 channels, or floats in [0, 1],
which become `round(255 x)`, hence exactly themselves when they once were uint8
divided by 255. Labels are whole numbers from 0 on; the largest of y_train says how
many classes there are. Or they are matrices [N, K] of 0 and 1, K at least 2, whose
columns are the classes, any of which an image may have; `class_names` [K] names them.
Nothing is ever unpickled. An array is as large as its part of the file, which is read
to the end, where zip's checksum is verified.
"""

import math
import pathlib
import zipfile
from typing import BinaryIO

import numpy as np

from cnn.data import decode, images
from cnn.data import labels as labelled
from cnn.data.names import check_class_names, normalise, show
from cnn.data.options import DataOptions
from cnn.data.stamps import stamp_arrays
from cnn.errors import UserError
from cnn.runtime import machine

_CHUNK = 1024
_PARTS = {"train": "train", "val": "validation", "test": "test"}
# Versions of the header of an array; a third is of fields with names, no numbers.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load(rest: str, options: DataOptions) -> images.Dataset:
    """Load the archive at the path `rest`.

    Raises:
        UserError: the file is missing or damaged, or an array is missing or not of
            the form above; the message names the file and the array.
    """
    path = pathlib.Path(rest).expanduser()
    with _open_file(f"npz:{rest}", path) as file:
        archive = _open(file, path)
        needed = ["x_train", "y_train", "x_test", "y_test"]
        if "x_val" in archive.files or "y_val" in archive.files:
            needed += ["x_val", "y_val"]
        _check_names(path, archive.files, needed)
        splits = {
            part: _read_split(archive, path, part, options)
            for part in ("train", "val", "test")
            if part != "val" or "x_val" in archive.files
        }
        _check_kinds(path, {x: part.labels for x, part in splits.items()}, options)
        labels = splits["train"].labels
        class_names = _name_classes(archive, path, labels)
    _check_shapes(path, splits)
    unread = _list_unread(path, archive.files, needed, labels)
    return images.Dataset(
        name=f"npz:{rest}",
        class_names=class_names,
        train=splits["train"],
        validation=splits.get("val"),
        test=splits["test"],
        notes=(*unread, *_list_missing(f"{path}: y_train", labels)),
    )


def has_several_labels(rest: str, options: DataOptions) -> bool:
    """Return whether the training labels of the file are a matrix."""
    del options
    path = pathlib.Path(rest).expanduser()
    with _open_file(f"npz:{rest}", path) as file:
        archive = _open(file, path)
        _check_names(path, archive.files, ["y_train"])
        labels = _read(archive, path, "y_train")
    return labelled.are_several(_to_labels(labels, f"{path}: y_train"))


def load_evaluated(rest: str, options: DataOptions, split: str) -> images.Evaluated:
    """Load arrays of the archive at the path `rest` to be evaluated.

    It needs no x_train; classes are the labels up to the largest.

    Args:
        split: of `choose_parts`.

    Raises:
        UserError: as `load`, or there is no such part.
    """
    name, path = f"npz:{rest}", pathlib.Path(rest).expanduser()
    with _open_file(name, path) as file:
        archive = _open(file, path)
        parts = {
            part: short
            for short, part in _PARTS.items()
            if {f"x_{short}", f"y_{short}"} & set(archive.files)
        }
        if not parts:
            _check_names(path, archive.files, ["x_test", "y_test"])
        chosen = images.choose_parts(name, parts, split)
        shorts = [parts[part] for part in chosen]
        needed = [f"{kind}_{short}" for short in shorts for kind in "xy"]
        _check_names(path, archive.files, needed)
        found = {n: _read_split(archive, path, n, options) for n in shorts}
        _check_kinds(path, {n: part.labels for n, part in found.items()})
        _check_shapes(path, found)
        examples = images.concatenate(list(found.values()))
        class_names = _name_classes(archive, path, examples.labels)
    return images.Evaluated(
        name=name,
        class_names=class_names,
        images=examples,
        notes=_list_missing(str(path), examples.labels),
        is_whole=len(chosen) == len(parts),
    )


def _open_file(name: str, path: pathlib.Path) -> BinaryIO:
    if not path.is_file():
        raise UserError(
            f"--dataset={name}: there is no such file; give the path of an .npz "
            "with x_train, y_train, x_test, y_test"
        )
    return path.open("rb")


def _check_shapes(path: pathlib.Path, splits: dict[str, images.Images]) -> None:
    first, *others = splits
    for part in others:
        if splits[part].shape != splits[first].shape:
            raise UserError(
                f"{path}: images are {splits[first].shape} in x_{first} but "
                f"{splits[part].shape} in x_{part}; set --image_size and --channels to "
                "bring them to one shape"
            )


def _open(file: BinaryIO, path: pathlib.Path) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(file, allow_pickle=False)
    except Exception as error:  # zipfile and numpy raise many kinds for damaged files
        raise UserError(
            f"{path} is no .npz archive or is damaged: {_describe(error)}"
        ) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(
            f"{path} holds a single array; save x_train, y_train, x_test, y_test "
            "with numpy.savez"
        )
    return archive


def _list_missing(what: str, labels: np.ndarray) -> tuple[str, ...]:
    """Say which classes up to the largest label have no image."""
    several = labelled.are_several(labels)
    last = labels.shape[1] if several else labels.max()
    missing = np.setdiff1d(np.arange(last), labelled.list_occurring(labels))
    if not len(missing):
        return ()
    classes = "class" if len(missing) == 1 else "classes"
    if several:
        columns = show(list(map(str, missing)))
        return (f"{what} has no image of the {classes} in column {columns}",)
    return (
        f"{what} has no image of {classes} {show(list(map(str, missing)))}: its labels "
        f"are {labels.min()} to {labels.max()}, and labels count from 0",
    )


def _list_unread(
    path: pathlib.Path, names: list[str], needed: list[str], labels: np.ndarray
) -> tuple[str, ...]:
    """Say which arrays are not read: a validation set may have another name."""
    own = {"class_names"} if labelled.are_several(labels) else set()
    unread = [name for name in names if name not in own.union(needed)]
    if not unread:
        return ()
    return (
        f"warning   {path}: {show(unread)} not read; what is read are x_ and y_ of "
        "train, val and test, and class_names of labels [N, K]",
    )


def _check_names(path: pathlib.Path, names: list[str], needed: list[str]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; it holds {show(names) or 'none'}"
        )


def _read_split(
    archive: np.lib.npyio.NpzFile,
    path: pathlib.Path,
    part: str,
    options: DataOptions,
) -> images.Images:
    stored = _read(archive, path, f"x_{part}")
    pixels = _to_uint8(stored, f"{path}: x_{part}")
    labels = _to_labels(_read(archive, path, f"y_{part}"), f"{path}: y_{part}")
    if len(pixels) != len(labels):
        raise UserError(
            f"{path}: x_{part} holds {len(pixels)} images but y_{part} "
            f"{len(labels)} labels"
        )
    if len(labels) == 0:
        raise UserError(f"{path}: x_{part} is empty; it needs at least one image")
    names = images.number_examples(part, len(labels))
    return decode.fit_images(pixels, labels, options, names, stamp_arrays(stored))


def _read(archive: np.lib.npyio.NpzFile, path: pathlib.Path, name: str) -> np.ndarray:
    what = f"{path}: {name}"
    try:
        _check_header(archive.zip, what, name)
        return archive[name]
    except UserError:
        raise
    except Exception as error:  # zipfile and numpy raise many kinds for damaged files
        raise UserError(f"{what} is damaged: {_describe(error)}") from error


def _check_header(archive: zipfile.ZipFile, what: str, name: str) -> None:
    """Refuse an array that is not what it says, before memory is taken for it.

    Raises:
        Exception: of many kinds, where it is damaged.
    """
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = _HEADERS[version](file)
        held = info.file_size - file.tell()
    if dtype.hasobject:
        raise UserError(
            f"{what} holds Python objects, which are never unpickled; save it as an "
            "array of numbers"
        )
    size = math.prod(shape) * dtype.itemsize
    if size != held or min(shape, default=0) < 0:
        raise UserError(
            f"{what} is damaged: an array of {dtype} and shape {shape} has {size:,} "
            f"bytes, and the file {held:,}"
        )
    memory = machine.get_memory()
    if size > memory:
        raise UserError(
            f"{what} takes {size / 2**30:,.1f} GiB once it is unpacked, and the "
            f"machine has {memory / 2**30:,.1f} GiB; give fewer images, or files in "
            "--dataset=folder:PATH"
        )


def _describe(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_uint8(pixels: np.ndarray, what: str) -> np.ndarray:
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or 0 in pixels.shape[1:]:
        raise UserError(
            f"{what} has shape {pixels.shape}; images are [N, H, W] or [N, H, W, C] "
            "with 1 or 3 channels last"
        )
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise UserError(
            f"{what} is {pixels.dtype}; images are uint8 in 0..255 or floats in [0, 1]"
        )
    result = np.empty(pixels.shape, dtype=np.uint8)
    for start in range(0, len(pixels), _CHUNK):
        part = pixels[start : start + _CHUNK]
        if not np.all((part >= 0) & (part <= 1)):
            wrong = float(part[~((part >= 0) & (part <= 1))][0])
            raise UserError(
                f"{what} holds {wrong}; floats must lie in [0, 1] (or save uint8 in "
                "0..255)"
            )
        result[start : start + _CHUNK] = np.rint(part.astype(np.float64) * 255)
    return result


def _to_matrix(labels: np.ndarray, what: str) -> np.ndarray:
    wrong = np.argwhere((labels != 0) & (labels != 1))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise UserError(
            f"{what}[{row}, {column}] is {labels[row, column]}; a matrix of labels "
            "holds 1 where a class is a label of the image, else 0"
        )
    return labels.astype(np.uint8)


def _check_kinds(
    path: pathlib.Path, parts: dict[str, np.ndarray], options: DataOptions | None = None
) -> None:
    """Refuse labels of different forms, and rows that may mean two things.

    Args:
        parts: labels, by part.
        options: of training, for which it matters what rows of a single 1 mean.
    """
    shapes = {part: labels.shape[1:] for part, labels in parts.items()}
    first, *others = shapes
    for part in others:
        if shapes[part] != shapes[first]:
            forms = (["N", *map(str, shapes[x])] for x in (first, part))
            there, here = (f"[{', '.join(form)}]" for form in forms)
            raise UserError(
                f"{path}: y_{first} is {there} but y_{part} {here}; give both one form"
            )
    if options is None or options.task != "auto" or not shapes[first]:
        return
    if all((labels.sum(axis=1) == 1).all() for labels in parts.values()):
        raise UserError(
            f"{path}: each row of y_{first} has a single 1; say whether an image has "
            "one class by --task=multiclass, or may have several by --task=multilabel"
        )


def _name_classes(
    archive: np.lib.npyio.NpzFile, path: pathlib.Path, labels: np.ndarray
) -> tuple[str, ...]:
    """Return the names of the classes: numbers, or those of a matrix's columns."""
    if not labelled.are_several(labels):
        return tuple(map(str, range(1 + int(labels.max()))))
    if "class_names" not in archive.files:
        return tuple(map(str, range(labels.shape[1])))
    names = _read(archive, path, "class_names")
    is_fit = names.dtype.kind == "U" and names.shape == labels.shape[1:]
    if not is_fit or len(set(names.tolist())) < len(names):
        raise UserError(
            f"{path}: class_names is {names.dtype} of shape {names.shape}; it names "
            f"the {labels.shape[1]} columns of the labels, each by another text"
        )
    check_class_names(f"{path}: class_names", names.tolist())
    return tuple(normalise(name) for name in names.tolist())


def _to_labels(labels: np.ndarray, what: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_whole = np.issubdtype(labels.dtype, np.integer)
    if labels.ndim == 2 and (is_whole or labels.dtype == bool):
        return _to_matrix(labels, what)
    if labels.ndim != 1 or not is_whole:
        raise UserError(
            f"{what} is {labels.dtype} of shape {labels.shape}; labels are whole "
            "numbers [N], or of several an image 0 and 1 [N, K]"
        )
    (wrong,) = np.nonzero((labels < 0) | (labels > np.iinfo(np.int32).max))
    if len(wrong):
        raise UserError(
            f"{what}[{wrong[0]}] is {labels[wrong[0]]}; labels count from 0"
        )
    return labels.astype(np.int32)
