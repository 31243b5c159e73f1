"""Which examples of a loaded dataset are used and how they are split.

`parts` are sets by name, `train` among them. Splits depend on labels, sizes and a seed
(0 or more) alone, and use numpy's `RandomState`, whose stream never changes, so that a
split stays the same for ever. Images of several labels each are split by names too,
whatever their source.

Files change: they are split by a hash of each one's name and the seed, so that a file
that comes or goes moves no other (`split_by_name`).
"""

import dataclasses
import functools
import hashlib

import numpy as np

from cnn.data import images
from cnn.data import labels as labelled
from cnn.data.options import DataOptions
from cnn.errors import UserError


def select_classes(
    class_names: tuple[str, ...],
    parts: dict[str, images.Images],
    options: DataOptions,
) -> tuple[tuple[str, ...], dict[str, images.Images]]:
    """Keep the examples of `--classes` and number their labels in that order.

    Of several labels an image the others are dropped, and every image is kept.

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
        renumbered = labelled.renumber(part.labels, numbers, len(chosen))
        several = labelled.are_several(renumbered)
        is_kept = np.full(len(part), True) if several else renumbered >= 0
        if not (renumbered.any() if several else is_kept.any()):
            raise UserError(f"{given}: the {name} set has no example of these")
        part = dataclasses.replace(part, labels=renumbered)
        kept[name] = part.take(np.flatnonzero(is_kept))
    return tuple(class_names[label] for label in chosen), kept


def carve_validation(
    parts: dict[str, images.Images],
    options: DataOptions,
    notes: list[str],
    is_named: bool = False,
) -> dict[str, images.Images]:
    """Set `--validation_fraction` of the training set aside, in its order.

    Args:
        is_named: whether examples are split by their names.
        notes: gets a line when there is a validation set already.

    Returns:
        The parts to replace.

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
    seed, taken = options.split_seed, round(fraction * len(train))
    is_named = is_named or labelled.are_several(train.labels)
    if is_named:
        rest, part = split_by_name(train, fraction, seed, "validation")
        taken = len(part)
    if not 0 < taken < len(train):
        raise UserError(
            f"--validation_fraction={fraction} of {len(train)} training examples "
            f"leaves {len(train) - taken} to train on and {taken} for validation; "
            "both need one at least"
        )
    if is_named:
        notes.append(describe_split("validation", train.labels, part))
    else:
        rest, part = stratified_split(train.labels, taken, seed)
    return {
        "train": train.take(np.sort(rest)),
        "validation": train.take(np.sort(part)),
    }


def take_examples(
    train: images.Images, options: DataOptions, is_named: bool = False
) -> images.Images:
    """Take `--train_examples` of a training set, as `balanced_subset` chooses them.

    Of several labels an image they are drawn, whatever the labels; with one seed, fewer
    lie within more.

    Args:
        is_named: whether examples are taken in the order of their names' hashes.

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
    order = None
    if is_named:
        order = np.argsort(_draw(train, options.split_seed, "train"), kind="stable")
    if labelled.are_several(train.labels):  # which no choice of images makes equal
        if order is None:
            order = np.random.RandomState(options.split_seed).permutation(len(train))
        return train.take(np.sort(order[:wanted]))
    return train.take(balanced_subset(train.labels, wanted, options.split_seed, order))


def shuffle_pixels(part: images.Images, seed: int) -> images.Images:
    """Permute the pixels of every image of a set, as `permute_pixels` does."""
    read = part.read
    return dataclasses.replace(
        part, read=lambda positions: permute_pixels(read(positions), seed)
    )


def permute_pixels(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Permute the pixels of every image by one permutation, channels together.

    It depends on the seed and the images' height and width alone.

    Args:
        pixels: [N, H, W, C].
        seed: of `--split_seed`.
    """
    _, height, width, channels = pixels.shape
    order = _draw_order(seed, height * width)
    shuffled = pixels.reshape(-1, height * width, channels)[:, order]
    return shuffled.reshape(pixels.shape)


@functools.lru_cache(4)
def _draw_order(seed: int, count: int) -> np.ndarray:
    return np.random.RandomState(seed).permutation(count)


