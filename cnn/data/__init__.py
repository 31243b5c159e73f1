"""Where images come from: `load_dataset` turns `DataOptions` into a `Dataset`.

Every source is loaded in the same way: the file that knows it returns its parts;
here a validation set is carved out, a subset taken, pixels permuted, labels checked.
All of it depends on `--split_seed`, nothing on `--seed`.
"""

import dataclasses

import numpy as np

from cnn.data import choose, decode, digits, folder, npz, tfds
from cnn.data.files import decode_files
from cnn.data.images import Dataset, Images
from cnn.errors import UserError, suggest
from cnn.options import option

__all__ = ["DataOptions", "Dataset", "Images", "decode_files", "load_dataset"]

LOADERS = {
    "digits": digits.load,
    "tfds": tfds.load,
    "folder": folder.load_folder,
    "csv": folder.load_csv,
    "npz": npz.load,
}
_MEMORY_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which images, in which form."""

    dataset: str = option(
        "digits",
        "digits | tfds:NAME[/CONFIG][:VERSION] | folder:PATH (class folders, in train/ "
        "and test/ or alone) | csv:FILE (columns path,label and perhaps split) | "
        "npz:FILE (x_train, y_train, x_test, y_test)",
    )
    data_dir: str = option(
        "",
        "directory of prepared tensorflow-datasets; empty: ~/tensorflow_datasets",
        changes_run=False,
    )
    train_split: str = option("train", "tfds: split to train on, as train[:90%]")
    validation_split: str = option(
        "", "tfds: split to validate on, as train[90%:]; empty: none"
    )
    test_split: str = option("test", "tfds: split to test on")
    num_classes: int = option(
        0, "number of classes; 0: as many as the dataset has", within="[0, inf)"
    )
    classes: tuple[int, ...] = option(
        (),
        "labels of the only classes to use, which become 0, 1, … in this order; "
        "empty: all",
        within="[0, inf)",
    )
    image_size: int = option(
        0, "height and width in pixels; 0: as the images are", within="[0, 16384]"
    )
    channels: int = option(0, "1 grey, 3 colour, 0: as the images are", within="[0, 3]")
    resize_mode: str = option(
        "crop",
        "how images become square: crop (shorter side resized, centre cut out), "
        "squash (both sides resized), pad (longer side resized, rest black)",
        choices=("crop", "squash", "pad"),
    )
    resize_size: int = option(
        0,
        "crop: shorter side in pixels before the cut; 0: the size itself",
        within="[0, 16384]",
    )
    storage_size: int = option(
        0,
        "height and width in pixels that images are stored at, for random crops of "
        "--image_size; 0: --image_size",
        within="[0, 16384]",
    )
    validation_fraction: float = option(
        0.0,
        "share of the training set, class by class, set aside for validation",
        within="[0, 1)",
    )
    split_seed: int = option(
        0,
        "seed of splits, subsets and --shuffle_pixels",
        within="[0, 4294967295]",
    )
    train_examples: int = option(
        0,
        "training examples to use, equally many of each class; 0: all",
        within="[0, inf)",
    )
    shuffle_pixels: bool = option(
        False, "permute the pixels of all images by one fixed permutation"
    )
    bad_images: str = option(
        "error",
        "image files that cannot be read: error (stop) or skip (leave out, count)",
        choices=("error", "skip"),
    )
    resident: str = option(
        "auto",
        "whether decoded images are kept in memory, on the device where they fit: "
        "auto, always, or never (stream)",
        choices=("auto", "always", "never"),
        changes_run=False,
    )
    scaling: str = option(
        "standardize",
        "unit (0..1), symmetric (-1..1) or standardize ((x - mean) / std by channel)",
        choices=("unit", "symmetric", "standardize"),
    )
    mean: tuple[float, ...] = option(
        (),
        "standardize: mean of each channel of images in 0..1; empty: computed",
        within="[0, 1]",
    )
    std: tuple[float, ...] = option(
        (),
        "standardize: standard deviation of each channel of images in 0..1; empty: "
        "computed",
        within="(0, inf)",
    )

    @property
    def stored_size(self) -> int:
        """Height and width of stored images in pixels; 0: as the images are."""
        return self.storage_size or self.image_size

    @property
    def layout(self) -> decode.Layout:
        """The form that every image is brought to when it is loaded."""
        return decode.Layout(
            self.stored_size, self.channels, self.resize_mode, self.resize_size
        )

    def keeps_in_memory(self, num_bytes: int) -> bool:
        """Whether decoded images of that size in bytes are kept in memory."""
        fits = self.resident == "auto" and num_bytes <= _MEMORY_BYTES
        return self.resident == "always" or fits


def load_dataset(options: DataOptions) -> Dataset:
    """Load the images that the options name.

    Returns:
        Parts of one shape, with labels in 0..K-1 for K class names. With
        `--storage_size` that shape is the stored one; the model sees
        `--image_size`.

    Raises:
        UserError: options contradict each other, or the data are not as they must
            be; one message that says which flag or file to change.
    """
    _check_options(options)
    kind, _, rest = options.dataset.partition(":")
    if kind not in LOADERS:
        raise UserError(
            f"--dataset={options.dataset} is unknown{suggest(kind, LOADERS)}"
        )
    if kind != "digits" and not rest:
        raise UserError(f"--dataset={kind} lacks what to load; write {kind}:…")
    dataset = _name_classes(LOADERS[kind](rest, options), options.num_classes)
    parts = {
        "train": dataset.train,
        "validation": dataset.validation,
        "test": dataset.test,
    }
    parts = {name: part for name, part in parts.items() if part is not None}
    for name, part in parts.items():
        _check_part(dataset, name, part)
    class_names, parts = choose.select_classes(dataset.class_names, parts, options)
    notes = list(dataset.notes)
    parts.update(choose.carve_validation(parts, options, notes))
    parts["train"] = choose.take_examples(parts["train"], options)
    if options.shuffle_pixels:
        parts = {
            name: choose.shuffle_pixels(part, options.split_seed)
            for name, part in parts.items()
        }
    return dataclasses.replace(
        dataset, class_names=class_names, notes=tuple(notes), **parts
    )


def _check_options(options: DataOptions) -> None:
    size, stored, resize = options.image_size, options.stored_size, options.resize_size
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
    if (options.mean or options.std) and options.scaling != "standardize":
        raise UserError(
            f"--mean and --std are for --scaling=standardize, not {options.scaling}"
        )
    for name in ("train_split", "validation_split", "test_split"):
        default = DataOptions.__dataclass_fields__[name].default
        value = getattr(options, name)
        if value != default and not options.dataset.startswith("tfds:"):
            raise UserError(
                f"--{name}={value} is for tfds:NAME; --dataset={options.dataset} has "
                f"no named splits, leave it out"
            )


def _name_classes(dataset: Dataset, num_classes: int) -> Dataset:
    """Bring the class names to the number of classes asked for."""
    known = len(dataset.class_names)
    if not num_classes or num_classes == known:
        return dataset
    if num_classes < known:
        parts = {"train": dataset.train, "test": dataset.test}
        for name, part in parts.items():
            _check_labels(dataset.name, name, part.labels, num_classes)
        raise UserError(
            f"--num_classes={num_classes} is less than the {known} classes of "
            f"{dataset.name}; leave it out, or give {known} or more"
        )
    more = tuple(str(label) for label in range(known, num_classes))
    return dataclasses.replace(dataset, class_names=dataset.class_names + more)


def _check_labels(dataset: str, part: str, labels: np.ndarray, count: int) -> None:
    (wrong,) = np.nonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise UserError(
            f"{dataset}: {part} example {wrong[0]} has label {labels[wrong[0]]}, "
            f"outside 0..{count - 1}; correct the label or set --num_classes"
        )


def _check_part(dataset: Dataset, name: str, part: Images) -> None:
    if not len(part):
        raise UserError(f"{dataset.name}: the {name} set is empty")
    _check_labels(dataset.name, name, part.labels, len(dataset.class_names))
