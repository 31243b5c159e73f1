"""DataOptions: which images, in which form."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from cnn.errors import UserError
from cnn.option import free_option, option

_MEMORY_BYTES = 4 * 2**30
_MOST_PIXELS = 16384
# What is a size of images, in training or evaluation.
SIZES = ("image_size", "resize_size", "storage_size")
SIZES += ("image_size_schedule", "eval_image_size", "eval_resize_size")
# What is evaluated or drawn is divided as the run divided it.
_TRAINING = "train sweep describe convert"
_IMAGES = "train sweep describe convert evaluate visualize"
_DIVISION = f"{_TRAINING} inspect"
_SIZED = "image_size or image_size_schedule"
_OF_TFDS = "dataset=tfds:* and mode!=evaluate|visualize"


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which images, in which form."""

    modes: ClassVar[str] = "train sweep describe convert evaluate visualize inspect"
    only_for: ClassVar[str] = (
        "mode!=visualize or pictures=all|mistakes|suspects|kernels|features|patches|"
        "maximisation|saliency|invariance|augmentation|transformations|playground"
    )

    dataset: str = option(
        "digits",
        "digits | tfds:NAME[/CONFIG][:VERSION] | folder:PATH (class folders, in train/ "
        "and test/ or alone) | csv:FILE (columns path,label and perhaps split) | "
        "npz:FILE (x_train, y_train, x_test, y_test)",
        is_path=True,
    )
    task: str = option(
        "auto",
        "multiclass: an image has one class; multilabel: it may have none or several, "
        "each with a probability of its own; auto: as the data have it. Labels of one "
        "class each are taken as multilabel where that is asked for",
        choices=("auto", "multiclass", "multilabel"),
        modes=f"{_TRAINING} inspect",
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
        "pictures=all|suspects|augmentation|transformations",
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
        within="[0, 1000000]",
        modes=_DIVISION,
    )
    classes: tuple[int, ...] = option(
        (),
        "labels of the only classes to use, which become 0, 1, … in this order; "
        "empty: all",
        within="[0, 1000000]",
    )
    image_size: int = option(
        0,
        "height and width in pixels; 0: as the images are",
        within="[0, 16384]",
        only_for="mode!=train|sweep|describe or not image_size_schedule",
        modes=f"{_IMAGES} predict inspect",
    )
    choose_sizes: str = option(
        "given",
        "what --image_size and --storage_size are where they are 0: given (as the "
        "images are), or files (what the weights of --init_from have seen, else what "
        "suits the files; printed)",
        choices=("given", "files"),
        only_for="dataset=folder:* and not image_size and not image_size_schedule",
        modes="train sweep describe",
    )
    image_size_schedule: tuple[str, ...] = option(
        (),
        "epoch:size, in place of --image_size: height and width in pixels of training "
        "images from that epoch on, counted from 0, as '0:128,40:160,70:192'; they are "
        "stored at the largest, or --storage_size",
        modes="train sweep describe",
    )
    eval_image_size: int = option(
        0,
        "height and width in pixels of images that are evaluated, by the run and, "
        "unless --image_size is given to them, by evaluate, predict and visualize; 0: "
        "--image_size, or the largest of --image_size_schedule",
        within="[0, 16384]",
        only_for=_SIZED,
        modes="train sweep describe",
    )
    channels: int = option(0, "1 grey, 3 colour, 0: as the images are", within="[0, 3]")
    resize_mode: str = option(
        "crop",
        "how images become square: crop (shorter side resized, centre cut out), "
        "squash (both sides resized), pad (longer side resized, rest black)",
        choices=("crop", "squash", "pad"),
        only_for=f"{_SIZED} or picture_files",
        modes=f"{_IMAGES} predict inspect",
    )
    resize_size: int = option(
        0,
        "crop: shorter side in pixels before the cut; 0: the size itself",
        within="[0, 16384]",
        only_for="resize_mode=crop",
        modes=f"{_IMAGES} predict inspect",
    )
    eval_resize_size: int = option(
        0,
        "crop: shorter side in pixels of images that are evaluated, before the cut; "
        "0: --resize_size, or --storage_size, or the size itself",
        within="[0, 16384]",
        only_for="resize_mode=crop",
        modes="train sweep describe",
    )
    resize_interpolation: str = option(
        "bilinear",
        "how images are resized: bilinear and bicubic with antialiasing, or nearest",
        choices=("bilinear", "bicubic", "nearest"),
        only_for=f"{_SIZED} or picture_files",
        modes="train sweep describe convert evaluate visualize predict",
    )
    storage_size: int = option(
        0,
        "height and width in pixels that images are stored at, for random crops of "
        "--image_size; 0: --image_size",
        within="[0, 16384]",
        only_for=_SIZED,
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
        within="[0, 2147483647]",
        modes=_TRAINING,
    )
    drop_examples: str = option(
        "",
        "file of training images to leave out, as wrongly labelled ones: a CSV with a "
        "column id or path, such as lines of examples.csv (see --track_examples), or "
        "one name a line; empty: none. What the other options choose stays as it is",
        is_path=True,
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
    storage_cache: str = free_option(
        "",
        "directory in which decoded images are kept in files, so that no epoch after "
        "the first, and no later run, decodes them again; empty: none. It takes height "
        "x width x channels bytes an image, at once. Images are then not kept in "
        "memory as well, but on a GPU or TPU where they fit; delete the directory "
        "whenever no run uses it",
        only_for="dataset=folder:*|csv:*|tfds:*",
        modes=_IMAGES,
        is_path=True,
    )
    scaling: str = option(
        "standardize",
        "unit (0..1), symmetric (-1..1) or standardize ((x - mean) / std by channel)",
        choices=("unit", "symmetric", "standardize"),
        only_for="mode!=visualize or pictures=all|augmentation|transformations",
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
        return self.storage_size or self.training_size

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """First epoch and size in pixels of training images; 0: as the images are."""
        return read_schedule(self.image_size_schedule) or ((0, self.image_size),)

    @property
    def training_size(self) -> int:
        """The largest height and width of training images; 0: as the images are."""
        return max(size for _, size in self.sizes)

    def for_evaluation(self) -> "DataOptions":
        """Return the options whose plain sizes are those of evaluation."""
        size, shorter, stored = self.training_size, self.resize_size, self.storage_size
        is_apart = size and (self.eval_image_size or self.eval_resize_size)
        if not is_apart and not self.image_size_schedule:
            return self
        if is_apart:
            size = self.eval_image_size or size
            shorter, stored = self.eval_resize_size or shorter or stored, 0
        return dataclasses.replace(
            self,
            image_size=size,
            resize_size=shorter,
            storage_size=stored,
            image_size_schedule=(),
            eval_image_size=0,
            eval_resize_size=0,
        )

    def fits_in_memory(self, num_bytes: int) -> bool:
        """Whether so many bytes may be kept in memory for as long as a run takes."""
        fits = self.resident == "auto" and num_bytes <= _MEMORY_BYTES
        return self.resident == "always" or fits

    def keeps_in_memory(self, num_bytes: int) -> bool:
        """Whether decoded images of that size in bytes are kept in memory."""
        return not self.storage_cache and self.fits_in_memory(num_bytes)


def find_centre(length: int, size: int) -> int:
    """Return where `size` of `length` pixels begin when the centre is cut out.

    Half a pixel is rounded to the even side, as in torchvision's `CenterCrop`.
    """
    return round((length - size) / 2)


def read_schedule(texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Read the texts of `--image_size_schedule` as pairs of first epoch and size.

    Raises:
        UserError: one is not of that form, or the epochs are not ascending from 0.
    """
    given, pairs = f"--image_size_schedule={','.join(texts)}", []
    for text in texts:
        epoch, _, size = text.partition(":")
        is_read = epoch.isdecimal() and size.isdecimal()
        if not is_read or not 1 <= int(size) <= _MOST_PIXELS:
            raise UserError(
                f"{given}: {text} is not epoch:size, a whole number of epochs and one "
                f"of pixels from 1 to {_MOST_PIXELS}; write 0:128,40:160,70:192"
            )
        pairs.append((int(epoch), int(size)))
    epochs = [epoch for epoch, _ in pairs]
    if epochs and (epochs[0] or epochs != sorted(set(epochs))):
        raise UserError(
            f"{given}: the epochs must begin at 0 and increase, as in "
            "0:128,40:160,70:192"
        )
    return tuple(pairs)
