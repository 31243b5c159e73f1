"""Which examples of a loaded dataset are used, and which pixel stands where."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from cnn.data import images, splits
from cnn.errors import UserError

if TYPE_CHECKING:
    from cnn.data import DataOptions


def select_classes(
    class_names: tuple[str, ...],
    parts: dict[str, images.Images],
    options: "DataOptions",
) -> tuple[tuple[str, ...], dict[str, images.Images]]:
    """Keep the examples of `--classes` and number their labels in that order.

    Args:
        class_names: of all classes.
        parts: by name.
        options: `classes` is used.

    Returns:
        The names and the parts that are left.

    Raises:
        UserError: a class is named twice or does not exist, or a part is left empty.
    """
    chosen, known = options.classes, len(class_names)
    if not chosen:
        return class_names, parts
    given = f"--classes={','.join(map(str, chosen))}"
    if len(set(chosen)) < len(chosen) or max(chosen) >= known:
        raise UserError(
            f"{given}: give labels from 0 to {known - 1}, each once; they are of "
            f"{', '.join(class_names[:10])}{', …' if known > 10 else ''}"
        )
    numbers = np.full(known, -1, np.int32)
    numbers[list(chosen)] = np.arange(len(chosen))
    kept = {}
    for name, part in parts.items():
        (positions,) = np.nonzero(numbers[part.labels] >= 0)
        if not len(positions):
            raise UserError(f"{given}: the {name} set has no example of these")
        part = part.take(positions)
        kept[name] = dataclasses.replace(part, labels=numbers[part.labels])
    return tuple(class_names[label] for label in chosen), kept


def carve_validation(
    parts: dict[str, images.Images], options: "DataOptions", notes: list[str]
) -> dict[str, images.Images]:
    """Set a share of the training set aside, class by class, in the order it has.

    Args:
        parts: by name, `train` among them.
        options: `validation_fraction` and `split_seed` are used.
        notes: gets a line when there is a validation set already.

    Returns:
        The parts that are to be replaced.

    Raises:
        UserError: nothing would be left on one side.
    """
    fraction, train = options.validation_fraction, parts["train"]
    if not fraction:
        return {}
    if "validation" in parts:
        notes.append(
            f"--validation_fraction={fraction} is not used: {options.dataset} has a "
            "validation set of its own"
        )
        return {}
    taken = round(fraction * len(train))
    if not 0 < taken < len(train):
        raise UserError(
            f"--validation_fraction={fraction} of {len(train)} training examples "
            f"leaves {len(train) - taken} to train on and {taken} for validation; "
            "both need one at least"
        )
    rest, part = splits.stratified_split(train.labels, taken, options.split_seed)
    return {
        "train": train.take(np.sort(rest)),
        "validation": train.take(np.sort(part)),
    }


def take_examples(train: images.Images, options: "DataOptions") -> images.Images:
    """Take `--train_examples` of a training set, as equally as it has the classes.

    Raises:
        UserError: there are not that many.
    """
    wanted = options.train_examples
    if not wanted:
        return train
    if wanted > len(train):
        raise UserError(
            f"--train_examples={wanted} is more than the {len(train)} training "
            "examples that there are; lower it, or 0 for all"
        )
    return train.take(splits.balanced_subset(train.labels, wanted, options.split_seed))


def shuffle_pixels(part: images.Images, seed: int) -> images.Images:
    """Permute the pixels of every image by one permutation, channels together.

    Args:
        seed: 0 or more; with the image's height and width it is all that the
            permutation depends on.
    """
    height, width, channels = part.shape
    order = np.random.RandomState(seed).permutation(height * width)
    read = part.read

    def read_shuffled(positions: np.ndarray) -> np.ndarray:
        pixels = read(positions).reshape(-1, height * width, channels)
        return pixels[:, order].reshape(-1, height, width, channels)

    return dataclasses.replace(part, read=read_shuffled)
