"""Well-known tensorflow-datasets as they were published, where they are not prepared.

What is described of a run needs their sizes alone: images are black, labels take turns,
classes have numbers for names.
"""

import types

import numpy as np

from cnn.data import images, tfds
from cnn.data.options import DataOptions
from cnn.errors import UserError

_Entry = tuple[tuple[int | None, int | None, int], int, dict[str, int]]
_MNIST = (28, 28, 1), 10, {"train": 60_000, "test": 10_000}
_CIFAR10 = (32, 32, 3), 10, {"train": 50_000, "test": 10_000}
# Shape of the images (None: they differ), classes, labelled examples by split.
# Source: https://www.tensorflow.org/datasets/catalog/overview
PUBLISHED: dict[str, _Entry] = {
    "mnist": _MNIST,
    "fashion_mnist": _MNIST,
    "kmnist": _MNIST,
    "cifar10": _CIFAR10,
    "cifar10_jpeg": _CIFAR10,
    "cifar100": ((32, 32, 3), 100, {"train": 50_000, "test": 10_000}),
    "svhn_cropped": (
        (32, 32, 3),
        10,
        {"train": 73_257, "test": 26_032, "extra": 531_131},
    ),
    "stl10": ((96, 96, 3), 10, {"train": 5_000, "test": 8_000}),
    "food101": ((None, None, 3), 101, {"train": 75_750, "validation": 25_250}),
    "imagenet2012": ((None, None, 3), 1000, {"train": 1_281_167, "validation": 50_000}),
}


def load(rest: str, options: DataOptions) -> images.Dataset:
    """Load a prepared dataset as `tfds.load` does, else stand in for a well-known one.

    Raises:
        UserError: as `tfds.load`; it is neither prepared nor well-known.
    """
    try:
        return tfds.load(rest, options)
    except tfds.NotPrepared as missing:
        entry = PUBLISHED.get(rest.partition(":")[0])
        if entry is None:
            raise
        return _stand_in(rest, entry, options, str(missing))


def _stand_in(
    rest: str, entry: _Entry, options: DataOptions, missing: str
) -> images.Dataset:
    shape, num_classes, counts = entry
    feature = types.SimpleNamespace(np_dtype=np.uint8, shape=shape)
    shape = tfds.find_shape(feature, rest, options)

    def make_split(flag: str, split: str) -> images.Images:
        count = _count_examples(rest, counts, flag, split)
        labels = (np.arange(count) % num_classes).astype(np.int32)
        return images.Images(labels, shape, lambda positions: positions).blacken(shape)

    validation = options.validation_split
    return images.Dataset(
        name=f"tfds:{rest}",
        class_names=tuple(str(label) for label in range(num_classes)),
        train=make_split("train_split", options.train_split),
        validation=make_split("validation_split", validation) if validation else None,
        test=make_split("test_split", options.test_split),
        notes=(
            f"note      the images of tfds:{rest} were not looked at; described is "
            f"what was published. Training would stop here: {missing}",
        ),
    )


def _count_examples(rest: str, counts: dict[str, int], flag: str, split: str) -> int:
    """Count the examples of a split or of a slice, such as train[:90%]."""
    if split in counts:
        return counts[split]
    from tensorflow_datasets.core import splits

    infos = {
        name: splits.SplitInfo(name=name, shard_lengths=[count], num_bytes=0)
        for name, count in counts.items()
    }
    try:
        parts = splits.ReadInstruction.from_spec(split).to_absolute(infos)
    except ValueError:
        raise UserError(
            f"--{flag}={split}: tfds:{rest} has no such split; it has "
            f"{', '.join(counts)}, of which slices are written as train[:90%]"
        ) from None
    return sum((x.to or counts[x.splitname]) - (x.from_ or 0) for x in parts)
