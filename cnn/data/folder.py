"""Images in class folders, laid out as `layout` recognises.

Of class folders without parts about a fifth becomes the test set: which files depends
on their names and `--split_seed` (`choose.split_by_name`). A val/ beside test/ is the
validation set; without test/ it is the test set. Classes are the sorted names of the
folders; those of the training part are what is learned.
"""

import dataclasses
import pathlib

import numpy as np

from cnn.data import files, formats, images, layout, taken
from cnn.data.headers import read_headers
from cnn.data.layout import Layout
from cnn.data.names import show
from cnn.data.options import DataOptions
from cnn.errors import suggest


def load_folder(rest: str, options: DataOptions) -> images.Dataset:
    """Load the class folders of the directory `rest`.

    Raises:
        UserError: its layout is not recognised (`layout.recognise`), there is nothing
            to train on or to test on, there are fewer than two classes, a class folder
            to train on is empty, the test part has another class, or a file is bad.
    """
    found = layout.recognise(f"folder:{rest}", pathlib.Path(rest).expanduser())
    _check_parts(found)
    _check_trained(found)
    for part, folder in found.parts.items():
        _check_known(found, part, [child.name for child in folder.full])
    return files.load_files(_list(found, found.class_names), options)


def load_evaluated(rest: str, options: DataOptions, split: str) -> images.Evaluated:
    """Load the class folders of the directory `rest` to be evaluated.

    They need no train/, and their classes may differ from part to part.

    Args:
        split: of `choose_parts`; class folders alone are not divided.

    Raises:
        UserError: its layout is not recognised, there is no such part, or a file is
            bad.
    """
    found = layout.recognise(f"folder:{rest}", pathlib.Path(rest).expanduser())
    chosen = images.choose_parts(found.name, found.parts, split)
    is_whole = len(chosen) == len(found.parts)
    kept = {part: found.parts[part] for part in chosen}
    found = dataclasses.replace(found, parts=kept)
    class_names = {child.name for folder in kept.values() for child in folder.full}
    listing = _list(found, sorted(class_names))
    for folder in kept.values():
        if empty := [child.name for child in folder.folders if not child.count]:
            note = f"no image in {found.write(folder)} of {show(empty)}"
            listing = dataclasses.replace(listing, notes=(*listing.notes, note))
    return files.load_evaluated(listing, options, is_whole)


def check(options: DataOptions, most: int = 5000) -> None:
    """Check a folder that is to be trained on, without decoding it.

    Args:
        most: files up to which each is opened; of more, the layout alone is checked.

    Raises:
        UserError: as `load_folder`.
    """
    rest = options.dataset.partition(":")[2]
    found = layout.recognise(options.dataset, pathlib.Path(rest).expanduser())
    if len(_list(found, found.class_names).paths) > most:
        _check_parts(found)
        _check_trained(found)
        return
    if options.choose_sizes == "files" and not options.training_size:
        options = dataclasses.replace(options, image_size=1)
    load_folder(rest, options)


def measure(options: DataOptions, most: int = 2000) -> list[tuple[int, int]]:
    """Read height and width in pixels of the images of `--dataset=folder:PATH`.

    Args:
        most: files that are looked at, evenly spread; those that cannot be read are
            left to whoever loads them.

    Raises:
        UserError: the layout is not recognised, or no file can be read.
    """
    path = pathlib.Path(options.dataset.partition(":")[2]).expanduser()
    found = layout.recognise(options.dataset, path)
    paths = _list(found, found.class_names).paths
    chosen = paths[:: -(-len(paths) // most)]
    headers, _ = read_headers(chosen, dataclasses.replace(options, bad_images="skip"))
    sizes = [header.size for header in headers if header is not None]
    if not sizes:
        raise found.refuse("no image that can be read in it")
    return sizes


def _check_parts(found: Layout) -> None:
    if "" in found.parts or ("train" in found.parts and len(found.parts) > 1):
        return
    only = " and ".join(found.write(folder) for folder in found.parts.values())
    remedy = "it needs train/ and test/ (or val/) beside each other"
    if list(found.parts) == ["train"]:
        path = found.parts["train"].path
        remedy += f"; --dataset=folder:{path} splits a test set off"
    raise found.refuse(f"it has only {only}", remedy)


def _check_trained(found: Layout) -> None:
    """Refuse what no classifier can be trained on."""
    folder = found.parts.get("train") or found.parts[""]
    if not folder.full:
        raise found.refuse(f"no class folder in {found.write(folder)}")
    if len(folder.full) < 2:
        raise found.refuse(
            f"all images to train on are of one class, {show(found.class_names)}; a "
            "classifier needs two classes or more"
        )
    for child in folder.folders:
        if not child.count:
            raise found.refuse(
                f"{found.write(child)}: the class folder holds no image "
                f"({', '.join(formats.ENDINGS)})",
                "fill it or delete it",
            )


def _check_known(found: Layout, part: str, class_names: list[str]) -> None:
    """Refuse classes of a part that the training part lacks."""
    known = found.class_names
    if unknown := [name for name in class_names if name not in known]:
        raise found.refuse(
            f"the {part} part has {show(unknown)}, which the training part lacks"
            f"{suggest(unknown[0], known) if len(known) <= 100 else ''}",
            "move these images away, or give the training part such a class",
        )


def _list(found: Layout, class_names: list[str]) -> files.Listing:
    """List the images of all parts, class by class; the part "" will be split."""
    listed, labels, parts = [], [], []
    for part, folder in found.parts.items():
        folders = {child.name: child for child in folder.full}
        for label, name in enumerate(class_names):
            here = folders[name].list_images(found.root) if name in folders else []
            listed += here
            labels += [label] * len(here)
            parts += [part] * len(here)
    listing = files.Listing(
        name=found.name,
        class_names=tuple(class_names),
        paths=[path for _, path in listed],
        names=np.array([name for name, _ in listed], object),
        labels=np.array(labels, dtype=np.int32),
        parts=None if "" in found.parts else np.array(parts),
    )
    counts = taken.count_files(class_names, listing.labels, listing.parts)
    return dataclasses.replace(
        listing,
        notes=(*found.list_notes(), *taken.describe_counts(counts)),
        taken={"files": counts} | found.describe(),
    )
