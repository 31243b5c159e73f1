"""DataOptions: which images, in which form."""

import dataclasses
from typing import ClassVar

from cnn.option import free_option, option

_MEMORY_BYTES = 4 * 2**30
# What is evaluated or drawn is divided as the run divided it.
_TRAINING = "train sweep describe convert"
_IMAGES = "train sweep describe convert evaluate visualize"
_DIVISION = f"{_TRAINING} inspect"
_OF_TFDS = "dataset=tfds:* and mode!=evaluate|visualize"


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which images, in which form."""

    modes: ClassVar[str] = "train sweep describe convert evaluate visualize inspect"
    only_for: ClassVar[str] = (
        "mode!=visualize or pictures=all|mistakes|kernels|features|patches|"
        "maximisation|saliency|invariance|augmentation"
    )

    dataset: str = option(
        "digits",
        "digits | tfds:NAME[/CONFIG][:VERSION] | folder:PATH (class folders, in train/ "
        "and test/ or alone) | csv:FILE (columns path,label and perhaps split) | "
        "npz:FILE (x_train, y_train, x_test, y_test)",
        is_path=True,
    )
    data_dir: str = free_option(
        "",
        "directory of prepared tensorflow-datasets; empty: ~/tensorflow_datasets",
        only_for="dataset=tfds:*",
        is_path=True,
    )
    train_split: str = option(
        "train",
        "tfds: split to train on, as train[:90%]",
        only_for=f"{_OF_TFDS} or dataset=tfds:* and split!=test or dataset=tfds:* and "
        "pictures=all|augmentation",
    )
    validation_split: str = option(
        "",
        "tfds: split to validate on, as train[90%:]; empty: none",
        only_for=f"{_OF_TFDS} or dataset=tfds:* and split=validation|all",
    )
    test_split: str = option(
        "test",
        "tfds: split to test on",
        only_for=f"{_OF_TFDS} or dataset=tfds:* and split=test|all",
    )
    num_classes: int = option(
        0,
        "number of classes; 0: as many as the dataset has",
        within="[0, inf)",
        modes=_DIVISION,
    )
    classes: tuple[int, ...] = option(
        (),
        "labels of the only classes to use, which become 0, 1, … in this order; "
        "empty: all",
        within="[0, inf)",
    )
    image_size: int = option(
        0,
        "height and width in pixels; 0: as the images are",
        within="[0, 16384]",
        modes=f"{_IMAGES} predict inspect",
    )
    channels: int = option(0, "1 grey, 3 colour, 0: as the images are", within="[0, 3]")
    resize_mode: str = option(
        "crop",
        "how images become square: crop (shorter side resized, centre cut out), "
        "squash (both sides resized), pad (longer side resized, rest black)",
        choices=("crop", "squash", "pad"),
        only_for="image_size or picture_files",
        modes=f"{_IMAGES} predict inspect",
    )
    resize_size: int = option(
        0,
        "crop: shorter side in pixels before the cut; 0: the size itself",
        within="[0, 16384]",
        only_for="resize_mode=crop",
        modes=f"{_IMAGES} predict inspect",
    )
    resize_interpolation: str = option(
        "bilinear",
        "how images are resized: bilinear and bicubic with antialiasing, or nearest",
        choices=("bilinear", "bicubic", "nearest"),
        only_for="image_size or picture_files",
        modes="train sweep describe convert evaluate visualize predict",
    )
    storage_size: int = option(
        0,
        "height and width in pixels that images are stored at, for random crops of "
        "--image_size; 0: --image_size",
        within="[0, 16384]",
        only_for="image_size",
        modes=f"{_IMAGES} predict inspect",
    )
    validation_fraction: float = option(
        0.0,
        "share of the training set, class by class, set aside for validation",
        within="[0, 1)",
        modes=_DIVISION,
    )
    split_seed: int = option(
        0,
        "seed of splits, subsets and --shuffle_pixels",
        within="[0, 4294967295]",
        only_for="validation_fraction or train_examples or shuffle_pixels or "
        "dataset=folder:*|csv:*",
        modes=_DIVISION,
    )
    train_examples: int = option(
        0,
        "training examples to use, equally many of each class; 0: all",
        within="[0, inf)",
        modes=_TRAINING,
    )
    shuffle_pixels: bool = option(
        False,
        "permute the pixels of all images by one fixed permutation",
        modes=_IMAGES,
    )
    bad_images: str = option(
        "error",
        "image files that cannot be read: error (stop) or skip (leave out, count)",
        choices=("error", "skip"),
        only_for="dataset=folder:*|csv:* or mode=predict or picture_files",
        modes=f"{_IMAGES} predict",
    )
    resident: str = free_option(
        "auto",
        "whether decoded images are kept in memory, on the device where they fit: "
        "auto, always, or never (stream)",
        choices=("auto", "always", "never"),
        only_for="mode!=visualize or dataset=folder:*|csv:*",
        modes=_IMAGES,
    )
    scaling: str = option(
        "standardize",
        "unit (0..1), symmetric (-1..1) or standardize ((x - mean) / std by channel)",
        choices=("unit", "symmetric", "standardize"),
        only_for="mode!=visualize or pictures=all|augmentation",
        modes="train sweep describe convert visualize",
    )
    mean: tuple[float, ...] = option(
        (),
        "standardize: mean of each channel of images in 0..1; empty: computed",
        within="[0, 1]",
        only_for="scaling=standardize",
        modes="train sweep describe convert visualize",
    )
    std: tuple[float, ...] = option(
        (),
        "standardize: standard deviation of each channel of images in 0..1; empty: "
        "computed",
        within="(0, inf)",
        only_for="scaling=standardize",
        modes="train sweep describe convert visualize",
    )

    allow_changed_data: bool = free_option(
        False,
        "resume a run although its data have changed; its result says so",
        modes="train describe",
    )
    preprocessing: str = option(
        "auto",
        "what image_size, resize_mode, resize_size, resize_interpolation, mean and std "
        "are where they are not given: published (as the model's published weights "
        "were evaluated), the name of some of these, as IMAGENET1K_V2, given (nothing "
        "else than what is given), auto (published for published weights, else given)",
        modes="train sweep describe convert",
    )

    @property
    def stored_size(self) -> int:
        """Height and width of stored images in pixels; 0: as the images are."""
        return self.storage_size or self.image_size

    def keeps_in_memory(self, num_bytes: int) -> bool:
        """Whether decoded images of that size in bytes are kept in memory."""
        fits = self.resident == "auto" and num_bytes <= _MEMORY_BYTES
        return self.resident == "always" or fits


def find_centre(length: int, size: int) -> int:
    """Return where `size` of `length` pixels begin when the centre is cut out.

    Half a pixel is rounded to the even side, as in torchvision's `CenterCrop`.
    """
    return round((length - size) / 2)
