"""Where images come from: `load_dataset` turns `DataOptions` into a `Dataset`.

The file of each source returns its parts; here labels are checked, a validation set
is carved out, a subset taken, pixels permuted. All of it depends on `--split_seed`,
nothing on `--seed`.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.data import (
    choose,
    digits,
    dropped,
    files,
    folder,
    npz,
    published,
    storage_cache,
    table,
    tfds,
)
from cnn.data import labels as labelled
from cnn.data.images import Dataset, Evaluated, Images, get_part
from cnn.data.names import show
from cnn.data.options import SIZES, DataOptions
from cnn.errors import UserError, suggest
from cnn.option import expand_path, read_group
from cnn.text import show_line

__all__ = ["DataOptions", "Dataset", "Evaluated", "Images"]
__all__ += ["find_own_classes", "forget_dataset", "is_same_source", "load_dataset"]
__all__ += ["check_options", "has_several_labels", "list_dataset", "load_evaluated"]
__all__ += ["use_evaluation_sizes"]

PARTS = ("train", "validation", "test")
LOADERS = {
    "digits": digits.load,
    "tfds": tfds.load,
    "folder": folder.load_folder,
    "csv": table.load,
    "npz": npz.load,
}
# Sources that lie in memory as they are and are brought to a size at once.
_ARRAYS = ("digits", "npz")

# The same for evaluation, which needs no training set: what --split names is loaded.
EVALUATED = {
    "digits": digits.load_evaluated,
    "tfds": tfds.load_evaluated,
    "folder": folder.load_evaluated,
    "csv": table.load_evaluated,
    "npz": npz.load_evaluated,
}
# From what is behind the kind to whether its images may have several labels.
_MAY_HAVE_SEVERAL = {
    "tfds": tfds.has_several_labels,
    "csv": table.has_several_labels,
    "npz": npz.has_several_labels,
}
# What a run says of its own dataset and means nothing of another one.
_OF_ONE_DATASET = ("train_split", "validation_split", "test_split", "num_classes")
_OF_ONE_DATASET += ("classes", "train_examples", "validation_fraction", "task")
_OF_ONE_DATASET += ("drop_examples",)


def load_dataset(
    options: DataOptions, preview: bool = False, read: Sequence[str] = PARTS
) -> Dataset:
    """Load the images that the options name.

    Args:
        preview: whether what is described of them suffices: a well-known dataset that
            is not on this machine is taken as it was published, and arrays are checked
            but their pixels are left black.
        read: the parts that will be read, which `--storage_cache` takes room for.

    Returns:
        Parts with labels for K class names: one each, or any number of them, as
        `--task` says. They are of one shape unless evaluation has a size of its own.
        With `--storage_size` that shape is the stored one; the model sees
        `--image_size`.

    Raises:
        UserError: options contradict each other, or data are missing or wrong; it
            says which flag or file to change.
    """
    kind, rest = _read_options(options)
    dataset = _name_classes(_load(kind, rest, options, preview), options.num_classes)
    named = dropped.read(options.drop_examples, dataset)
    dataset = dropped.record(_take_task(dataset, options.task), named)
    parts = {name: getattr(dataset, name) for name in PARTS}
    parts = {name: part for name, part in parts.items() if part is not None}
    for name, part in parts.items():
        if not len(part):
            raise UserError(f"{dataset.name}: the {name} set is empty")
        _check_labels(dataset.name, name, part.labels, len(dataset.class_names))
    class_names, parts = choose.select_classes(dataset.class_names, parts, options)
    _check_several_classes(dataset.name, class_names, parts["train"].labels)
    notes = [*dataset.notes, *_describe_task(parts["train"].labels)]
    by_name = dataset.is_named
    parts.update(choose.carve_validation(parts, options, notes, by_name))
    parts["train"] = choose.take_examples(parts["train"], options, by_name)
    if named:
        train = dropped.leave_out(parts["train"], named, options.drop_examples, notes)
        _check_several_classes(dataset.name, class_names, train.labels)
        parts["train"] = train
    evaluated = options.for_evaluation()
    for name in ("validation", "test") if evaluated != options else ():
        if parts.get(name) is not None:
            parts[name] = parts[name].refit(evaluated)
    kept = {name: part for name, part in parts.items() if name in read}
    parts |= _keep_decoded(kept, options, preview)
    if options.shuffle_pixels:
        parts = {
            name: choose.shuffle_pixels(part, options.split_seed)
            for name, part in parts.items()
        }
    return dataclasses.replace(
        dataset, class_names=class_names, notes=tuple(notes), **parts
    )


def _keep_decoded(
    parts: Mapping[str, Images], options: DataOptions, preview: bool
) -> dict[str, Images]:
    """Return parts that keep what they decode, where `--storage_cache` says so."""
    if not options.storage_cache:
        return dict(parts)
    directory = Path(expand_path("storage_cache", options.storage_cache))
    return storage_cache.keep(parts, directory, preview)


def list_dataset(options: DataOptions) -> Dataset:
    """Load a dataset to be looked at before it is known to be fit for training.

    Files are listed and not opened, so that they may be bad or differ in size: their
    images have `contents`, no stamps, and no shape.

    Raises:
        UserError: as `load_dataset`.
    """
    options = dataclasses.replace(
        options.for_evaluation(),
        train_examples=0,
        drop_examples="",
        shuffle_pixels=False,
    )
    if options.dataset.partition(":")[0] in _ARRAYS:
        return load_dataset(options)
    size = options.image_size or 1  # whichever: no image is brought to it
    unopened = {"bad_images": files.UNOPENED, "image_size": size}
    return load_dataset(dataclasses.replace(options, **unopened))


def _load(kind: str, rest: str, options: DataOptions, preview: bool) -> Dataset:
    """Load what a source has, before anything of it is chosen."""
    if preview and kind == "tfds":
        return published.load(rest, options)
    if not preview or kind not in _ARRAYS:
        with _limit_memory(options):
            return LOADERS[kind](rest, options)
    sizes = {"image_size": 0, "storage_size": 0, "resize_size": 0, "channels": 0}
    sizes |= {"image_size_schedule": (), "eval_image_size": 0, "eval_resize_size": 0}
    with _limit_memory(options):
        dataset = LOADERS[kind](rest, dataclasses.replace(options, **sizes))
    size = options.stored_size

    def bring(part: Images | None) -> Images | None:
        if part is None:
            return None
        height, width, channels = part.shape
        shape = (size or height, size or width, options.channels or channels)
        return part.blacken(shape)

    parts = {x: bring(getattr(dataset, x)) for x in ("train", "validation", "test")}
    return dataclasses.replace(dataset, **parts)


def load_evaluated(
    options: DataOptions, split: str, own_classes: tuple[int, ...] | None
) -> Evaluated:
    """Load images to be evaluated.

    Args:
        split: `train`, `validation` or `test`, as training divides the dataset, or
            `all`: every image once, of `--classes` where they are given.
        own_classes: the `--classes` of the run if it was trained on this dataset, which
            is divided as then; None for another one, of which no part has to be there
            but the one that is evaluated: not divided, it is a test set.

    Raises:
        UserError: as `load_dataset`, or there is no such part.
    """
    if own_classes is not None and split != "all":
        # Fewer classes would be divided otherwise.
        classes = options.classes if own_classes else ()
        named = options.drop_examples if split == "train" else ""
        own = dataclasses.replace(options, classes=classes, drop_examples=named)
        dataset = load_dataset(own, read=(split,))
        found = get_part(dataset, split)
        return found if classes else _select(found, split, options)
    kind, rest = _read_options(options)
    with _limit_memory(options):
        found = EVALUATED[kind](rest, options, split)
    found = _take_task_of_part(found, split, options.task)
    _check_labels(found.name, split, found.images.labels, len(found.class_names))
    images = _keep_decoded({split: found.images}, options, preview=False)[split]
    found = dataclasses.replace(found, images=images)
    if found.is_whole and split == "test":
        note = f"{found.name}: all of its images are its test set"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    found = _select(found, split, options)
    if not options.shuffle_pixels:
        return found
    images = choose.shuffle_pixels(found.images, options.split_seed)
    return dataclasses.replace(found, images=images)


@contextlib.contextmanager
def _limit_memory(options: DataOptions) -> Iterator[None]:
    """Say what needs more memory than there is."""
    try:
        yield
    except MemoryError as error:
        raise UserError(
            f"--dataset={options.dataset} does not fit in memory ({error}); give a "
            "smaller --image_size, or --resident=never, which leaves images in files"
        ) from error


def _select(found: Evaluated, split: str, options: DataOptions) -> Evaluated:
    """Keep the images of `--classes`."""
    class_names, parts = choose.select_classes(
        found.class_names, {split: found.images}, options
    )
    return dataclasses.replace(found, class_names=class_names, images=parts[split])


def has_several_labels(options: DataOptions) -> bool:
    """Return whether images may have several labels; no image is looked at.

    Raises:
        UserError: as `load_dataset`, of what says so.
    """
    kind, rest = _read_options(options)
    if options.task != "auto" or kind not in _MAY_HAVE_SEVERAL:
        return options.task == "multilabel"
    return _MAY_HAVE_SEVERAL[kind](rest, options)


def find_own_classes(
    stored: Mapping[str, Any], options: DataOptions
) -> tuple[int, ...] | None:
    """Return the `own_classes` of `load_evaluated` for a run of the stored options."""
    if not is_same_source(stored["dataset"], options.dataset):
        return None
    return tuple(stored.get("classes", ()))


def use_evaluation_sizes(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's options with plain sizes that are those of its evaluation."""
    options = read_group(DataOptions, stored).for_evaluation()
    return dict(stored) | {name: getattr(options, name) for name in SIZES}


