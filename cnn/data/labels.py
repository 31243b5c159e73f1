"""Labels of images: one class each, int32 [N], or any of K, a matrix uint8 [N, K].

A matrix holds 1 where a class is a label of the image, else 0. Its classes are columns;
those of a vector are its numbers. These functions are all that tells the two apart.
"""

from collections.abc import Sequence

import numpy as np

SEPARATOR = "|"  # of the labels of an image, where they are one text
NONE = "no label"


def are_several(labels: np.ndarray) -> bool:
    """Return whether an image may have any number of labels."""
    return labels.ndim == 2


def as_stored(labels: np.ndarray) -> np.ndarray:
    """Return labels, whole numbers [N] or 0 and 1 [N, K], in the type they are kept."""
    return np.asarray(labels, np.uint8 if are_several(labels) else np.int32)


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the images of each class, int64 [K]."""
    if are_several(labels):
        return labels.sum(axis=0, dtype=np.int64)
    return np.bincount(labels, minlength=num_classes)


def find_members(labels: np.ndarray, label: int) -> np.ndarray:
    """Return the positions of the images of a class, ascending."""
    has_label = labels[:, label] if are_several(labels) else labels == label
    return np.flatnonzero(has_label)


def list_occurring(labels: np.ndarray) -> list[int]:
    """List the classes that any image has, ascending."""
    if are_several(labels):
        return np.flatnonzero(labels.any(axis=0)).tolist()
    return np.unique(labels).tolist()


def find_first(labels: np.ndarray) -> np.ndarray:
    """Return the position of each occurring class's first image, each once."""
    first = [find_members(labels, label)[0] for label in list_occurring(labels)]
    return np.array(list(dict.fromkeys(first)), np.int64)


def to_matrix(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return labels as a matrix of K columns; columns that it lacks are 0."""
    several = are_several(labels)
    matrix = np.zeros((len(labels), num_classes), np.uint8)
    if several:
        matrix[:, : labels.shape[1]] = labels
    else:
        matrix[np.arange(len(labels)), labels] = 1
    return matrix


def renumber(labels: np.ndarray, table: np.ndarray, num_classes: int) -> np.ndarray:
    """Give classes other numbers.

    Args:
        table: the new number of each class; -1: of a vector it becomes -1, of a matrix
            it is dropped.
        num_classes: K of the new ones.
    """
    if not are_several(labels):
        return table[labels]
    found = np.zeros((len(labels), num_classes), np.uint8)
    (kept,) = np.nonzero(table >= 0)
    found[:, table[kept]] = labels[:, kept]
    return found


def to_lists(labels: np.ndarray) -> list:
    """Return labels as JSON has them: a number an image, or a list of numbers."""
    if are_several(labels):
        return [np.flatnonzero(row).tolist() for row in labels]
    return labels.tolist()


def write(label: int | list[int], class_names: Sequence[str]) -> str:
    """Write one of `to_lists` by names, `a|b`; "" of an image without a label."""
    several = label if isinstance(label, list) else [label]
    return SEPARATOR.join(class_names[k] for k in several)