def stratified_split(
    labels: np.ndarray, taken: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split positions in two, each class in proportion to its size.

    Equal, order included, to scikit-learn's `train_test_split(test_size=taken,
    stratify=labels, random_state=seed)`, whose import takes longer than the whole
    loading of the digits; classes of one example, which that refuses, are allowed.

    Args:
        labels: whole numbers [N].
        taken: examples of the second part, 0..N.

    Returns:
        Positions of the rest [N - taken] and of the second part [taken], shuffled.
    """
    _, indices, counts = np.unique(labels, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    members = np.split(np.argsort(indices, kind="stable"), ends[:-1])
    random = np.random.RandomState(seed)
    rest_counts = _apportion(counts, len(labels) - taken, random)
    taken_counts = _apportion(counts - rest_counts, taken, random)
    rest, part = [], []
    for member, n_rest, n_taken in zip(members, rest_counts, taken_counts, strict=True):
        shuffled = member[random.permutation(len(member))]
        rest.append(shuffled[:n_rest])
        part.append(shuffled[n_rest : n_rest + n_taken])
    return (
        random.permutation(np.concatenate(rest)),
        random.permutation(np.concatenate(part)),
    )


def split_by_name(
    examples: images.Images,
    fraction: float,
    seed: int,
    purpose: str,
    every_class: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Split examples in two by a number in [0, 1) that each one's name draws.

    Those that draw less than `fraction` are the second part, whatever else there is:
    an example that is added or removed moves no other. Hence parts are stratified in
    expectation only, with two exceptions: the highest of each class always stays, and
    the lowest of all (with `every_class`, of each class of two or more) is always in
    the second part, unless it is the highest of another of its classes. Only where
    these apply, in small classes, can one that comes or goes move one other of its
    class.

    Args:
        purpose: another draws other numbers.

    Returns:
        Positions of the rest and of the second part, ascending; the latter is empty
        when every class has a single example.
    """
    drawn = _draw(examples, seed, purpose)
    taken, lowest, highest = drawn < fraction, [], set()
    for label in labelled.list_occurring(examples.labels):
        same = labelled.find_members(examples.labels, label)
        order = same[np.argsort(drawn[same], kind="stable")]
        taken[order[-1]] = False
        highest.add(order[-1])
        lowest += [order[0]] if len(order) > 1 else []
    lowest = [position for position in lowest if position not in highest]
    if lowest and (every_class or not taken.any()):
        lowest = np.array(lowest)
        taken[lowest if every_class else lowest[np.argmin(drawn[lowest])]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def describe_split(purpose: str, labels: np.ndarray, part: np.ndarray) -> str:
    """Say how a set was split off by names.

    Args:
        labels: of all, as of `cnn.data.labels`.
        part: positions of the set that was split off.
    """
    counts = labelled.count_classes(labels[part], int(labels.max()) + 1)
    counts = counts[labelled.list_occurring(labels)]
    return (
        f"{purpose} set: {len(part)} of {len(labels)} images, by their names' hashes "
        f"and --split_seed, {counts.min()} to {counts.max()} of each class"
    )


def _draw(examples: images.Images, seed: int, purpose: str) -> np.ndarray:
    """Draw a number in [0, 1) for each example from its name, float64 [N]."""
    drawn = np.empty(len(examples))
    for i, name in enumerate(examples.names):
        text = f"{seed}/{purpose}/{name}".encode("utf-8", "surrogateescape")
        drawn[i] = int.from_bytes(hashlib.sha256(text).digest()[:6], "big") / 2**48
    return drawn


def balanced_subset(
    labels: np.ndarray, size: int, seed: int, order: np.ndarray | None = None
) -> np.ndarray:
    """Choose equally many examples of each class, as far as possible.

    A class that is smaller than its share is taken whole and the others share what
    it lacks. With one seed, a smaller subset lies within a larger one.

    Args:
        labels: whole numbers [N].
        size: examples to choose, 1..N.
        order: positions [N], the first of each class preferred; None: at random.

    Returns:
        Positions [size], ascending.
    """
    if order is None:
        order = np.random.RandomState(seed).permutation(len(labels))
    _, indices = np.unique(labels[order], return_inverse=True)
    rank = np.empty(len(labels), dtype=np.int64)
    for index in range(indices.max() + 1):
        (same,) = np.nonzero(indices == index)
        rank[same] = np.arange(len(same))
    chosen = np.lexsort((indices, rank))[:size]
    return np.sort(order[chosen])


def _apportion(
    counts: np.ndarray, total: int, random: np.random.RandomState
) -> np.ndarray:
    """Share `total` in proportion to `counts`; equal remainders are drawn."""
    exact = counts / max(counts.sum(), 1) * total
    shares = np.floor(exact)
    missing = int(total - shares.sum())
    remainders = exact - shares
    for value in np.unique(remainders)[::-1]:
        if missing == 0:
            break
        (tied,) = np.nonzero(remainders == value)
        winners = random.choice(tied, size=min(len(tied), missing), replace=False)
        shares[winners] += 1
        missing -= len(winners)
    return shares.astype(np.int64)