def is_same_source(one: str, other: str) -> bool:
    """Return whether two values of `--dataset` name the same data."""
    (kind, _, path), (kind_of_other, _, path_of_other) = (
        text.partition(":") for text in (one, other)
    )
    if kind != kind_of_other or kind not in ("folder", "csv", "npz"):
        return one == other
    paths = (os.path.expanduser(text) for text in (path, path_of_other))
    return len({os.path.realpath(text) for text in paths}) == 1


def forget_dataset(stored: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Return a run's options, by flag name, as they apply to a dataset.

    What belongs to the run's own dataset alone, as `--train_examples`, is left out
    for another one.
    """
    if is_same_source(stored.get("dataset", DataOptions.dataset), dataset):
        return dict(stored)
    return {name: x for name, x in stored.items() if name not in _OF_ONE_DATASET}


def _read_options(options: DataOptions) -> tuple[str, str]:
    """Check the options; return the kind of the dataset and what is behind it."""
    check_options(options)
    kind, _, rest = options.dataset.partition(":")
    if kind not in LOADERS:
        raise UserError(
            f"--dataset={options.dataset} is unknown{suggest(kind, LOADERS)}"
        )
    if kind != "digits" and not rest:
        raise UserError(f"--dataset={kind} lacks what to load; write {kind}:…")
    return kind, expand_path("dataset", rest)


def check_options(options: DataOptions) -> None:
    """Refuse sizes and channels that contradict each other.

    Raises:
        UserError: naming the flags.
    """
    size, stored = options.training_size, options.stored_size
    resize, seen = options.resize_size, options.for_evaluation()
    if options.storage_cache and options.resident == "always":
        raise UserError(
            f"--storage_cache={options.storage_cache} is for images that are decoded "
            "when they are read, and --resident=always decodes all at once and keeps "
            "them in memory; give --resident=auto, or --storage_cache= (nothing)"
        )
    if options.channels == 2:
        raise UserError("--channels=2: images have 1 channel (grey) or 3 (colour)")
    mode = options.resize_mode
    if options.storage_size and (mode != "crop" or not 0 < size <= stored):
        raise UserError(
            f"--storage_size={stored} needs --resize_mode=crop and an --image_size "
            f"from 1 to {stored}, which is cut from what is stored; they are {mode} "
            f"and {size}"
        )
    if resize and (mode != "crop" or not 0 < stored <= resize):
        raise UserError(
            f"--resize_size={resize} needs --resize_mode=crop and an --image_size (or "
            f"--storage_size) of at most {resize}; they are {mode} and {stored}"
        )
    if seen.resize_size and (mode != "crop" or seen.image_size > seen.resize_size):
        raise UserError(
            f"images that are evaluated are cut to {seen.image_size} pixels from a "
            f"shorter side of {seen.resize_size}, by --resize_mode={mode}; give "
            f"--eval_resize_size={seen.image_size} or more, with --resize_mode=crop"
        )
    sizes = {size for _, size in options.sizes} | {seen.image_size}
    if options.shuffle_pixels and len(sizes) > 1:
        raise UserError(
            "--shuffle_pixels permutes the pixels of images of one size, and they have "
            f"{', '.join(map(str, sorted(sizes)))}; leave --image_size_schedule and "
            "--eval_image_size out"
        )


def _name_classes(dataset: Dataset, num_classes: int) -> Dataset:
    """Add names up to `--num_classes`, or refuse fewer classes than there are."""
    known = len(dataset.class_names)
    if not num_classes or num_classes == known:
        return dataset
    if num_classes < known:
        for name in ("train", "test"):
            labels = getattr(dataset, name).labels
            _check_labels(dataset.name, name, labels, num_classes)
        raise UserError(
            f"--num_classes={num_classes} is less than the {known} classes of "
            f"{dataset.name}; leave it out, or give {known} or more"
        )
    more = tuple(str(label) for label in range(known, num_classes))
    return dataclasses.replace(dataset, class_names=dataset.class_names + more)


def _take_task(dataset: Dataset, task: str) -> Dataset:
    """Bring labels to the form that `--task` asks for."""
    parts = {}
    for name in ("train", "validation", "test"):
        part, count = getattr(dataset, name), len(dataset.class_names)
        if part is None:
            continue
        labels = _convert_labels(dataset.name, name, part.labels, count, task)
        parts[name] = dataclasses.replace(part, labels=labels)
    if labelled.are_several(parts["train"].labels):
        _check_separable(dataset.name, dataset.class_names)
    return dataclasses.replace(dataset, **parts)


def _take_task_of_part(found: Evaluated, split: str, task: str) -> Evaluated:
    """Do as `_take_task`, to images that are evaluated."""
    count, images = len(found.class_names), found.images
    labels = _convert_labels(found.name, split, images.labels, count, task)
    images = dataclasses.replace(images, labels=labels)
    return dataclasses.replace(found, images=images)


def _convert_labels(
    dataset: str, part: str, labels: np.ndarray, count: int, task: str
) -> np.ndarray:
    """Return labels of a part in the form of a task.

    Args:
        count: of the classes; a matrix gets as many columns.

    Raises:
        UserError: an image has not one label, and one class each is asked for.
    """
    if not labelled.are_several(labels):
        if task != "multilabel":
            return labels
        _check_labels(dataset, part, labels, count)
        return labelled.to_matrix(labels, count)
    if task != "multiclass":
        return labelled.to_matrix(labels, count)
    (wrong,) = np.nonzero(labels.sum(axis=1) != 1)
    if len(wrong):
        raise UserError(
            f"--task=multiclass: {part} example {wrong[0]} of {dataset} has "
            f"{labels[wrong[0]].sum()} labels, and each needs one; leave --task out to "
            "take it as multilabel"
        )
    return labelled.as_stored(labels.argmax(axis=1))


def _check_separable(dataset: str, class_names: tuple[str, ...]) -> None:
    """Refuse names that could not be told from several in one text."""
    for name in class_names:
        if labelled.SEPARATOR in name or not name:
            raise UserError(
                f"{dataset}: the class name {name!r} is empty or has "
                f"{labelled.SEPARATOR}, which separates the labels of an image where "
                "they are written; rename the class"
            )


def _describe_task(labels: np.ndarray) -> list[str]:
    """Write a line of data of which an image may have several labels."""
    if not labelled.are_several(labels):
        return []
    counts = labels.sum(axis=1)
    return [
        f"task      multilabel: a training image has {counts.min()} to {counts.max()} "
        f"labels, {counts.mean():.2f} on average"
    ]


def _check_labels(dataset: str, part: str, labels: np.ndarray, count: int) -> None:
    if labelled.are_several(labels):
        return  # whose columns are the classes
    (wrong,) = np.nonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise UserError(
            f"{dataset}: {part} example {wrong[0]} has label {labels[wrong[0]]}, "
            f"outside 0..{count - 1}; correct the label or set --num_classes"
        )


def _check_several_classes(
    dataset: str, class_names: tuple[str, ...], labels: np.ndarray
) -> None:
    """Refuse to train on images of one class, which any classifier gets right."""
    if not (labels == labels[0]).all():
        return
    if labelled.are_several(labels):
        row = [class_names[k] for k in labelled.to_lists(labels[:1])[0]]
        written = show(row) or labelled.NONE
        raise UserError(
            f"{dataset}: all {len(labels)} training images have the same labels, "
            f"{written}; give images with other ones too"
        )
    name = show_line(class_names[labels[0]])
    raise UserError(
        f"{dataset}: all {len(labels)} training images are of one class, "
        f"{name}; a classifier needs two classes or more"
    )
